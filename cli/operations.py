"""Operations as text: what was done, by whom, and what moved from where to where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pv.cli.app import App, short
from pv.cli.render import persona_line
from pv.cli.report import changes_between, say_changes
from pv.cli.say import plain
from pv.registry.git.refs import HEADS
from pv.registry.words import ref_name

if TYPE_CHECKING:
    from pv.registry.git.objects import RefChange
    from pv.registry.history.operations import Operation
    from pv.registry.history.undo import WentBack
    from pv.vecstore.repo.repo import Repo

__all__ = ["move_lines", "operation_line", "report_way"]


def operation_line(operation: Operation) -> str:
    when = f"{operation.time.astimezone():%Y-%m-%d %H:%M}"
    return f"{operation.seq:>4}  {when}  {plain(operation.author)}  {plain(operation.command)}"


def move_lines(refs: Iterable[RefChange], head: tuple[str, str]) -> Iterator[str]:
    """Each ref that moved, from where to where; HEAD, if it went to another branch."""
    for change in refs:
        old, new = (short(value) if value else None for value in (change.old, change.new))
        name = plain(ref_name(change.ref))
        if new is None:
            yield f"{name} deleted (was at {old})"
        else:
            yield f"{name} {old} -> {new}" if old else f"{name} created at {new}"
    before, after = (plain(ref_name(ref)) for ref in head)
    if before != after:
        yield f"HEAD {before} -> {after}"


def _moved(went: WentBack) -> tuple[str | None, str]:
    """The commits of the branch that HEAD is on then: to be on another branch again changes no persona."""
    after = went.commits[1]
    if went.head[0] == went.head[1]:
        return went.commits
    return next(((one.old, after) for one in went.refs if one.ref == went.head[1]), (after, after))


def report_way(app: App, repo: Repo, went: WentBack, word: str, *, as_json: bool, dry_run: bool) -> None:
    """Say what undo or redo took back, what moved, and where things are now; as JSON the same.

    Of what it did itself, whatever others do by now.
    """
    branch = went.head[0 if dry_run else 1].removeprefix(HEADS)
    commit = went.commits[0 if dry_run else 1]
    if as_json:
        where = {"branch": branch, "commit": commit}
        listed = [change.to_json() for change in changes_between(repo, *went.commits)]
        app.json({word: went.command, **went.to_json(), "dry_run": dry_run, **where, "changes": listed})
        return
    said = [(one, "took back") for one in went.taken_back] + [
        (one, "brought back") for one in went.brought_back
    ]
    for operation, done in said:
        what = {"took back": "would take back", "brought back": "would bring back"}[done] if dry_run else done
        when = f"{operation.time.astimezone():%Y-%m-%d %H:%M}"
        line = f"{what}: {operation.command} (operation {operation.seq}, {operation.author}, {when})"
        app.note(line) if dry_run else app.done(line)
    if not said:
        app.note(f"nothing to do: everything is as it was after operation {went.to}")
    for line in move_lines(went.refs, went.head):
        app.note(f"  {line}")
    say_changes(app, changes_between(repo, *_moved(went)))
    now = " now, and nothing was changed" if dry_run else ""
    app.note(f"on branch {branch} at {short(commit)}{now}")
    if commit is not None:
        app.note(f"  {persona_line(repo.at(commit).persona)}")
