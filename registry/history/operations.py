"""Operations: every change of refs, written down before it is made.

`refs/pv/ops` is a chain of commits. Each holds `operation.json`: the command, and for every ref its value
before and after. The parents are the previous operation and every commit it names, so that git keeps
them. Invariant: moving the chain is what makes a change; the refs follow. `view` reads both together, so
that a reader sees a change as a whole or not at all, also after a crash in between. Only the newest
operation can be unfinished: whoever writes holds one lock, and first lets `recover` move what it planned.

Undo and redo are operations too: see undo.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pv.registry import canonical
from pv.registry.errors import FormatError, IntegrityError, NotFoundError, UsageError
from pv.registry.git import refs
from pv.registry.git.objects import RefChange, TreeEntry
from pv.registry.git.repository import GitRepository

__all__ = [
    "Operation",
    "View",
    "chain",
    "compose",
    "expire",
    "kept",
    "left_branch",
    "newest",
    "operations",
    "publish",
    "recover",
    "rewrite",
    "view",
]

SCHEMA = 1
_FILE = "operation.json"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # a command line may hold any bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """`seq` counts from 1. `undoes` is the seq of the first operation that this one takes back, with all since.

    `author` and `email` are those of the commit that holds it, `undone_by` is what took it back, if that stands:
    they are read, and not written.
    """

    seq: int
    command: str
    time: datetime
    refs: tuple[RefChange, ...]
    head: tuple[str, str]
    undoes: int | None = None
    id: str = ""
    author: str = field(default="", compare=False)
    email: str = field(default="", compare=False)
    undone_by: int | None = field(default=None, compare=False)

    def summary(self) -> dict[str, Any]:
        """For programs; `to_json` is what is written down."""
        return {
            "seq": self.seq,
            "time": self.time.isoformat(),
            "author": {"name": self.author, "email": self.email},
            "command": self.command,
            "refs": [change.to_json() for change in self.refs],
            "head": {"old": self.head[0], "new": self.head[1]},
            "undoes": self.undoes,
            "undone_by": self.undone_by,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "seq": self.seq,
            "command": self.command,
            "time": self.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "refs": [[c.ref, c.old, c.new] for c in self.refs],
            "head": list(self.head),
            "undoes": self.undoes,
        }

    @staticmethod
    def from_bytes(data: bytes, op_id: str) -> Operation:
        """Raises FormatError."""
        what = f"operation {op_id[:12]}"
        match canonical.loads(data, what=what):
            case {
                "schema": int(schema),
                "seq": int(seq),
                "command": str(command),
                "time": str(time),
                "refs": list(changes),
                "head": [str(before), str(after)],
                "undoes": int() | None as undoes,
                **more,
            } if schema == SCHEMA and not more and refs.is_branch_ref(before) and refs.is_branch_ref(after):
                try:
                    when = datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
                except ValueError as error:
                    raise FormatError(f"{what}: {error}") from error
                rows = tuple(_change(row, what) for row in changes)
                return Operation(seq, command, when, rows, (before, after), undoes, op_id)
        raise FormatError(f"{what} is not one that this pv knows", hint="a newer pv wrote it: upgrade")


def _change(row: Any, what: str) -> RefChange:
    match row:
        case [str(ref), str() | None as old, str() | None as new] if (
            refs.is_ref(ref) and old != new and all(v is None or refs.is_object_id(v) for v in (old, new))
        ):
            return RefChange(ref, old, new)
    raise FormatError(f"{what}: a ref is [name, old id or null, new id or null]")


@dataclass(frozen=True, slots=True)
class View:
    """The refs and HEAD as they are, or will be as soon as the newest operation is finished."""

    head: str
    refs: Mapping[str, str]

    @property
    def tip(self) -> str | None:
        """The commit of the current branch; None before the first."""
        return self.refs.get(self.head)


def view(history: GitRepository) -> View:
    """What there is now. Takes no lock. Raises IntegrityError if HEAD names a branch that is gone."""
    known, head = history.refs(), history.head_ref()
    while known.get(refs.OPS) != (again := history.refs()).get(refs.OPS):
        known, head = again, history.head_ref()  # an operation came in while we were reading
    if refs.OPS in known:
        known, head = _foresee(history, known, head)
    if head not in known and any(ref.startswith(refs.HEADS) for ref in known):
        raise IntegrityError(
            f"HEAD names branch {head.removeprefix(refs.HEADS)}, which does not exist",
            hint="`pv fsck --repair` restores it from the operations",
        )
    return View(head, known)


def _foresee(history: GitRepository, known: dict[str, str], head: str) -> tuple[dict[str, str], str]:
    try:
        last = _read(history, known[refs.OPS])
    except IntegrityError:
        return known, head  # what can still be read shall be; a writer will say what is damaged
    for change in last.refs:
        if known.get(change.ref) == change.old:
            known.pop(change.ref, None)
            if change.new is not None:
                known[change.ref] = change.new
    before, after = last.head
    return dict(sorted(known.items())), after if head == before else head


def newest(history: GitRepository) -> Operation | None:
    tip = history.ref(refs.OPS)
    return None if tip is None else _read(history, tip)


def operations(history: GitRepository, limit: int | None = None) -> Iterator[Operation]:
    """All operations, newest first."""
    yield from chain(history, history.ref(refs.OPS), limit)


def chain(history: GitRepository, tip: str | None, limit: int | None = None) -> Iterator[Operation]:
    """The operations from one back. Raises IntegrityError, FormatError, NotFoundError."""
    while tip is not None and (limit is None or limit > 0):
        operation = _read(history, tip)
        yield operation
        tip = _previous(history, operation)
        limit = None if limit is None else limit - 1


def _read(history: GitRepository, op_id: str) -> Operation:
    operation, author = (
        Operation.from_bytes(history.read_blob(op_id, _FILE), op_id),
        history.commit(op_id).author,
    )
    return replace(operation, author=author.name, email=author.email)


def _previous(history: GitRepository, operation: Operation) -> str | None:
    """The first parent, if it is an operation: the oldest one kept has only commits for parents."""
    parents = history.commit(operation.id).parents
    if parents and history.entry(parents[0], _FILE) is not None:
        return parents[0]
    return None


def publish(
    history: GitRepository,
    command: str,
    changes: Sequence[RefChange],
    *,
    head: str | None = None,
    undoes: int | None = None,
    lock: int | None = None,
) -> Operation:
    """Write the operation down, then make it so. The caller holds refs.lock, and has recovered.

    Raises ConflictError if a ref is not at its old value; then nothing has happened.
    """
    last, before = newest(history), history.head_ref()
    operation = compose(history, last, command, changes, (before, head or before), undoes)
    chain = RefChange(refs.OPS, last.id if last else None, operation.id)
    history.update_refs([chain], verify=operation.refs, lock=lock)
    _apply(history, operation, lock)
    return operation


def compose(
    history: GitRepository,
    last: Operation | None,
    command: str,
    changes: Sequence[RefChange],
    head: tuple[str, str],
    undoes: int | None = None,
) -> Operation:
    """An operation to follow `last`, written down; it becomes true when `refs/pv/ops` names it."""
    for ref in (*(change.ref for change in changes), *head):
        if not refs.is_ref(ref):  # by other hands: an operation that names it could not be read again
            raise UsageError(
                f"{ref!r} has a name that pv does not give: nothing was changed",
                hint="git branch -m gives it another, in history.git",
            )
    command = _UNPRINTABLE.sub("?", command)[:500]
    operation = Operation(
        seq=1 if last is None else last.seq + 1,
        command=command,
        time=datetime.now(UTC),
        refs=tuple(sorted(changes, key=lambda c: c.ref)),
        head=head,
        undoes=undoes,
    )
    tree = history.write_tree({_FILE: TreeEntry(history.write_blob(canonical.dumps(operation.to_json())))})
    parents = ([last.id] if last else []) + _named(operation)
    return replace(operation, id=history.commit_tree(tree, parents, f"{operation.seq}: {command}"))


def expire(history: GitRepository, before: datetime, lock: int | None = None) -> list[Operation]:
    """Forget the operations older than `before`, but never the newest one; returns them, newest first.

    What they named is kept by nothing else then. `seq` and `undoes` stay as they are.
    """
    known = list(operations(history))
    keep = kept(known, before)
    if len(keep) < len(known):
        rewrite(history, keep, lock)
    return known[len(keep) :]


def kept(known: Sequence[Operation], before: datetime) -> Sequence[Operation]:
    """Those (of all, newest first) that `expire` keeps: from the newest to the oldest that is young enough."""
    young = [number for number, operation in enumerate(known) if operation.time >= before]
    return known[: max([*young, 0]) + 1]


def rewrite(history: GitRepository, keep: Sequence[Operation], lock: int | None = None) -> None:
    """Make `keep` (newest first) the whole chain. The oldest of them is the first from now on."""
    tip: str | None = None
    for operation in reversed(keep):
        commit = history.commit(operation.id)
        parents = ([tip] if tip else []) + _named(operation)
        tip = history.commit_tree(commit.tree, parents, commit.message, author=commit.author)
    history.update_refs([RefChange(refs.OPS, history.ref(refs.OPS), tip)], lock=lock)


def _named(operation: Operation) -> list[str]:
    return [value for c in operation.refs for value in (c.old, c.new) if value is not None]


def recover(history: GitRepository, lock: int | None = None) -> Operation | None:
    """Finish the newest operation if a crash left it half done; returns it if there was something to do.

    The caller holds refs.lock, so a lock file of git's that is still there belongs to a dead process.
    """
    refs.sweep_locks(history.path)
    last = newest(history)
    if last is None or not _apply(history, last, lock):
        return None
    return last


def _apply(history: GitRepository, operation: Operation, lock: int | None) -> bool:
    """Move what is still at its old value. A ref that is elsewhere was moved by other hands: it stays."""
    now = history.refs()
    pending = [c for c in operation.refs if now.get(c.ref) == c.old]
    before, after = operation.head
    switching = before != after and history.head_ref() == before
    if switching and after in now:
        history.set_head(after)  # first, because the branch that we leave may be about to go
    if pending:
        history.update_refs(pending, lock=lock)
    if switching and after not in now:
        history.set_head(after)
    return switching or bool(pending)


def left_branch(history: GitRepository) -> str:
    """The branch that was current before the current one, of those that still exist. Raises NotFoundError."""
    now = view(history)
    for operation in operations(history):
        before = operation.head[0]
        if before not in (operation.head[1], now.head) and before in now.refs:
            return before.removeprefix(refs.HEADS)
    raise NotFoundError("there was no other branch before this one", hint="`pv branch` lists the branches")
