"""`pv build --shards` and `--ray`: what they take, and what is said of one shard."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pv.cli.app import App
from pv.cli.render import counted, size
from pv.cli.report import report_plan
from pv.cli.say import echo
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.build import Build
    from pv.vecstore.repo.build_shards import ShardBuild
    from pv.vecstore.repo.revision import Revision

__all__ = ["build_share", "build_with_ray", "check_sharding"]


def check_sharding(share: tuple[int, int] | None, address: str | None, document: str | None) -> None:
    """Options that contradict each other. Raises UsageError."""
    if document is not None and (share is not None or address is not None):
        raise UsageError(
            "--shards and --ray build revisions, --from-mergekit merges folders on this machine",
            hint="leave out one of them",
        )
    if share is not None and address is not None:
        raise UsageError(
            "--shards and --ray are two ways to do the same",
            hint="leave out --shards: Ray is given every shard",
        )
    if share is not None and _given("shard_bytes"):
        raise UsageError(
            "--shards says how many weight files there are, --shard-size how large they may be",
            hint="leave out one of them",
        )


def build_share(
    app: App, revision: Revision, folder: Path, share: tuple[int, int], options: dict[str, Any], *, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write one shard and say so; a dry run says only what would be written."""
    chosen = {name: options[name] for name in ("dtype", "rounding", "bake")}
    if dry_run:
        report_plan(app, revision.plan_shard(folder, *share, **chosen), as_json=as_json)
        return
    with app.progress() as progress:
        made = revision.build_shard(
            folder, *share, **chosen, force=options["force"], threads=options["threads"], progress=progress
        )
    app.json(made) if as_json else _say(app, made)


def build_with_ray(revision: Revision, folder: Path, address: str, options: dict[str, Any]) -> Build:
    """On the cluster that is named, or RAY_ADDRESS, or one for this machine; one processor a shard unless told."""
    threads = options["threads"] if _given("threads") else 1
    where = address or os.environ.get("RAY_ADDRESS") or None
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):  # where Ray prints what it logs
        return revision.build_on_ray(folder, where, **{**options, "threads": threads})


def _given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _say(app: App, made: ShardBuild) -> None:
    count, shard = len(made.shards), made.shard
    if made.made is not None and made.made.already:
        app.done(f"already built: all {count} shards are in {made.output}")
    else:
        app.done(
            f"shard {made.number} of {count}: {counted(len(shard.tensors), 'tensor')}, {size(shard.nbytes)}"
        )
    if made.missing:
        app.note(
            f"  not written yet: {_numbers(made.missing)}; whoever writes the last one makes {made.output}"
        )
        if made.strangers:
            wait = "waits" if made.strangers == 1 else "wait"
            app.note(
                f"note: {counted(made.strangers, 'weight file')} of another build {wait} there too: all N must be of "
                f"one revision, one N and one --dtype; this one is of {made.commit[:12]}"
            )
    elif made.made is None:
        app.note(f"  that was the last one; another process makes {made.output}")
    elif not made.made.already:
        app.done(f"all {count} shards are written: {made.output} is built")
    for note in () if made.made is None else made.made.notes:
        app.note(f"note: {note}")
    if made.made is not None:
        echo(f"build    {made.made.built.build}")
        echo(f"weights  {made.made.built.weights}")
    echo(f"sha256   {made.sha256}  {shard.file}")


def _numbers(missing: tuple[int, ...]) -> str:
    """`1, 3, 7-9`"""
    runs: list[list[int]] = []
    for number in missing:
        if runs and runs[-1][-1] == number - 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
