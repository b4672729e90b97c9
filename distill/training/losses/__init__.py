"""Losses: a pure function, per example where there is such a form, under one thin module each.

`terms` is what they share. Knows no trainer, no data and no configuration.
"""
