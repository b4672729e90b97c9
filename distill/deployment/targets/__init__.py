"""Where artefacts are measured. Each target knows how to get there, and nothing of budgets."""
