"""What other serving systems read: a Triton model repository, a KServe InferenceService."""
