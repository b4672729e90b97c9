"""The feedback loop: what to label next, who labels it, and what comes back into training."""
