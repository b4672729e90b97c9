"""The stages of a pipeline: their order, what ends it early, and the verdict in the end."""
