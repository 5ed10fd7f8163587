"""Evaluation: what a vector does to a model, in nats and in words, with intervals."""
