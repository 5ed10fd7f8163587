"""`pv build --from-mergekit`: what it is given, and its result on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pv.cli.app import App
from pv.cli.render import counted, number, size, table
from pv.cli.report import echo_sums
from pv.cli.say import echo
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.from_mergekit import FolderMerge, FolderMergePlan

__all__ = ["folder_merge"]


def folder_merge(
    app: App, document: str, rev: str, output: str, *, hashed: bool, dry_run: bool, as_json: bool, force: bool,
    threads: int, **written: Any,
) -> None:  # fmt: skip
    """Merge what the document names, or say what that would be. Paths in it are seen from -C."""
    from pv.vecstore.repo.from_mergekit import build_from_mergekit, plan_from_mergekit

    if click.get_current_context().get_parameter_source("rev") is not ParameterSource.DEFAULT:
        raise UsageError(
            f"--from-mergekit builds what the file says, not {rev}", hint="leave one of the two out"
        )
    file, folder = app.file(document), app.file(output)
    written["seen_from"] = app.path
    with app.progress() as progress:
        if dry_run:
            plan = plan_from_mergekit(file, folder, **written, progress=progress)
        else:
            made = build_from_mergekit(
                file, folder, **written, hash_inputs=hashed, force=force, threads=threads, progress=progress
            )
    if as_json:
        app.json(plan if dry_run else made)
    elif dry_run:
        _say_plan(app, plan)
    else:
        _say(app, made)


def _say_plan(app: App, plan: FolderMergePlan) -> None:
    _notes(app, plan.notes)
    rows = [
        (model.name, _weights(model.weights, i == 0), size(model.nbytes))
        for i, model in enumerate(plan.models)
    ]
    echo(table(("model", "weight", "size"), rows, title=f"{plan.method}, {_written(plan)}"))
    echo(f"reads {size(plan.bytes_read)}, writes {size(sum(shard.nbytes for shard in plan.shards))}")
    for shard in plan.shards:
        echo(f"{plan.output / shard.file}  {counted(len(shard.tensors), 'tensor')}  {size(shard.nbytes)}")


def _say(app: App, made: FolderMerge) -> None:
    _notes(app, made.notes)
    written = made.written
    kept = f", {written.resumed} kept from the interrupted build" if written.resumed else ""
    app.done(
        f"merged {counted(len(made.models), 'model')} by {made.method} into {made.output} "
        f"({size(written.nbytes)}, {written.touched} of {written.tensors} tensors touched{kept}, {_written(made)})"
    )
    echo_sums(written)


def _notes(app: App, notes: tuple[str, ...]) -> None:
    for note in notes:
        app.note(f"note: {note}")


def _weights(weights: tuple[float, float] | None, base: bool) -> str:
    if weights is None:
        return "base" if base else "-"
    low, high = weights
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _written(merge: FolderMergePlan | FolderMerge) -> str:
    dtype = "each tensor in the base's dtype" if merge.written_as.dtype == "base" else merge.written_as.dtype
    return f"{dtype}, rounded {'to nearest' if merge.written_as.rounding == 'nearest' else 'stochastically'}"
