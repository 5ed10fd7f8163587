"""Rows: what a behaviour is taught from, as text, as tokens, and kept in a pack."""
