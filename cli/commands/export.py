"""pv export"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.lora import lora_options
from pv.cli.options import json_option, shard_option, threads_option
from pv.cli.render import size
from pv.cli.report import echo_sums, report_plan
from pv.cli.say import echo
from pv.cli.typed import typed
from pv.registry.errors import PvError, UnknownBehaviour, UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.export import Export
    from pv.vecstore.repo.revision import Revision

__all__ = ["command"]


@click.command("export", short_help="Write the checkpoint that was committed as a behaviour.")
@click.argument("what", metavar="[REV:]NAME", required=False)
@click.option(
    "-o", "--output", metavar="DIR", help="The folder to write to; with --mergekit a file, by default stdout."
)
@click.option(
    "--mergekit",
    is_flag=True,
    help="Write the persona of a revision (by default HEAD) as YAML that mergekit runs.",
)
@shard_option
@click.option("--force", is_flag=True, help="Replace a folder that pv built or exported.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written.")
@threads_option
@json_option
@pass_app
@lora_options
def command(
    app: App,
    what: str | None,
    output: str | None,
    mergekit: bool,
    shard_bytes: int,
    force: bool,
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Write a behaviour's checkpoint as it was committed, whatever the persona does with it.

    A captured checkpoint comes back bit for bit, in the dtypes it had, also one committed with --on; config and
    tokenizer are the base's. A behaviour that is not one captured checkpoint (trained, an adapter, compressed)
    is built alone at weight 1, as the persona's builds are written. The ✓ line, and `captured` in the JSON, say
    which of the two it was. With --mergekit, the recipe is written instead; its comments say what else mergekit needs.

    With --lora, a persona (HEAD, or the one of a revision) or a behaviour that is made of adapters goes out as one
    PEFT adapter: exact, their factors side by side. --rank R cuts it down to the best of rank R, of any encoding
    and merge method, and says how much that loses.

    \b
    pv export house-style -o ./house-style
    pv export v1:house-style -o ./old
    pv export --mergekit v1 -o merge.yml
    pv export --lora -o ./adapter
    pv export --lora v1:house-style --rank 16 -o ./small
    """
    if mergekit:
        _mergekit(app, what or "HEAD", output, force=force or dry_run, dry_run=dry_run, as_json=as_json)
        return
    rev, name = _read(what, output)
    folder, revision = app.file(output or ""), _revision(app, rev, name, output or "DIR")
    if dry_run:
        plan = revision.plan_export(name, folder, shard_bytes=shard_bytes, force=force)
        report_plan(app, plan, as_json=as_json)
        return
    with app.progress() as progress:
        made = revision.export(
            name, folder, shard_bytes=shard_bytes, force=force, threads=threads, progress=progress
        )
    if not made.recorded:
        app.note("  the registry cannot be written to: the build's ids are not recorded there")
    app.json(made) if as_json else _say(app, made)


def _read(what: str | None, output: str | None) -> tuple[str, str]:
    """The revision and the behaviour's name. Raises UsageError."""
    rev, colon, name = (what or "").rpartition(":")
    if not name or (colon and not rev):
        said = "no behaviour is named" if what is None else f"{what!r} is not [REV:]NAME"
        raise UsageError(said, hint="for example: pv export v1:concise -o ./concise")
    if output is None:
        raise UsageError("no folder to export to: -o DIR is missing", hint=f"pv export {what} -o DIR")
    return rev or "HEAD", name


def _revision(app: App, rev: str, name: str, output: str) -> Revision:
    """Raises UnknownBehaviour where a revision was named for a behaviour of it."""
    revision = app.repo().at(rev)
    if rev != "HEAD" or name in revision.persona.behaviours:
        return revision
    try:
        first = min(app.repo().at(name).persona.behaviours, default="NAME")
    except PvError:  # then the verb says what is wrong
        return revision
    one, whole = typed(["export", f"{name}:{first}", "-o", output]), typed(["build", name, "-o", output])
    raise UnknownBehaviour(
        f"{name!r} is a revision, not a behaviour",
        hint=f"`{one}` writes a behaviour of it, `{whole}` its persona",
    )


def _mergekit(app: App, rev: str, output: str | None, *, force: bool, dry_run: bool, as_json: bool) -> None:
    file = app.file(output) if output not in (None, "-") and not dry_run else None
    made = app.repo().at(rev).export_mergekit(file, force=force)
    if as_json:
        app.json(made)
    elif made.output is None:
        echo(made.text, nl=False)
    else:
        app.done(f"wrote {made.output}: its comments say which behaviours to export before mergekit runs it")
    for note in () if as_json else made.notes:
        app.note(f"note: {note}")


def _say(app: App, made: Export) -> None:
    written = made.written
    figures = f"({size(written.nbytes)}, {written.touched} of {written.tensors} tensors differ from the base)"
    if made.captured:
        app.done(f"exported {made.name} into {made.output}: the captured checkpoint, bit for bit {figures}")
    else:
        what = made.encodings[0] if len(made.encodings) == 1 else f"{len(made.encodings)} vectors"
        app.done(
            f"exported {made.name} into {made.output}: not one captured checkpoint ({what}), "
            f"so built alone at weight 1 {figures}"
        )
    for note in made.notes:
        app.note(f"note: {note}")
    if made.build is not None:
        echo(f"build    {made.build}")
    echo_sums(written)
