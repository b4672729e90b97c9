"""A pipeline around its stages: their order, what is checked before, the verdict after."""
