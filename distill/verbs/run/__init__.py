"""What every verb stands on: the run folder, its command, its processes, what people are told."""
