"""pv steer status"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option
from pv.cli.render import table
from pv.cli.say import echo

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.status import Standing

__all__ = ["command"]

HEADER = ("term", "state", "effect (nats)", "random", "damage (text)", "next")


@click.command("status", short_help="Show where each steering term stands, and what it lacks.")
@click.argument("rev", default="HEAD", metavar="[REV]")
@json_option
@pass_app
def command(app: App, rev: str, as_json: bool) -> None:
    """Show where each steering term stands on its way into the weights: extracted, tested, verified, retired; with
    the evidence it has, and the command that comes next.

    \b
    pv steer status
    """
    found = app.repo().steer.status(rev)
    if as_json:
        app.json(found)
        return
    rows = [_row(one) for one in found.terms]
    echo(table(HEADER, rows) if rows else "no steering terms")


def _row(one: Standing) -> list[str]:
    known: dict[str, Any] = {key: value for part in one.evidence.values() for key, value in part.items()}
    effect, random = known.get("steered_effect") or known.get("effect"), known.get("random")
    text = (known.get("steered_damage") or known.get("damage") or {}).get("text")
    return [
        one.name,
        one.state,
        "-" if not effect else f"{effect['mean']:+.2f} [{effect['low']:+.2f}, {effect['high']:+.2f}]",
        "-" if not random else f"at most {max(random):+.2f}",
        "-" if not text else f"{text['mean']:+.4f}",
        one.next or "-",
    ]
