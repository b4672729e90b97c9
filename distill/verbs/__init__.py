"""One module per verb: `run(cfg) -> dict`. The only place that knows every wing, and Hydra."""
