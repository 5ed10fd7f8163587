"""The verbs of steering terms, one a file."""
