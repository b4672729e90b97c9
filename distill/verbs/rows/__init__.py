"""Images, rows and series that a user names, for an exported model, and its answers as a file."""
