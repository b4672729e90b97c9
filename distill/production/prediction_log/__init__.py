"""What was asked, answered, by which model, and when; and, later, what the truth was."""
