"""The verbs of probes, one a file."""
