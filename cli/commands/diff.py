"""pv diff"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pv.cli.against import say_against
from pv.cli.app import App, pass_app
from pv.cli.diffs import checkpoint_lines, diff_lines, stat_lines
from pv.cli.options import Whole, json_option, threads_option
from pv.cli.probes import probe_diff_lines
from pv.registry.errors import NotARegistry, UsageError
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.diff_against import Against
    from pv.vecstore.repo.diff_checkpoints import CheckpointDiff
    from pv.vecstore.repo.diff_sides import Sides
    from pv.vecstore.repo.probe.diff import ProbeDiff
    from pv.vecstore.repo.repo import Repo

__all__ = ["command"]

LISTED = 10
_ID = re.compile(r"[0-9a-f]{4,64}")


def _looks(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is shown of the weights."""
    for option in (
        click.option("--html", metavar="FILE", help="Write a page with a layer by module heat map, too."),
        click.option("--spectra", is_flag=True, help="The singular values of each matrix's change, too."),
        click.option("--heads", is_flag=True, help="List the attention heads that moved furthest, too."),
        click.option(
            "--top", type=Whole(1), metavar="N", help="List the N tensors that moved furthest, too."
        ),
        click.option("--stat", is_flag=True, help="Short: a bar for each layer."),
    ):
        command = option(command)
    return command


@click.command("diff", short_help="Show what differs between two revisions or checkpoints.")
@click.argument("a", default="HEAD~1")
@click.argument("b", required=False)
@click.option("--weights", is_flag=True, help="Compare the weights too: reads every vector of both.")
@click.option(
    "--recipe",
    is_flag=True,
    help="Only the recipes, even where the weights were compared and effects measured before.",
)
@_looks
@click.option(
    "--against", metavar="TERM[,TERM]", help="How far activations moved along these steering terms, instead."
)
@click.option("--texts", metavar="FILE", help="With --against, on these rows, not on pv's neutral set.")
@click.option("--exit-code", is_flag=True, help="Exit 1 if they differ; with --against, if they moved.")
@threads_option
@json_option
@pass_app
def command(app: App, /, a: str, b: str | None, exit_code: bool, as_json: bool, **options: Any) -> None:
    """Compare two revisions: their recipes, and with --weights how far each layer and module moved, and the
    cosine similarity of the behaviours of both. --stat, --top, --heads, --spectra and --html ask for the weights, too.

    Or compare two checkpoints, by their folders or addresses; no registry is needed for that. Against a revision, a
    checkpoint is compared with the base. What only one has, and what has another shape, is listed.

    With --against, both run over the same texts, and what moved is their mean activation: at every place where a term's
    vector has a direction, how far it moved along it (1: as far as the term at coefficient 1 takes it there), and
    whether that is more than chance. A checkpoint alone is compared with the base of HEAD.

    What was compared once is kept: the next time it is shown without --weights. So are effects and damage that were
    measured of both. Norms are L2; relative is the
    norm of the change over the norm of the base's weights (of a's, for checkpoints); changed is the share of the
    elements that differ in fp32; of revisions, before a build rounds them: in bf16 builds fewer do. Unrelated
    behaviours have cosine 0, and the same sign in 50 % of the weights that both change.

    \b
    pv diff                    what the last commit did
    pv diff main terse
    pv diff v1 v2 --weights
    pv diff ./base ./tuned --top 20 --html diff.html
    pv diff ./incoming --against formal,terse
    pv diff 5f2d 81ce          two probes of one kind: ids as pv probe list has them
    """
    from pv.vecstore.repo.diff_sides import sides

    against = options.pop("against")
    repo = cache(app.repo)
    if b is not None and against is None and (probes := _probes(repo, a, b)) is not None:
        _say_probes(app, probes, options, as_json)
        if exit_code and probes:
            raise click.exceptions.Exit(ExitCode.NO)
        return
    two = sides(a, b, repo=repo, seen_from=app.path, incoming=against is not None)
    _check(options, two, against)
    for note in two.notes:
        app.note(f"note: {note}")
    if against is None:
        found: object = _whole(app, two, (a, b or "HEAD"), options, as_json)
    else:
        found = _against(app, repo(), two, against, options, as_json)
    if exit_code and found:
        raise click.exceptions.Exit(ExitCode.NO)


