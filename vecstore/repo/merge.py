"""merge, revert, cherry-pick: three-way, behaviour by behaviour; a conflict changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pv.registry.combine import Combine
from pv.registry.conflict import Conflict
from pv.registry.errors import ConflictError
from pv.registry.history.threeway import Take
from pv.vecstore.repo.edit import Committed
from pv.vecstore.repo.refused import refused
from pv.vecstore.repo.twice import counted_twice

if TYPE_CHECKING:
    from pv.registry.history.merge import MergeOutcome, PlannedMerge
    from pv.vecstore.repo.repo import Repo

__all__ = ["cherry_pick", "choices", "merge", "merge_notes", "revert"]


def merge(
    repo: Repo,
    revision: str,
    *,
    take: Mapping[str, Take] | None = None,
    rule: Combine | None = None,
    message: str | None = None,
) -> Committed:
    """Bring another branch's changes into the current one. Raises ConflictError, which lists both sides."""
    command = repo.command(f"merge {revision}")
    outcome = repo.registry.merge(revision, take, combine=rule, message=message, command=command)
    if outcome.conflicts:
        raise ConflictError(
            f"both sides changed {', '.join(c.take for c in outcome.conflicts)}; nothing was merged",
            conflicts=outcome.conflicts,
            hint=choices(outcome.conflicts, take or {}),
        )
    commit = outcome.commit or outcome.before
    said = "already up to date" if outcome.kind == "up-to-date" else f"{outcome.kind} of {revision}"
    now, before = repo.registry.persona(commit), repo.registry.persona(outcome.before)
    return Committed(
        commit,
        said,
        now,
        before,
        {"kind": outcome.kind},
        changed=commit != outcome.before,
        notes=(*merge_notes(outcome, revision, message), *counted_twice(before, now), *refused(before, now)),
    )


def merge_notes(outcome: MergeOutcome | PlannedMerge, revision: str, message: str | None = None) -> list[str]:
    """What is worth a remark about a merge."""
    notes = []
    if message is not None and outcome.kind != "merge":
        notes.append("no commit was made, so the message is not used")
    if outcome.reverted is not None:
        merged, revert = outcome.reverted.merge[:12], outcome.reverted.revert[:12]
        what = revision if outcome.kind == "up-to-date" else f"an earlier part of {revision}"
        notes.append(
            f"{what} was merged in {merged} and reverted in {revert}; `pv revert {revert}` brings it back"
        )
    return notes


def revert(
    repo: Repo,
    revision: str,
    *,
    mainline: int | None = None,
    take: Mapping[str, Take] | None = None,
    message: str | None = None,
) -> Committed:
    """Take back what one commit did, in a new commit. Raises ConflictError, UsageError."""
    target = repo.registry.resolve(revision)
    command = repo.command(f"revert {revision}")
    try:
        commit = repo.registry.revert(target, mainline, take=take, message=message, command=command)
    except ConflictError as error:
        raise _with_hint(error, take or {}) from error
    return _made(repo, commit, f"reverts {target[:12]}", {"reverted": target})


def cherry_pick(
    repo: Repo,
    revision: str,
    *,
    mainline: int | None = None,
    take: Mapping[str, Take] | None = None,
    message: str | None = None,
) -> Committed:
    """Apply the change of another commit to this branch. Raises ConflictError, UsageError."""
    target = repo.registry.resolve(revision)
    command = repo.command(f"cherry-pick {revision}")
    try:
        commit = repo.registry.cherry_pick(target, mainline, take=take, message=message, command=command)
    except ConflictError as error:
        raise _with_hint(error, take or {}) from error
    return _made(repo, commit, f"picks {target[:12]}", {"picked": target})


def _made(repo: Repo, commit: str, said: str, more: Mapping[str, str]) -> Committed:
    registry = repo.registry
    before = registry.persona(registry.parents(commit)[0])
    now = registry.persona(commit)
    return Committed(
        commit, said, now, before, more, notes=(*counted_twice(before, now), *refused(before, now))
    )


def _with_hint(error: ConflictError, take: Mapping[str, Take]) -> ConflictError:
    return ConflictError(str(error), conflicts=error.conflicts, hint=choices(error.conflicts, take))


def choices(conflicts: tuple[Conflict, ...], take: Mapping[str, Take]) -> str:
    """The argument that settles all of them; the command line says it as a command."""
    settled = {**take, **{conflict.take: "ours" for conflict in conflicts}}
    return f'settle each with "ours", "theirs" or "theirs*0.5": take={settled!r}'
