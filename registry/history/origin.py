"""Where a value of a persona comes from: the commit that gave it, found by walking back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pv.registry.changes import Change, Value, changes, same, value_of
from pv.registry.conflict import Conflict, Origin
from pv.registry.git.repository import GitRepository
from pv.registry.history.snapshot import Snapshot
from pv.registry.persona import Persona

__all__ = ["Reverted", "reverted_merge", "takes_back", "with_origins"]

FURTHEST = 1000  # commits; the sides of a conflict parted more lately than that, nearly always
_TAKEN_BACK = re.compile(r"^This takes back commit ([0-9a-f]{40})\.$", re.MULTILINE)


def takes_back(commit: str) -> str:
    """The line in the message of a revert that says of what."""
    return f"This takes back commit {commit}."


@dataclass(frozen=True, slots=True)
class Reverted:
    """A merge that brought something, and the later commit that took it back; both in the history of the branch."""

    merge: str
    revert: str


def reverted_merge(history: GitRepository, tip: str, brought: str, *personas: Persona) -> Reverted | None:
    """The merge through which `tip` has commit `brought`, if it was reverted, and the revert still holds.

    It holds as long as each of `personas` has something as the revert left it: what came back in another way is back.
    """
    taken_back: dict[str, str] = {}
    for commit_id in history.walk([tip]):  # newest first: a revert of a revert comes before the revert
        commit = history.commit(commit_id)
        if commit_id in taken_back:
            main, *sides = commit.parents or ("",)
            by_merge = any(history.merge_base(side, brought) == brought for side in sides)
            if by_merge and history.merge_base(main, brought) != brought:
                revert = taken_back[commit_id]
                gone = _changed_by(history, revert)
                if all(any(same(_value(now, one), one.after) for one in gone) for now in personas):
                    return Reverted(commit_id, revert)
        elif found := _TAKEN_BACK.findall(commit.message):
            taken_back[found[-1]] = commit_id
    return None


def _changed_by(history: GitRepository, commit_id: str) -> tuple[Change, ...]:
    (parent,) = history.commit(commit_id).parents
    return changes(Snapshot(history, parent).persona(), Snapshot(history, commit_id).persona())


def with_origins(
    history: GitRepository, conflicts: tuple[Conflict, ...], ours: str, theirs: str
) -> tuple[Conflict, ...]:
    """The conflicts, each side with the commit that made it so."""
    return tuple(
        replace(
            conflict,
            ours_from=_origin(history, ours, conflict),
            theirs_from=_origin(history, theirs, conflict),
        )
        for conflict in conflicts
    )


def _origin(history: GitRepository, tip: str, conflict: Conflict) -> Origin | None:
    """The commit after which the value was as at `tip`, and before which it was not."""
    now = _value(Snapshot(history, tip).persona(), conflict)
    for commit_id in _back_to_change(history, tip, conflict, now):
        commit = history.commit(commit_id)
        subject = commit.message.partition("\n")[0]
        return Origin(commit_id, subject, commit.author.name, commit.author.time)
    return None


def _back_to_change(history: GitRepository, tip: str, conflict: Conflict, now: Value) -> Iterator[str]:
    commit_id = tip
    for _ in range(FURTHEST):
        parents = history.commit(commit_id).parents
        alike = (p for p in parents if same(_value(Snapshot(history, p).persona(), conflict), now))
        before = next(alike, None)
        if before is None:
            yield commit_id
            return
        commit_id = before


def _value(persona: Persona, named: Conflict | Change) -> Value:
    return value_of(persona, named.name, named.kind)
