"""pv merge"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, json_option, pass_app
from pv.cli.changes import parse_takes, report, take_option
from pv.registry.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from pv.registry.history.threeway import Conflict

__all__ = ["command"]


@click.command("merge", short_help="Join another branch's changes into this one.")
@click.argument("branch")
@take_option
@click.option(
    "--method", type=click.Choice(["add", "ties"]), help="Combine behaviours by this rule from now on."
)
@click.option("--density", type=click.FloatRange(0, 1, min_open=True), help="ties: share of elements kept.")
@click.option("--elect", type=click.Choice(["weighted", "unweighted"]), help="ties: who votes on the sign.")
@click.option(
    "--merge",
    "merge_rule",
    type=click.Choice(["mean", "weighted_mean", "sum"]),
    help="ties: how those agreeing join.",
)
@click.option("--lambda", "lambda_", type=float, help="ties: factor on the result.")
@click.option("-m", "--message", help="The commit's message.")
@json_option
@pass_app
def command(
    app: App,
    branch: str,
    takes: tuple[str, ...],
    method: str | None,
    density: float | None,
    elect: str | None,
    merge_rule: str | None,
    lambda_: float | None,
    message: str | None,
    as_json: bool,
) -> None:
    """Bring what happened on another branch since it parted from this one.

    A three-way merge, behaviour by behaviour. What both sides changed differently is a conflict: nothing
    is merged, both sides are listed, the exit code is 1, and --take settles it without a prompt.

    \b
    pv merge terse
    pv merge terse --take concise=theirs
    pv merge terse --take concise=0.5
    pv merge terse --method ties --density 0.3
    """
    from pv.registry.persona import Combine

    options: dict[str, Any] = {"density": density, "elect": elect, "merge": merge_rule, "lambda": lambda_}
    options = {key: value for key, value in options.items() if value is not None}
    if options and method is None:
        raise UsageError(f"--{min(options)} needs --method ties")
    combine = Combine.of(method, **options) if method else None
    registry = app.registry()
    outcome = registry.merge(branch, parse_takes(takes), combine=combine, message=message)
    if outcome.conflicts:
        raise ConflictError(
            f"both sides changed {', '.join(c.name for c in outcome.conflicts)}; nothing was merged",
            conflicts=outcome.conflicts,
            hint=f"settle each: pv merge {branch} {' '.join(map(_choice, outcome.conflicts))}",
        )
    commit = outcome.commit or registry.resolve("HEAD")
    said = "already up to date" if outcome.kind == "up-to-date" else f"{outcome.kind} of {branch}"
    report(app, registry, commit, said, as_json=as_json, kind=outcome.kind)


def _choice(conflict: Conflict) -> str:
    sides = "ours|theirs|WEIGHT" if conflict.kind == "behaviour" else "ours|theirs"
    return f"--take {conflict.name}={sides}"
