"""verify, of a folder that `pv build --from-mergekit` wrote: it has no registry, but a record of itself.

The record, pv-merge.json, says what weights and files were written, from which models. Weights and files are held
against it. The record lies beside what it speaks of, so whoever changes both deceives it: only merging again
(`recompute`) shows that these models give these weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from pv.registry import canonical, ids
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.ranges import FileRanges
from pv.registry.errors import FormatError, PvError
from pv.registry.manifest import TensorRow, is_plain_file_name
from pv.registry.persona import ENGINE
from pv.vecstore.checkpoints.beside import strangers
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.compare import Difference, differences
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.checkpoints.side_files import MERGE
from pv.vecstore.mergekit.build import CONFIG, file_hash, table
from pv.vecstore.mergekit.document import read_document
from pv.vecstore.mergekit.plan import opened
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.thread_count import thread_count

__all__ = ["MergeVerdict", "MergedFrom", "merge_record", "verify_merge"]


@dataclass(frozen=True, slots=True)
class MergedFrom:
    """One model of a merge. `same`: its weight files are those that were merged; None: nobody knows, `why` not."""

    model: str
    commit: str | None
    same: bool | None
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "commit": self.commit, "same": self.same, "why": self.why}


@dataclass(frozen=True, slots=True)
class MergeVerdict:
    """What a folder says that it is, against what it holds. `found` and `expected` are ids of tensor tables.

    `expected` is the record's, or what the models give if they were merged again (`recomputed`); `differing` says then
    which tensors are other. `files` is what is other beside the weights (None: not compared). `unknown` is what could
    not be checked.
    """

    folder: Path
    method: str
    found: str
    expected: str
    recomputed: bool
    tensors: int
    differing: tuple[Difference, ...]
    files: tuple[Difference, ...] | None
    models: tuple[MergedFrom, ...]
    unknown: tuple[str, ...]

    @property
    def weights_same(self) -> bool:
        return self.found == self.expected

    @property
    def same(self) -> bool:
        return self.weights_same and not self.files

    def to_json(self) -> dict[str, Any]:
        return {
            "merge": str(self.folder),
            "method": self.method,
            "same": self.same,
            "weights_same": self.weights_same,
            "found": self.found,
            "expected": self.expected,
            "recomputed": self.recomputed,
            "tensors": self.tensors,
            "differing": [{"tensor": one.name, "what": one.what} for one in self.differing],
            "files": None
            if self.files is None
            else [{"file": one.name, "what": one.what} for one in self.files],
            "models": [one.to_json() for one in self.models],
            "unknown": list(self.unknown),
        }


def merge_record(folder: Path) -> dict[str, Any] | None:
    """What pv-merge.json in the folder says; None if there is none, or it is not pv's."""
    try:
        record = canonical.loads(read_bounded(folder / MERGE), what=MERGE)
    except (OSError, FormatError):
        return None
    match record:
        case {"schema": 1, "kind": "merge", "weights": str(weights), "config": dict(), "models": list()} if (
            ids.is_id(weights)
        ):
            return dict(record)
    return None


def verify_merge(
    folder: str | PathLike[str],
    *,
    seen_from: Path | None = None,
    weights_only: bool = False,
    recompute: bool = False,
    threads: int | None = None,
    progress: Report | None = None,
) -> MergeVerdict:
    """Hold a merged folder against its record; `recompute`: against what its models give now, `seen_from` a folder.

    Raises FormatError if it has no record, and what is wrong with the checkpoint; to `recompute`, what `build` raises.
    """
    folder, threads = Path(folder).expanduser().absolute(), thread_count(threads)
    record = merge_record(folder)
    if record is None:
        raise FormatError(
            f"{folder} has no {MERGE} that can be read", hint="`pv build --from-mergekit` writes it"
        )
    with Checkpoint(folder) as weights:
        ours = fingerprint(weights, threads=threads, progress=stage(progress, "hashing the checkpoint"))
        files = None if weights_only else tuple(_files(weights, record))
    models = tuple(_model(one, seen_from or Path.cwd(), progress) for one in record["models"])
    found, expected = table_id(ours), record["weights"]
    differing: tuple[Difference, ...] = ()
    if recompute:
        again = _again(folder, record, seen_from, threads, progress)
        expected = table_id(again)
        differing = tuple(differences(again, ours, owner="the merge"))
    return MergeVerdict(
        folder, str(record["config"].get("merge_method")), found, expected, recompute, len(ours), differing,
        files, models, tuple(_unknown(record, models, recompute)),
    )  # fmt: skip


