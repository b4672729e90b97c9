"""Knowledge distillation, built backwards from production."""

__version__ = "0.1.0"
