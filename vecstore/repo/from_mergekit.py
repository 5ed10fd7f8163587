"""build --from-mergekit: a mergekit document to a checkpoint folder. It needs no registry."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from pv.registry.persona import Output
from pv.vecstore.merge.folder import Written
from pv.vecstore.merge.shards import SHARD_BYTES, Shard
from pv.vecstore.mergekit.build import hashes, merge
from pv.vecstore.mergekit.document import read_document
from pv.vecstore.mergekit.plan import Merge, Merged, opened
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.build import usable
from pv.vecstore.repo.thread_count import thread_count

__all__ = ["FolderMerge", "FolderMergePlan", "build_from_mergekit", "plan_from_mergekit"]


@dataclass(frozen=True, slots=True)
class FolderMergePlan:
    """What a merge of folders would do: `method` is mergekit's name; the first of `models` is the base."""

    output: Path
    method: str
    models: tuple[Merged, ...]
    written_as: Output
    shards: tuple[Shard, ...]
    notes: tuple[str, ...]

    @property
    def tensors(self) -> int:
        return sum(len(shard.tensors) for shard in self.shards)

    @property
    def bytes_read(self) -> int:
        return sum(model.nbytes for model in self.models)

    def to_json(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "output": str(self.output),
            **_common(self.method, self.models, self.written_as, self.notes),
            "tensors": self.tensors,
            "bytes_read": self.bytes_read,
            "sizes": {shard.file: shard.nbytes for shard in self.shards},
        }


@dataclass(frozen=True, slots=True)
class FolderMerge:
    """A merge of folders that was written."""

    output: Path
    method: str
    models: tuple[Merged, ...]
    written_as: Output
    written: Written
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        made = self.written
        return {
            "output": str(self.output),
            **_common(self.method, self.models, self.written_as, self.notes),
            "weights": made.weights,
            "files": dict(made.files),
            "tensors": made.tensors,
            "touched": made.touched,
            "bytes": made.nbytes,
            "resumed": made.resumed,
        }


def _common(
    method: str, models: tuple[Merged, ...], written_as: Output, notes: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "method": method,
        "models": [model.to_json() for model in models],
        "written_as": written_as.to_json(),
        "notes": list(notes),
    }


def plan_from_mergekit(
    document: str | PathLike[str],
    output: str | PathLike[str],
    *,
    seen_from: Path | None = None,
    dtype: str | None = None,
    rounding: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Report | None = None,
) -> FolderMergePlan:
    """What `build_from_mergekit` would do, from headers alone; raises what can be known from them."""
    folder, read = usable(_path(output)), read_document(_path(document))
    with opened(
        read, seen_from=seen_from, dtype=dtype, rounding=rounding, shard_bytes=shard_bytes, progress=progress
    ) as plan:
        return _planned(plan, folder)


def _planned(plan: Merge, folder: Path) -> FolderMergePlan:
    return FolderMergePlan(folder, plan.rule.name, plan.models, plan.output, plan.shards, plan.notes)


def build_from_mergekit(
    document: str | PathLike[str],
    output: str | PathLike[str],
    *,
    seen_from: Path | None = None,
    dtype: str | None = None,
    rounding: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    hash_inputs: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Report | None = None,
) -> FolderMerge:
    """Merge the models of a mergekit YAML file into a new folder. Their paths are `seen_from` a folder, or the current.

    Rounds to nearest, as mergekit does, unless told otherwise. `hash_inputs`: note the SHA-256 of the models' files.
    Raises UsageError, NotFoundError, RemoteError, CheckpointRefused, IntegrityError, StorageError.
    """
    folder, read = usable(_path(output)), read_document(_path(document))
    with opened(
        read, seen_from=seen_from, dtype=dtype, rounding=rounding, shard_bytes=shard_bytes, progress=progress
    ) as plan:
        if hash_inputs:
            said(progress, "hashing the models")
        made = merge(
            plan,
            folder,
            hashed=hashes(plan) if hash_inputs else None,
            threads=thread_count(threads),
            force=force,
            progress=stage(progress, "merging"),
        )
        return FolderMerge(folder, plan.rule.name, plan.models, plan.output, made, plan.notes)


def _path(named: str | PathLike[str]) -> Path:
    return Path(named).expanduser().absolute()
