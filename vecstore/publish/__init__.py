"""Numbers and origins in words, and what goes beside published weights: the model card."""
