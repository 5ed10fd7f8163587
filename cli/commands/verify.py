"""pv verify"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import dtype_option, json_option, rounding_option, threads_option
from pv.cli.render import counted
from pv.cli.say import echo, plain
from pv.registry.errors import UsageError
from pv.registry.exit_codes import ExitCode
from pv.registry.words import revision_words

if TYPE_CHECKING:
    from pathlib import Path

    from pv.vecstore.repo.exported import Exported
    from pv.vecstore.repo.known_builds import KnownBuild
    from pv.vecstore.repo.verify import Verdict

__all__ = ["command"]

SHOWN = 10


@click.command("verify", short_help="Check whether a checkpoint is a revision's build.")
@click.argument("checkpoint", metavar="DIR")
@click.argument("rev", required=False)
@click.option("--weights-only", is_flag=True, help="Compare the weights only, no other files.")
@click.option("--recompute", is_flag=True, help="Compute the build, whatever is recorded of it.")
@dtype_option("The value that was given to `pv build`.")
@rounding_option("The value that was given to `pv build`.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    checkpoint: str,
    rev: str | None,
    weights_only: bool,
    recompute: bool,
    dtype: str | None,
    rounding: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Check that DIR holds, bit for bit, the build of REV. Exit code 1 if not.

    Without REV, find the revision that it is the build of. Exit code 1 if there is none.

    Weights are compared tensor by tensor, however they are split into files. Every other file must be as `pv build`
    writes it: none changed, missing or added, except a model card, licences, pictures and git's own files. If the build
    was made here, what was recorded then is compared; otherwise every tensor is computed again. Nothing is written.
    A folder that `pv export` wrote is compared with that export, one of `pv build --from-mergekit` with its own record.

    \b
    pv verify ./persona
    pv verify ./downloaded v1
    """
    folder = app.file(checkpoint)
    if rev is None and _is_merge(folder):
        _merge(app, folder, weights_only, recompute, (dtype, rounding), threads, as_json)
        return
    with app.progress() as progress:
        verdict = app.repo().verify(
            folder, rev, weights_only=weights_only, recompute=recompute, dtype=dtype,
            rounding=rounding, threads=threads, progress=progress,
        )  # fmt: skip
    if as_json:
        app.json(verdict)
    elif verdict.same:
        _yes(app, verdict)
    else:
        _no(app, verdict, sought=rev is None)
    if not verdict.same:
        raise click.exceptions.Exit(ExitCode.NO)


def _is_merge(folder: Path) -> bool:
    from pv.vecstore.repo.verify_merge import merge_record

    return merge_record(folder) is not None


def _merge(
    app: App, folder: Path, weights_only: bool, recompute: bool, options: tuple[str | None, ...], threads: int,
    as_json: bool,
) -> None:  # fmt: skip
    """A merge of folders needs no registry: it has a record of itself."""
    from pv.cli.merge_verdict import say_merge
    from pv.vecstore.repo.verify_merge import verify_merge

    if any(options):
        raise UsageError(
            f"{folder} is a merge of folders, whose pv-merge.json has dtype and rounding",
            hint="leave --dtype and --rounding out",
        )
    with app.progress() as progress:
        verdict = verify_merge(
            folder, seen_from=app.path, weights_only=weights_only, recompute=recompute, threads=threads,
            progress=progress,
        )  # fmt: skip
    app.json(verdict) if as_json else say_merge(app, verdict)
    if not verdict.same:
        raise click.exceptions.Exit(ExitCode.NO)


def _yes(app: App, verdict: Verdict) -> None:
    what = "weights" if verdict.files is None else "weights and files"
    if verdict.base:
        app.done(f"these are the base's {what}: {verdict.base}")
        app.note(
            f"  and the build of {_listed(verdict.known) or _name(verdict)}: no behaviour has a weight there"
        )
    elif verdict.export and not verdict.known:
        app.done(
            f"{_export(verdict.export)} of {_name(verdict)}, {what}, bit for bit: {counted(verdict.tensors, 'tensor')}"
        )
    else:
        own = next((_options(one) for one in verdict.known if one.commit == verdict.commit), "")
        how = "as recorded" if verdict.recorded else "computed again"
        tensors = counted(verdict.tensors, "tensor")
        app.done(f"the build of {_name(verdict)}{own}, {what}: {tensors}, {how}")
        others = [one for one in verdict.known if one.commit != verdict.commit]
        if others:
            app.note(f"  and of {_listed(others)}")
        if verdict.export:
            app.note(f"  and {_export(verdict.export)}")
    echo(f"weights  {verdict.found}")


def _no(app: App, verdict: Verdict, *, sought: bool) -> None:
    tensors, files = len(verdict.differing), len(verdict.files or ())
    differ = f"{tensors} of {verdict.tensors} tensors" if tensors else "the weights are the same,"
    differ += f"{' and' if tensors else ''} {counted(files, 'file')}" if files else ""
    known = bool(verdict.known or verdict.base)
    verb = "differs" if tensors + files == 1 else "differ"
    start = "not the build of" if known or not sought else "not a known build; compared with"
    owner = f"{_export(verdict.export)} of " if verdict.export and not verdict.known else ""
    start = "not" if owner else start
    echo(f"{start} {owner}{_name(verdict)}: {differ} {verb}")
    if verdict.base and not verdict.weights_same:
        echo(f"  these are the base's weights: {verdict.base}")
    elif verdict.known and not verdict.weights_same:
        echo(f"  the weights are those of {_listed(verdict.known)}")
    elif verdict.dtype:
        echo(f"  all of them are {verdict.dtype}: was it built with --dtype {verdict.dtype}?")
    for file in verdict.files or ():
        echo(f"  {plain(file.name)} {plain(file.what)}")
    shown = verdict.differing if app.verbose else verdict.differing[:SHOWN]
    for tensor in shown:
        echo(f"  {tensor.name} {tensor.what}")
    if tensors > len(shown):
        echo(f"  and {counted(tensors - len(shown), 'more tensor')} (pv -v verify lists all)")
    echo(f"weights  {verdict.found}")


def _export(export: Exported) -> str:
    """`the export of house (vector 89724fc56220, the captured checkpoint)`"""
    vectors = f"vector{'' if len(export.vectors) == 1 else 's'} {', '.join(map(short, export.vectors))}"
    how = "the captured checkpoint" if export.captured else "built alone at weight 1"
    return f"the export of {plain(' and '.join(export.behaviours))} ({vectors}, {how})"


def _listed(builds: Sequence[KnownBuild]) -> str:
    more = f" and {len(builds) - 4} more" if len(builds) > 4 else ""
    return ", ".join(f"{_name(one)}{_options(one)}" for one in builds[:4]) + more


def _name(at: Verdict | KnownBuild) -> str:
    return plain(revision_words(at.revision, at.commit))


def _options(build: KnownBuild) -> str:
    return "".join(f" --{option} {value}" for option, value in build.options.items())
