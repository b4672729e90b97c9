"""The stages of a pipeline: their order, when nothing is left to do, and the verdict in the end."""
