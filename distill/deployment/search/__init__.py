"""Which student next: candidates, what preflight says of them, what short trainings promise."""
