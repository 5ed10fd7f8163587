"""pv steer"""

from __future__ import annotations

import click

from pv.cli.lazy import Below

__all__ = ["SUBCOMMANDS", "command"]

SUBCOMMANDS = (
    "pairs",
    "extract",
    "import",
    "export",
    "list",
    "status",
    "set",
    "apply",
    "sweep",
    "test",
    "verify",
    "train",
    "retire",
    "unretire",
    "add",
    "rename",
    "drop",
    "compare",
)
HELP = """Steer activations: terms of the persona that change no weight.

A steering term adds a direction to the model's activations at some places, at some strength. It is versioned with the
persona, and merged and reverted as a behaviour is.

\b
pv steer pairs formal.json -o formal.jsonl
pv steer extract formal.jsonl --as formal
pv steer sweep formal --data formal.jsonl --set
pv steer apply formal -p "How do I make tea?"
pv steer test formal formal.heldout.jsonl
"""

command = click.Group(
    "steer",
    commands=Below("pv.cli.commands.steering", SUBCOMMANDS),  # type: ignore[arg-type]  # which nobody writes to
    help=HELP,
    short_help="Steer activations: terms that change no weight.",
)
