"""Everything that needs torch to learn."""
