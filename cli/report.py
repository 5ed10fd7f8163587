"""What a command says that made a commit, moved HEAD, or wrote a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pv.cli.app import App, short
from pv.cli.render import change_lines, persona_line, size
from pv.cli.say import echo
from pv.registry.changes import Change, changes
from pv.registry.errors import IntegrityError

if TYPE_CHECKING:
    from pv.vecstore.merge.folder import Written
    from pv.vecstore.repo.build import BuildPlan
    from pv.vecstore.repo.edit import Committed
    from pv.vecstore.repo.export import ExportPlan
    from pv.vecstore.repo.repo import Repo

__all__ = ["changes_between", "echo_sums", "report", "report_plan", "say_changes"]


def report(app: App, made: Committed, *, as_json: bool) -> None:
    """Say what a new commit did, and what the persona is now."""
    if as_json:
        app.json(made)
        return
    if made.changed:
        app.done(f"{short(made.commit)} {made.said}")
        say_changes(app, made.changes)
        app.note(f"  {persona_line(made.persona)}")
    else:  # no commit was made: nothing that looks like one
        app.note(made.said)
    for note in made.notes:
        app.note(f"note: {note}")


def say_changes(app: App, changes: Iterable[Change]) -> None:
    """What differs in the persona, a line each."""
    if not app.quiet:
        for line in change_lines(changes):
            echo(line, err=True)


def changes_between(repo: Repo, before: str | None, after: str) -> tuple[Change, ...]:
    """What differs between the personas of two commits."""
    if before is None:
        return ()
    with contextlib.suppress(IntegrityError):  # a damaged commit that was left: it is `pv fsck` that says so
        return changes(repo.at(before).persona, repo.at(after).persona)
    return ()


def report_plan(app: App, plan: BuildPlan | ExportPlan, *, as_json: bool) -> None:
    """Say which weight files would be written."""
    if as_json:
        app.json(plan)
    for shard in () if as_json else plan.shards:
        echo(f"would write {plan.output / shard.file}  {len(shard.tensors)} tensors  {size(shard.nbytes)}")


def echo_sums(made: Written) -> None:
    """What to compare weights by."""
    echo(f"weights  {made.weights}")
    for name, digest in made.files.items():
        echo(f"sha256   {digest}  {name}")
