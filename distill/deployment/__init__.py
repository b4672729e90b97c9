"""From a checkpoint to a proven artefact."""
