"""Teachers: models that are asked and never trained, each kind in its own module."""
