"""The command line itself: its completion, its options, its sweeps, what is installed here."""
