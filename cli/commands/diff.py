"""pv diff"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option
from pv.cli.render import change_lines, table
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.vecstore.merge.diff import Change
    from pv.vecstore.repo.diff import Diff

__all__ = ["command"]


@click.command("diff", short_help="What moved between two revisions.")
@click.argument("a", default="HEAD~1")
@click.argument("b", default="HEAD")
@click.option("--recipe", is_flag=True, help="Only the recipes: read no weights.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if they differ.")
@json_option
@pass_app
def command(app: App, a: str, b: str, recipe: bool, exit_code: bool, as_json: bool) -> None:
    """Compare two revisions: their recipes, which layers and modules moved and how far, and how the
    behaviours of both lie to each other.

    Step is the norm of the difference in weights, relative is that over the norm of the base's weights.
    Cosine is 0 and sign agreement 50 % for unrelated behaviours.

    \b
    pv diff                    what the last commit did
    pv diff main terse
    pv diff v1 v2 --recipe
    """
    with app.progress() as progress:
        found = app.repo().diff(a, b, weights=not recipe, progress=progress)
    if as_json:
        app.json(found)
    else:
        lines = [*_recipe(found), *_weights(found)]
        app.page("\n".join(lines) if lines else "no difference")
    if exit_code and found:
        raise click.exceptions.Exit(ExitCode.NO)


def _recipe(found: Diff) -> list[str]:
    lines = change_lines(found.changes)
    if found.old.base != found.new.base:
        lines.append("the bases differ: weights cannot be compared")
    return lines


def _weights(found: Diff) -> list[str]:
    moved = found.weights
    if moved is None:
        return []
    if not moved:
        lines = ["", "no weight differs", ""]
    else:
        header = ["where", "step", "relative", "elements moved"]
        layers = [_row(change) for change in (*moved.by_layer(), moved.total)]
        modules = [_row(change) for change in moved.by_module()]
        lines = [
            "",
            table(header, layers, title="by layer"),
            "",
            table(header, modules, title="by module"),
            "",
        ]
    if found.pairs:
        pairs = [
            [f"{p.a} · {p.b}", f"{p.cosine:+.3f}", f"{100 * p.sign_agreement:.1f} %",
             f"{p.norm_a:.3f}", f"{p.norm_b:.3f}"]
            for p in found.pairs
        ]  # fmt: skip
        header = ["behaviours", "cosine", "same sign", "norm 1st", "norm 2nd"]
        lines.append(table(header, pairs, title="interference"))
    return lines


def _row(change: Change) -> list[str]:
    share = 100 * change.changed / change.elements if change.elements else 0
    return [change.where, f"{change.norm:.4f}", f"{100 * change.relative:.3f} %", f"{share:.1f} %"]
