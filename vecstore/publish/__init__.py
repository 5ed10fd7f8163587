"""What goes beside published weights: the model card."""
