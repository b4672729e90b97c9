"""What a model must beat, and how it is asked: heuristics, saved predictions, anything callable."""
