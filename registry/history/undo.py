"""Undo and redo: going back to how things were after an earlier operation, as one operation more.

`undoes` of an operation is the first that it takes back: everything from there on is. So an operation stands if
no later one took it back and it took back none itself. Undo goes back to before the newest that stands, redo to
before the newest undo, as long as nothing else was done since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from pv.registry.errors import ConflictError, NotFoundError, UsageError
from pv.registry.git import refs
from pv.registry.git.objects import RefChange
from pv.registry.git.repository import GitRepository
from pv.registry.history.operations import Operation, operations, view

__all__ = ["WentBack", "back_to", "before_redo", "before_undo", "marked", "numbered", "standing"]


@dataclass(frozen=True, slots=True)
class WentBack:
    """What undo or redo did, or would do: `taken_back` and `brought_back` are operations, newest first.

    `refs` and `head` are as in an operation: what there was, and what there is now. `to` is the number of the
    operation after which things were like that. `commits` are those of HEAD, before and after.
    """

    to: int
    taken_back: tuple[Operation, ...]
    brought_back: tuple[Operation, ...]
    refs: tuple[RefChange, ...]
    head: tuple[str, str]
    commits: tuple[str | None, str]

    @property
    def command(self) -> str:
        """That of the newest operation that it is about; empty if nothing had to be done."""
        about = self.taken_back or self.brought_back
        return about[0].command if about else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "to": self.to,
            "taken_back": [operation.summary() for operation in self.taken_back],
            "brought_back": [operation.summary() for operation in self.brought_back],
            "refs": [change.to_json() for change in self.refs],
            "head": {"old": self.head[0], "new": self.head[1]},
        }


def marked(history: GitRepository, limit: int | None = None) -> Iterator[Operation]:
    """The operations, newest first; each that does not stand with the one that took it back. Undo and redo have none.

    Of several that did, the one since which it has not stood.
    """
    known = list(operations(history))
    by = _taken_back(known)
    for operation in known[:limit]:
        yield replace(operation, undone_by=by.get(operation.seq))


def _taken_back(known: list[Operation]) -> dict[int, int]:
    """For each operation that does not stand, what took it back: from the oldest on, what each moved."""
    by: dict[int, int] = {}
    newest: dict[int, int | None] = {}  # after an operation, the newest that stood
    below: dict[int, int | None] = {}  # of one that stood, the next older
    top: int | None = None
    for operation in reversed(known):
        before = top
        if operation.undoes is None:
            below[operation.seq], top = top, operation.seq
        else:
            top = newest.get(operation.undoes - 1)
            old, new = before, top
            while old != new:
                if new is None or (old is not None and old > new):
                    assert old is not None
                    by[old], old = operation.seq, below[old]
                else:
                    by.pop(new, None)
                    new = below[new]
        newest[operation.seq] = top
    return by


def numbered(history: GitRepository, number: int) -> Operation:
    """One operation. Raises NotFoundError."""
    for operation in marked(history):
        if operation.seq == number:
            return operation
    raise _no_operation(history, number)


def standing(history: GitRepository, after: int | None = None) -> Iterator[Operation]:
    """The operations that hold, newest first; those that held right after operation number `after`."""
    limit = None if after is None else after + 1
    for operation in operations(history):
        if limit is not None and operation.seq >= limit:
            continue
        if operation.undoes is None:
            yield operation
        else:
            limit = operation.undoes


def before_undo(history: GitRepository, count: int = 1) -> int:
    """The number to go back to, to take back so many operations. Raises UsageError if there are not so many."""
    target: int | None = None
    for found, operation in enumerate(standing(history), 1):
        target = operation.seq - 1
        if found == count:
            return target
    if target is None:
        raise UsageError("nothing left to undo", hint="`pv op log` lists the operations")
    raise UsageError(f"there are not {count} operations to undo", hint="`pv op log` lists them")


def before_redo(history: GitRepository) -> int:
    """The number to go back to, to take back the newest undo. Raises UsageError if something was done since."""
    limit: int | None = None
    for operation in operations(history):
        if limit is not None and operation.seq >= limit:
            continue
        if operation.undoes is None:
            break
        if operation.command.split(" ")[0] == "undo":
            return operation.seq - 1
        limit = operation.undoes
    raise UsageError("nothing to redo", hint="only an undo that was the last thing done can be redone")


def back_to(history: GitRepository, number: int, doing: str = "undo") -> WentBack:
    """What takes everything back to how it was after operation `number`.

    Raises NotFoundError for a number that is not known, ConflictError if a ref has moved since by other hands,
    UsageError if HEAD would be left without a commit.
    """
    later = list(takewhile(lambda operation: operation.seq > number, operations(history)))
    newest = next(operations(history, 1), None)
    if not (later and later[-1].seq == number + 1) and (newest is None or newest.seq != number):
        raise _no_operation(history, number)
    taken, brought = _difference(history, number)
    said = repr(taken[0].command if taken else brought[0].command) if taken or brought else f"to {number}"
    if len(taken) + len(brought) > 1:
        said = f"to the state after operation {number}"
    changes, head = _net(later)
    now = view(history)
    moved = [c.ref for c in changes if now.refs.get(c.ref) != c.old]
    if head is not None and now.head != head[0]:
        moved.append("HEAD")
    if moved:
        raise ConflictError(
            f"cannot {doing} {said}: {', '.join(moved)} moved since, and not by pv",
            hint="`pv log --all` shows where things are; `pv revert` takes back a single commit",
        )
    target = now.head if head is None else head[1]
    left = {**now.refs, **{c.ref: c.new for c in changes}}
    after = left.get(target)
    if after is None:
        raise UsageError(
            f"cannot {doing} {said}: branch {target.removeprefix(refs.HEADS)} would be left without a commit",
            hint="`pv switch` to another branch first" if len(now.refs) > 2 else "it is the first operation",
        )
    return WentBack(
        number, taken, brought, tuple(changes), (now.head, target), (now.refs.get(now.head), after)
    )


def _net(later: list[Operation]) -> tuple[list[RefChange], tuple[str, str] | None]:
    """What moves refs and HEAD from after the newest of `later` to before the oldest; None: HEAD stays."""
    now: dict[str, str | None] = {}
    before: dict[str, str | None] = {}
    heads = [operation.head for operation in later if operation.head[0] != operation.head[1]]
    for operation in later:  # newest first
        for change in operation.refs:
            now.setdefault(change.ref, change.new)
            before[change.ref] = change.old
    changes = [RefChange(ref, now[ref], before[ref]) for ref in sorted(now) if now[ref] != before[ref]]
    if not heads or heads[0][1] == heads[-1][0]:
        return changes, None
    return changes, (heads[0][1], heads[-1][0])


def _difference(history: GitRepository, number: int) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """The operations that stand now and did not after `number`, and the other way round."""
    gone: list[Operation] = []
    come: list[Operation] = []
    now, then = standing(history), standing(history, number)
    one, other = next(now, None), next(then, None)
    while (one and one.seq) != (other and other.seq):
        if other is None or (one is not None and one.seq > other.seq):
            assert one is not None
            gone.append(one)
            one = next(now, None)
        else:
            come.append(other)
            other = next(then, None)
    return tuple(gone), tuple(come)


def _no_operation(history: GitRepository, number: int) -> NotFoundError:
    known = [operation.seq for operation in operations(history)]
    hint = f"`pv op log` lists those from {known[-1]} to {known[0]}" if known else "none was written down"
    return NotFoundError(f"there is no operation {number}", hint=hint)
