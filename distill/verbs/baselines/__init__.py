"""What a model stands beside: people, the incumbent, and what was known before training."""
