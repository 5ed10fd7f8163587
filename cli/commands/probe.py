"""pv probe"""

from __future__ import annotations

import click

from pv.cli.lazy import Below

__all__ = ["SUBCOMMANDS", "command"]

SUBCOMMANDS = ("heads", "neurons", "concept", "edit", "sparsity", "list")
HELP = """Find where a behaviour lives: in which heads, neurons, directions and weights.

A probe compares two builds of one base, A..B; a single name is compared with the base. Results are recorded in the
registry under an id: `pv show ID` shows one again, and `pv diff ID ID` compares two.

\b
pv probe heads pirate
pv probe neurons pirate --data pirate.heldout.jsonl
pv probe concept HEAD~1..HEAD --data pirate.heldout.jsonl
pv probe list
"""

command = click.Group(
    "probe",
    commands=Below("pv.cli.commands.probing", SUBCOMMANDS),  # type: ignore[arg-type]  # which nobody writes to
    help=HELP,
    short_help="Find where a behaviour lives: heads, neurons, weights.",
)
