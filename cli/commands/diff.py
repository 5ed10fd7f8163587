"""pv diff"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, threads_option
from pv.cli.render import change_lines, table
from pv.registry.errors import UsageError
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.vecstore.merge.diff import Movement
    from pv.vecstore.merge.interference import Pair
    from pv.vecstore.repo.diff import Diff

__all__ = ["command"]

ALIKE = 0.1  # cosines that are worth a line of their own
MOST = 5


@click.command("diff", short_help="Show what differs between two revisions.")
@click.argument("a", default="HEAD~1")
@click.argument("b", default="HEAD")
@click.option("--weights", is_flag=True, help="Compare the weights too: reads every vector of both.")
@click.option("--recipe", is_flag=True, help="Only the recipes, even where the weights were compared before.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if they differ.")
@threads_option
@json_option
@pass_app
def command(
    app: App, a: str, b: str, weights: bool, recipe: bool, exit_code: bool, threads: int, as_json: bool
) -> None:
    """Compare two revisions: their recipes, and with --weights how far each layer and module moved, and the
    cosine similarity of the behaviours of both.

    What was compared once is kept: the next time it is shown without --weights. Norms are L2; relative is the
    norm of the change over the norm of the base's weights; changed is the share of the elements that differ in
    fp32, before a build rounds them: in bf16 builds fewer do. Unrelated behaviours have cosine 0, and the same
    sign in 50 % of the weights that both change.

    \b
    pv diff                    what the last commit did
    pv diff main terse
    pv diff v1 v2 --weights
    """
    if weights and recipe:
        raise UsageError("--recipe leaves the weights out, --weights asks for them", hint="give one of them")
    with app.progress() as progress:
        found = app.repo().diff(a, b, weights=weights, threads=threads, progress=progress)
    if recipe:
        found = replace(found, weights=None, pairs=())
    if as_json:
        app.json(found)
    else:
        lines = [*_recipe(found), *_weights(found)]
        app.page("\n".join(lines) if lines else "no difference")
        if found and found.weights is None and found.old.base == found.new.base and not recipe:
            app.note("  weights were not compared; add --weights")
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
        return ["", "no weight differs", *_matrix(found.pairs)]
    header = ["where", "norm of change", "relative", "changed, before rounding"]
    layers = [_row(change) for change in (*moved.by_layer(), moved.total)]
    modules = [_row(change) for change in moved.by_module()]
    by_layer, by_module = table(header, layers, title="by layer"), table(header, modules, title="by module")
    return ["", by_layer, "", by_module, *_matrix(found.pairs)]


def _matrix(pairs: Sequence[Pair]) -> list[str]:
    """The cosine of every two behaviours, and what the most alike of them do to each other."""
    if not pairs:
        return []
    names = sorted({name for pair in pairs for name in (pair.a, pair.b)})
    norms = {name: norm for pair in pairs for name, norm in ((pair.a, pair.norm_a), (pair.b, pair.norm_b))}
    cosines = {frozenset((pair.a, pair.b)): pair.cosine for pair in pairs}
    rows = []
    for at, name in enumerate(names):
        below = [f"{cosines[frozenset((name, other))]:+.3f}" for other in names[:at]]
        rows.append([str(at + 1), name, f"{norms[name]:.3f}", *below, *[""] * (len(names) - 1 - at)])
    header = ["", "behaviour", "norm", *map(str, range(1, len(names)))]
    lines = ["", table(header, rows, title="cosine similarity of behaviours, each at its weight")]
    alike = sorted((p for p in pairs if abs(p.cosine) >= ALIKE), key=lambda p: -abs(p.cosine))[:MOST]
    lines += [
        f"{p.a} and {p.b}: cosine {p.cosine:+.3f}, same sign in {100 * p.sign_agreement:.1f} % of the weights "
        "that both change" for p in alike
    ]  # fmt: skip
    return lines


def _row(change: Movement) -> list[str]:
    share = 100 * change.changed / change.elements if change.elements else 0
    return [change.where, f"{change.norm:.4f}", f"{100 * change.relative:.3f} %", f"{share:.1f} %"]
