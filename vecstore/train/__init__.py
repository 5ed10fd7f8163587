"""Training: rows of text to a task vector, by Apollo, with the context frozen."""
