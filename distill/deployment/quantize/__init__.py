"""Smaller numbers for a finished float32 model: recipes, their search, and the choice."""
