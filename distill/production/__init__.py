"""The life of a model after it ships: what it was, who is in production, and why."""