def _probes(repo: Callable[[], Repo], a: str, b: str) -> ProbeDiff | None:
    """Two ids of probes; None for what could be anything else."""
    if not (_ID.fullmatch(a) or _ID.fullmatch(b)):
        return None
    from pv.vecstore.repo.probe.diff import diff_probes, two_probes

    try:
        found = two_probes(repo(), a, b)
    except NotARegistry:
        return None
    return None if found is None else diff_probes(*found)


def _say_probes(app: App, found: ProbeDiff, options: dict[str, Any], as_json: bool) -> None:
    if asked := _asks_for_weights(options):
        raise UsageError(f"--{asked[0]} compares weights, and these are probes", hint="leave it out")
    if as_json:
        app.json(found)
    else:
        app.page("\n".join(probe_diff_lines(found)))


def _whole(
    app: App, two: Sides, names: tuple[str, str], options: dict[str, Any], as_json: bool
) -> Diff | CheckpointDiff:
    page = None if options["html"] is None else app.file(options["html"])
    if page is not None:
        from pv.vecstore.repo.diff_page import check_page, write_page  # which most diffs do without

        check_page(page)
    found = _found(app, two, options)
    if page is not None:
        write_page(found, page, names=names, top=options["top"] or LISTED)
    _say(app, found, options, as_json)
    if page is not None:
        app.done(f"the page is {page}")
    return found


def _check(options: dict[str, Any], two: Sides, against: str | None) -> None:
    if against is None and options["texts"] is not None:
        raise UsageError("--texts goes with --against", hint="the weights alone need no texts")
    if against is not None and (asked := [*_asks_for_weights(options), *["recipe"] * options["recipe"]]):
        raise UsageError(f"--against compares activations, --{asked[0]} does not", hint="give one of them")
    if not options["recipe"]:
        return
    if asked := _asks_for_weights(options):
        raise UsageError(
            f"--recipe leaves the weights out, --{asked[0]} asks for them", hint="give one of them"
        )
    if isinstance(two.a, Path | str) or isinstance(two.b, Path | str):
        raise UsageError("a checkpoint has no recipe", hint="leave --recipe out")


def _asks_for_weights(options: dict[str, Any]) -> list[str]:
    return [name for name in ("weights", "stat", "top", "heads", "spectra", "html") if options[name]]


def _found(app: App, two: Sides, options: dict[str, Any]) -> Diff | CheckpointDiff:
    with app.progress() as progress:
        settings = {name: options[name] for name in ("heads", "spectra", "threads")}
        if isinstance(two.a, Path | str) or isinstance(two.b, Path | str):
            from pv.vecstore.repo.diff_checkpoints import diff_checkpoints

            return diff_checkpoints(two.a, two.b, progress=progress, **settings)
        weights = bool(_asks_for_weights(options))
        found = two.a.diff(two.b, weights=weights, progress=progress, **settings)
    return replace(found, weights=None, pairs=(), effects=((), ())) if options["recipe"] else found


def _against(app: App, repo: Repo, two: Sides, terms: str, options: dict[str, Any], as_json: bool) -> Against:
    texts = None if options["texts"] is None else app.rows(options["texts"], repo)
    with app.progress() as progress:
        found = repo.diff_against(
            two.a, two.b, *terms.split(","), texts=texts, threads=options["threads"], progress=progress
        )
    say_against(app, found, as_json=as_json)
    return found


def _say(app: App, found: Diff | CheckpointDiff, options: dict[str, Any], as_json: bool) -> None:
    from pv.vecstore.repo.diff import Diff

    top = options["top"]
    if as_json:
        app.json(found.to_json(top=top) if isinstance(found, Diff) else found.to_json(top=top or LISTED))
        return
    if options["stat"]:
        lines = stat_lines(found)
    elif isinstance(found, Diff):
        lines = diff_lines(found, top=top)
    else:
        lines = checkpoint_lines(found, top=top or LISTED)
    app.page("\n".join(lines) if lines else "no difference")
    if isinstance(found, Diff):
        hidden = found.weights is None and found.old.base == found.new.base and not options["recipe"]
        if found and hidden:
            app.note("  weights were not compared; add --weights")
        return
    for note in found.notes:
        app.note(f"note: {note}")
