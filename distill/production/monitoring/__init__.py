"""Is the model in production still what it was when it went there?"""
