"""Versions, champion and challenger, evidence, history, rollback."""
