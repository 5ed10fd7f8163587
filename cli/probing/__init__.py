"""How what probes found is written to a terminal, one kind a file."""
