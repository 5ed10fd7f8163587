"""Where history begins: HEAD, the refs and the operations; and where, by the operations, they should be.

Reading never stops at damage: what can be read is there, and what cannot is named. Invariant: `expected`
follows docs/FORMAT.md, where the chain of operations is the truth and the refs follow it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pv.registry.check.report import Finding
from pv.registry.errors import IntegrityError, PvError
from pv.registry.git import refs
from pv.registry.git.repository import GitRepository
from pv.registry.history import operations
from pv.registry.history.operations import Operation

__all__ = ["RefState", "check", "expected_refs", "lost_chain", "read"]

_GIT = "history.git"


@dataclass(frozen=True, slots=True)
class RefState:
    """`damaged` are the ref files that cannot be read; `broken` says why the chain has no proper end."""

    head: str | None
    refs: Mapping[str, str]
    damaged: tuple[str, ...]
    operations: tuple[Operation, ...]
    broken: str | None

    @property
    def newest(self) -> Operation | None:
        return self.operations[0] if self.operations else None

    @property
    def tips(self) -> list[str]:
        """Every commit that a ref names, or that an operation would bring back."""
        found = [commit for ref, commit in self.refs.items() if ref != refs.OPS]
        for operation in self.operations:
            found += [value for c in operation.refs for value in (c.old, c.new) if value is not None]
        return list(dict.fromkeys(found))


def read(history: GitRepository) -> RefState:
    """Hold refs.lock, so that what is read belongs together."""
    try:
        head: str | None = history.head_ref()
    except IntegrityError:
        head = None
    found, damaged = refs.scan(history.path)
    chain: list[Operation] = []
    broken: str | None = None
    if refs.OPS in found:
        try:
            chain = list(operations.chain(history, found[refs.OPS]))
        except PvError as error:
            broken = str(error)
            chain = _readable(history, found[refs.OPS])
    return RefState(head, found, tuple(damaged), tuple(chain), broken)


def _readable(history: GitRepository, tip: str) -> list[Operation]:
    """The operations before the one that cannot be read."""
    found: list[Operation] = []
    with contextlib.suppress(PvError):
        for operation in operations.chain(history, tip):
            found.append(operation)  # noqa: PERF402  (what came before the error is kept)
    return found


def expected_refs(chain: tuple[Operation, ...]) -> dict[str, tuple[str | None, Operation]]:
    """Where each ref was left (None: deleted), and by which operation."""
    found: dict[str, tuple[str | None, Operation]] = {}
    for operation in chain:
        for change in operation.refs:
            found.setdefault(change.ref, (change.new, operation))
    return found


def check(state: RefState) -> list[Finding]:
    """What is wrong with them, the commits that they lead to aside."""
    branches = [ref for ref in state.refs if ref.startswith(refs.HEADS)]
    found = [*_check_chain(state, bool(branches)), *_check_head(state, branches)]
    expected = expected_refs(state.operations)
    for name in state.damaged:
        if name != refs.OPS:
            left = expected.get(name, (None, None))[0]
            found.append(_ref(name, "cannot be read", left, repairable=left is not None))
    for name, (left, operation) in sorted(expected.items()):
        now = state.refs.get(name)
        if now == left or name in state.damaged or _unfinished(state, name, now):
            continue
        where = f"is at {now[:12]}" if now else "is missing"
        said = f"left it at {left[:12]}" if left else "deleted it"
        what = f"{where}, operation {operation.seq} ({operation.command}) {said}"
        found.append(_ref(name, what, left, repairable=True))
    if state.operations and state.operations[-1].seq == 1 and state.broken is None:
        strange = sorted(state.refs.keys() - expected.keys() - {refs.OPS})
        found += [Finding("unknown", f"{_GIT}/{ref}", "a ref that pv did not make") for ref in strange]
    return found


def _ref(name: str, what: str, left: str | None, *, repairable: bool) -> Finding:
    return Finding(
        "ref", f"{_GIT}/{name}", f"{name} {what}", commits=(left,) if left else (), repairable=repairable
    )


def _unfinished(state: RefState, name: str, now: str | None) -> bool:
    newest = state.newest
    return newest is not None and any(c.ref == name and c.old == now for c in newest.refs)


def _check_head(state: RefState, branches: list[str]) -> list[Finding]:
    newest, where = state.newest, f"{_GIT}/HEAD"
    can = newest is not None or len(branches) == 1
    if state.head is None:
        return [Finding("head", where, "HEAD names no branch", repairable=can)]
    if newest is not None and state.head != newest.head[1]:
        before, after = newest.head
        if state.head != before:
            what = f"HEAD names {state.head}, operation {newest.seq} ({newest.command}) left it at {after}"
            return [Finding("head", where, what, repairable=True)]
    elif (
        branches
        and state.head not in state.refs
        and expected_refs(state.operations).get(state.head, (None,))[0] is None
    ):
        what = f"HEAD names {state.head}, which does not exist"
        return [Finding("head", where, what, repairable=can)]
    return []


def _check_chain(state: RefState, history_exists: bool) -> list[Finding]:
    where = f"{_GIT}/{refs.OPS}"
    if refs.OPS in state.damaged:
        return [Finding("operations", where, "the chain of operations cannot be found", repairable=True)]
    if refs.OPS not in state.refs:
        if not history_exists:
            return []
        return [Finding("operations", where, "the chain of operations is gone", repairable=True)]
    if state.broken is not None:
        what = f"the chain of operations cannot be read to its end: {state.broken}"
        return [Finding("operations", where, what, repairable=True)]
    found = []
    for newer, older in zip(state.operations, state.operations[1:], strict=False):
        if newer.seq != older.seq + 1:
            what = f"operation {newer.seq} follows operation {older.seq}"
            found.append(Finding("operations", where, what))
    newest = state.newest
    assert newest is not None
    waiting = [c.ref for c in newest.refs if state.refs.get(c.ref) == c.old]
    if state.head == newest.head[0] != newest.head[1]:
        waiting.append("HEAD")
    if waiting:
        what = f"operation {newest.seq} ({newest.command}) has yet to move {', '.join(waiting)}"
        hint = "the next command that writes finishes it"
        found.append(Finding("unfinished", where, what, hint=hint))
    return found


def lost_chain(history: GitRepository, git_dir: Path, object_ids: list[str]) -> str | None:
    """The newest operation among some objects: what `refs/pv/ops` must have named. None if there is none.

    One that was written and never published may be as new as the one that was: refs tell them apart.
    """
    now, _ = refs.scan(git_dir)
    best: tuple[int, int, str] | None = None
    for object_id in object_ids:
        try:
            if history.kind(object_id) != "commit":
                continue
            operation = next(operations.chain(history, object_id))
            settled = sum(now.get(c.ref) == c.new for c in operation.refs)
            rank = (operation.seq, settled, object_id)
            if best is None or rank > best:
                list(operations.chain(history, object_id))
                best = rank
        except PvError:
            continue
    return best[2] if best else None
