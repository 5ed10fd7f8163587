"""Everything that pv raises on purpose.

    PvError                      70  a defect in pv, if nothing below fits
    ├── UsageError                2  the request itself is wrong
    │   ├── DataError             2  a file of rows that cannot be read as rows
    │   └── TrainingFailed        2  the loss left the finite numbers
    ├── ConflictError             1  histories disagree; both sides are listed
    ├── NotFoundError             5  no such thing under that name
    │   ├── UnknownRevision
    │   ├── UnknownBehaviour
    │   └── MissingBase
    ├── IntegrityError            3  bytes are not what they should be
    │   ├── FormatError              a file that breaks its format
    │   ├── CorruptPack              a stored vector that no longer hashes to its id
    │   ├── CheckpointRefused        a checkpoint that cannot be captured
    │   └── BaseMismatch             a vector meets a base that it was not measured from
    ├── StorageError             74  the disk is full or refuses
    ├── RemoteError               4  the network, or the other side, said no
    └── NotARegistry            128  no .pv folder here or above

Each carries `exit_code` and, where there is one, `hint`: what to do next.

    try:
        registry.resolve("nope")
    except UnknownRevision as error:
        print(error, error.hint)
"""

from __future__ import annotations

from pv.registry.conflict import Conflict
from pv.registry.exit_codes import ExitCode

__all__ = [
    "BaseMismatch",
    "CheckpointRefused",
    "ConflictError",
    "CorruptPack",
    "DataError",
    "FormatError",
    "IntegrityError",
    "MissingBase",
    "NotARegistry",
    "NotFoundError",
    "PvError",
    "RemoteError",
    "StorageError",
    "TrainingFailed",
    "UnknownBehaviour",
    "UnknownRevision",
    "UsageError",
]


class PvError(Exception):
    """Base of everything pv raises on purpose: a message, and a hint of what to do next."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(PvError):
    exit_code = ExitCode.USAGE


class DataError(UsageError):
    """A data file that cannot be read; the message carries file and line."""


class TrainingFailed(UsageError):
    """The loss became NaN or infinite; nothing was kept."""


class ConflictError(PvError):
    """Two histories changed the same thing; `conflicts` lists both sides."""

    exit_code = ExitCode.NO

    def __init__(
        self, message: str, *, conflicts: tuple[Conflict, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.conflicts = conflicts


class NotFoundError(PvError):
    exit_code = ExitCode.NOT_FOUND


class UnknownRevision(NotFoundError):
    """`name` is what nothing here has the name of, if that is why.

    `behaviour` is the behaviour that has it: NAME if HEAD has that, else REV:NAME.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, name: str | None = None, behaviour: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.behaviour = behaviour


class UnknownBehaviour(NotFoundError):
    pass


class MissingBase(NotFoundError):
    """The base checkpoint is not where it was; the message says where it came from."""


class IntegrityError(PvError):
    exit_code = ExitCode.INTEGRITY


class FormatError(IntegrityError):
    """A file that breaks the rules of its format (safetensors, persona.json, a manifest)."""


class CorruptPack(IntegrityError):
    """Stored bytes that do not hash to their id."""


class CheckpointRefused(IntegrityError):
    """A checkpoint that cannot be captured against this base."""


class BaseMismatch(IntegrityError):
    """A vector, or a checkpoint, that belongs to another base."""


class StorageError(PvError):
    exit_code = ExitCode.DISK


class RemoteError(PvError):
    exit_code = ExitCode.REMOTE


class NotARegistry(PvError):
    exit_code = ExitCode.NO_REGISTRY
