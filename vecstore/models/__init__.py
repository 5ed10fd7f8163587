"""A checkpoint as a running model: load it, score answers, generate replies."""
