"""`pv export --lora`: its options, what is meant by its argument, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App
from pv.cli.options import Whole
from pv.cli.render import counted, size
from pv.cli.report import echo_sums
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.export_lora import LoraExport

__all__ = ["lora_options"]


def lora_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--lora` and `--rank`: with them an adapter is written, and `command` is not called."""

    @wraps(command)
    def either(app: App, *, lora: bool, rank: int | None, **given: Any) -> Any:
        if lora or rank is not None:
            return _export(app, lora=lora, rank=rank, **given)
        return command(app, **given)

    rank_option = click.option(
        "--rank",
        type=Whole(1, 65536),
        metavar="R",
        help="With --lora: an adapter of rank R at most; says what is lost.",
    )
    lora_option = click.option(
        "--lora", is_flag=True, help="Write one PEFT adapter, of NAME or of the persona."
    )
    return lora_option(rank_option(either))


def _export(
    app: App,
    what: str | None,
    output: str | None,
    rank: int | None,
    *,
    lora: bool,
    force: bool,
    dry_run: bool,
    threads: int,
    as_json: bool,
    mergekit: bool,
    **_: Any,
) -> None:
    if mergekit:
        raise UsageError("--mergekit writes a recipe, --lora an adapter", hint="leave one of them out")
    if output is None:
        raise UsageError(
            "no folder to export to: -o DIR is missing", hint=f"pv export --lora {what or ''} -o DIR"
        )
    if not lora:
        raise UsageError(
            "--rank is the rank of an adapter", hint=f"pv export --lora --rank {rank} {what} -o {output}"
        )
    if dry_run:
        raise UsageError("--lora has no --dry-run", hint="leave -n out; -o names a new folder")
    from pv.vecstore.repo.names import behaviour_named

    repo = app.repo()
    found = behaviour_named(repo, what) if what else None
    revision, name = found or (what or "HEAD", None)
    with app.progress() as progress:
        made = repo.at(revision).export_lora(
            app.file(output), behaviour=name, rank=rank, force=force, threads=threads, progress=progress
        )
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: LoraExport) -> None:
    what = f"the persona of {made.commit[:12]}" if made.name is None else f"{made.name}, at weight 1,"
    ranks = sorted(set(made.made.ranks.values()))
    of = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    how = "exact" if made.exact else "the best of that rank"
    modules = counted(len(made.made.ranks), "module")
    app.done(
        f"exported {what} into {made.output} as an adapter of {of}: {how} "
        f"({size(made.made.written.nbytes)}, {modules})"
    )
    if (worst := made.worst) is not None:
        app.note(
            f"  cut off: {100 * made.made.residual:.2f} % of the norm of all it adds; "
            f"at most {100 * worst.relative:.2f} %, in {worst.module}"
        )
    if left := made.made.left_out:
        app.note(f"  left out, and counted as cut off: {counted(len(left), 'tensor')} that are no matrices, such as "
                 f"{left[0].module}")  # fmt: skip
    for note in made.notes:
        app.note(f"note: {note}")
    echo_sums(made.made.written)
