"""The HTTP service: an exported model answers, checked, batched, measured; no torch."""
