"""Rows and series as raw columns, and as the numbers that a network reads."""
