"""What a terminal is told besides results: completion, options, what is installed here."""
