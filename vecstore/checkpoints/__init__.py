"""Checkpoints on disk and on a Hub: read, hashed, compared, and aligned to the names of a base."""
