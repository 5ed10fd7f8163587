"""Personality as version control: git for the behaviours of a language model.

    import pv
    repo = pv.init("my-assistant", base="./SmolLM2-135M-Instruct")   # or pv.open(".")
    repo.train("listening.jsonl", name="listening", lr=1e-4)
    rev = repo.at("HEAD")
    print(rev.score("listening.heldout.jsonl").effect)
    rev.build("out")
    repo.revert("HEAD")

docs/python.md explains it. Importing this loads nothing: names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pv.registry.combine import Combine
    from pv.registry.errors import (
        BaseMismatch,
        CheckpointRefused,
        ConflictError,
        CorruptPack,
        DataError,
        FormatError,
        IntegrityError,
        MissingBase,
        NotARegistry,
        NotFoundError,
        PvError,
        RemoteError,
        StorageError,
        TrainingFailed,
        UnknownBehaviour,
        UnknownRevision,
        UsageError,
    )
    from pv.registry.persona import Behaviour, Output, Persona, Term
    from pv.registry.steering import Steering, SteeringTerm
    from pv.vecstore.data.rows import Message, Row, Rows, read_rows
    from pv.vecstore.progress import Report, Tick
    from pv.vecstore.repo.commit_callback import CommitCallback
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.diff_checkpoints import CheckpointDiff, diff_checkpoints
    from pv.vecstore.repo.from_mergekit import build_from_mergekit, plan_from_mergekit
    from pv.vecstore.repo.fsck import Checked
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.revision import Revision
    from pv.vecstore.repo.score import Score
    from pv.vecstore.repo.vector import TaskVector
    from pv.vecstore.repo.verify_merge import verify_merge
    from pv.vecstore.train.apollo import Apollo, ApolloMini
    from pv.vecstore.train.trainer import TrainerMixin

__all__ = [
    "Apollo",
    "ApolloMini",
    "BaseMismatch",
    "Behaviour",
    "Checked",
    "CheckpointDiff",
    "CheckpointRefused",
    "Combine",
    "CommitCallback",
    "ConflictError",
    "CorruptPack",
    "DataError",
    "Diff",
    "FormatError",
    "IntegrityError",
    "Message",
    "MissingBase",
    "NotARegistry",
    "NotFoundError",
    "Output",
    "Persona",
    "PvError",
    "RemoteError",
    "Repo",
    "Report",
    "Revision",
    "Row",
    "Rows",
    "Score",
    "Steering",
    "SteeringTerm",
    "StorageError",
    "TaskVector",
    "Term",
    "Tick",
    "TrainerMixin",
    "TrainingFailed",
    "UnknownBehaviour",
    "UnknownRevision",
    "UsageError",
    "__version__",
    "build_from_mergekit",
    "diff_checkpoints",
    "fsck",
    "init",
    "open",
    "plan_from_mergekit",
    "read_rows",
    "verify_merge",
]

_HOMES = {
    "pv.registry.combine": ("Combine",),
    "pv.registry.errors": (
        "BaseMismatch", "CheckpointRefused", "ConflictError", "CorruptPack", "DataError", "FormatError",
        "IntegrityError", "MissingBase", "NotARegistry", "NotFoundError", "PvError", "RemoteError", "StorageError",
        "TrainingFailed", "UnknownBehaviour", "UnknownRevision", "UsageError",
    ),
    "pv.registry.persona": ("Behaviour", "Output", "Persona", "Term"),
    "pv.registry.steering": ("Steering", "SteeringTerm"),
    "pv.vecstore.data.rows": ("Message", "Row", "Rows", "read_rows"),
    "pv.vecstore.progress": ("Report", "Tick"),
    "pv.vecstore.repo.commit_callback": ("CommitCallback",),
    "pv.vecstore.repo.diff": ("Diff",),
    "pv.vecstore.repo.from_mergekit": ("build_from_mergekit", "plan_from_mergekit"),
    "pv.vecstore.repo.diff_checkpoints": ("CheckpointDiff", "diff_checkpoints"),
    "pv.vecstore.repo.fsck": ("Checked",),
    "pv.vecstore.repo.repo": ("Repo",),
    "pv.vecstore.repo.revision": ("Revision",),
    "pv.vecstore.repo.score": ("Score",),
    "pv.vecstore.repo.vector": ("TaskVector",),
    "pv.vecstore.train.apollo": ("Apollo", "ApolloMini"),
    "pv.vecstore.train.trainer": ("TrainerMixin",),
    "pv.vecstore.repo.verify_merge": ("verify_merge",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__version__: str


def open(path: str | PathLike[str] = ".", *, cache_bytes: int | None = None) -> Repo:
    """The repository of a folder, or of the nearest folder above. Raises NotARegistry.

    `cache_bytes` is how much of builds is kept, for whoever needs one again: 4 GB, unless told otherwise.
    """
    from pv.vecstore.repo.repo import Repo

    return Repo.open(path, cache_bytes=cache_bytes)


def init(
    path: str | PathLike[str] = ".",
    *,
    base: str | PathLike[str],
    reference: bool = False,
    output: Output | None = None,
    threads: int | None = None,
    progress: Report | None = None,
) -> Repo:
    """A new repository in a folder, on a base checkpoint: a folder of safetensors, or a Hub id (`user/name`).

    A local base is copied into the registry unless it is only to be a `reference`. Raises UsageError if there is a
    repository already, NotFoundError, CheckpointRefused, MissingBase.
    """
    from pathlib import Path

    from pv.vecstore.repo.init import init as make
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.thread_count import thread_count

    where = base if isinstance(base, str) else Path(base)
    folder = Path(path).expanduser()
    make(folder, where, reference=reference, output=output, threads=thread_count(threads), progress=progress)
    return Repo.open(folder)


def fsck(
    path: str | PathLike[str] = ".",
    *,
    deep: bool = False,
    repair: bool = False,
    threads: int | None = None,
    progress: Report | None = None,
) -> Checked:
    """`Repo.fsck` for a repository that may be too damaged to open. Damage is a result, not an error."""
    from pathlib import Path

    from pv.vecstore.repo.fsck import fsck as check
    from pv.vecstore.repo.thread_count import thread_count

    folder = Path(path).expanduser().absolute()
    return check(folder, deep=deep, repair=repair, threads=thread_count(threads), progress=progress)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("personavec")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'pv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
