"""The subcommands of pv probe, one a file."""