def _files(weights: Checkpoint, record: Mapping[str, Any]) -> Iterator[Difference]:
    """What is other beside the weights than was written there."""
    sums = record.get("files")
    if not isinstance(sums, dict):  # of an earlier pv
        sums = {}
    for name, digest in sorted(sums.items()):
        try:
            data = read_bounded(weights.path / name, 1 << 30) if is_plain_file_name(name) else b""
        except (OSError, FormatError):
            yield Difference(name, "is missing")
            continue
        if hashlib.sha256(data).hexdigest() != digest:
            yield Difference(name, "differs")
    if sums:
        yield from strangers(weights, {*sums, MERGE})


def _model(said_of: Any, seen_from: Path, progress: Report | None) -> MergedFrom:
    """Whether a model is what it was: only where its files were hashed then, and are on this machine now."""
    match said_of:
        case {"model": str(name), "files": dict(sums)}:
            commit, path = said_of.get("commit"), seen_from / Path(name).expanduser()
            folder = path.parent if path.is_file() else path
            if not folder.is_dir():
                return MergedFrom(name, commit, None, "is not here")
            said(progress, f"hashing {name}")
            for file, digest in sorted(sums.items()):
                if not is_plain_file_name(file):
                    raise FormatError(f"{MERGE}: {file!r} is no file of {name}", hint="merge again")
                try:
                    with closing(FileRanges(folder / file)) as ranges:
                        if file_hash(ranges) != digest:
                            return MergedFrom(name, commit, False, f"{file} differs from what was merged")
                except (OSError, PvError):
                    return MergedFrom(name, commit, False, f"{file} is missing")
            return MergedFrom(name, commit, True, "the files that were merged")
        case {"model": str(name)}:
            commit = said_of.get("commit")
            why = f"commit {commit[:12]}" if isinstance(commit, str) else "its files were not hashed"
            return MergedFrom(name, commit, None, why)
    raise FormatError(f"{MERGE}: a model is not described as one", hint="merge again")


def _again(
    folder: Path, record: Mapping[str, Any], seen_from: Path | None, threads: int, progress: Report | None
) -> dict[str, TensorRow]:
    document = read_document(folder / CONFIG)
    if document.config != record["config"]:
        raise FormatError(
            f"{folder / CONFIG} is not the document that {MERGE} records",
            hint="merge again, into a new folder",
        )
    output = record.get("output") or {}
    with opened(
        document,
        seen_from=seen_from,
        dtype=output.get("dtype"),
        rounding=output.get("rounding"),
        progress=progress,
    ) as plan:
        return table(plan, threads=threads, progress=stage(progress, "merging again"))


def _unknown(record: Mapping[str, Any], models: tuple[MergedFrom, ...], recomputed: bool) -> Iterator[str]:
    if not recomputed:
        yield "that these models give these weights (--recompute merges them again)"
        if any(one.same is None for one in models):
            yield "that the models are still what was merged (--hash, when it was built, notes their files' sums)"
    if not isinstance(record.get("files"), dict):
        yield "the files beside the weights: this pv-merge.json, of an earlier pv, has no sums of them"
    if recomputed and record.get("engine") != ENGINE:
        yield f"that engine {record.get('engine')}, which made it, gives what engine {ENGINE} gives"
