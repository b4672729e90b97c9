"""A search over candidates: short trainings, whole ones, and how it ends."""
