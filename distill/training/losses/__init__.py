"""Losses: one pure per-example function and one thin module each."""
