"""Several processes that serve together: workers of one machine, or replicas of a cluster."""
