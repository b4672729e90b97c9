"""Data sources and the modules that feed them to a trainer."""
