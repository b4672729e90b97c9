"""Is the challenger better than the champion? Decisions that survive being looked at."""
