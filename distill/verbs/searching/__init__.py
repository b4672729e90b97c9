"""A search over candidates: preflight, rungs, whole attempts, and how it ends."""
