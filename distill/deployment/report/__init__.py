"""report.html, report.md and junit.xml, from the plain results that the stages left."""
