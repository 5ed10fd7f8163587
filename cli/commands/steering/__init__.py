"""The subcommands of `pv steer`, one a file."""
