"""Merge: a mergekit document to a checkpoint folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pv.registry import canonical
from pv.registry.disk.ranges import Ranges
from pv.registry.dtypes import OUTPUTS
from pv.registry.errors import IntegrityError, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import ENGINE
from pv.vecstore.checkpoints.side_files import MERGE
from pv.vecstore.merge.compute import compute
from pv.vecstore.merge.folder import Finished, Write, Written, side_file, write_folder
from pv.vecstore.mergekit.folders import FolderVector
from pv.vecstore.mergekit.plan import Merge
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.formats import FLOATS
from pv.vecstore.tensors.parallel import ordered_map

__all__ = ["CONFIG", "file_hash", "hashes", "merge", "table"]

CONFIG = "mergekit_config.yml"
"""The document, beside the weights, where mergekit puts it too."""
_PIECE = 1 << 22  # elements
_HASHED = 1 << 22


def merge(
    plan: Merge,
    out: Path,
    *,
    hashed: Mapping[str, Mapping[str, str]] | None = None,
    threads: int = 2,
    force: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write the merge to the folder `out`. `hashed`: sums of the input files, {model: {file: SHA-256}}, to be noted.

    Raises UsageError for a folder that is not empty, IntegrityError for a weight that is not finite, StorageError.
    """
    for model in plan.models:
        where = model.place.where
        if isinstance(where, Path) and out.resolve() in (where.resolve(), where.resolve().parent):
            raise UsageError(f"{out} holds {model.name}, which is merged", hint="name another folder with -o")
    written = plan.output.dtype
    word = None if written == "base" else OUTPUTS[written].torch
    beside = {name: side_file(name, data, word) for name, data in plan.side_files.items()}

    def and_what_it_is(weights: str) -> dict[str, bytes]:
        others = {**beside, CONFIG: plan.document.text}
        return {**others, MERGE: canonical.dumps(_record(plan, weights, hashed, others))}

    return write_folder(
        out,
        plan.shards,
        lambda name, dtype, write: _tensor(plan, name, dtype, write),
        and_what_it_is,
        threads=threads,
        force=force,
        progress=progress,
        what=_id(plan),
    )


def _id(plan: Merge) -> str:
    """Of the same merge of the same files, as far as is known without reading them: work on it may be gone on with."""
    inputs = [[model.name, [file.stamp for file in model.files]] for model in plan.models]
    made_from = [version("personavec"), ENGINE, plan.document.config, plan.output.to_json(), inputs]
    return sha256(b"pv:merge:1\n" + canonical.dumps(made_from)).hexdigest()


def _record(
    plan: Merge,
    weights: str,
    hashed: Mapping[str, Mapping[str, str]] | None,
    others: Mapping[str, bytes],
) -> dict[str, Any]:
    """What makes the same bytes again."""
    models = []
    for model in plan.models:
        one: dict[str, Any] = {"model": model.name, "bytes": model.nbytes}
        if "revision" in model.place.origin:
            one["commit"] = model.place.origin["revision"]
        if hashed is not None:
            one["files"] = dict(hashed[model.name])
        models.append(one)
    return {
        "schema": 1,
        "kind": "merge",
        "pv": version("personavec"),
        "engine": ENGINE,
        "config": plan.document.config,
        "models": models,
        "output": plan.output.to_json(),
        "weights": weights,
        "files": {name: sha256(data).hexdigest() for name, data in others.items()},
    }


def table(plan: Merge, *, threads: int, progress: Progress | None = None) -> dict[str, TensorRow]:
    """The tensor table of what `merge` would write. Nothing is written; raises the same."""
    specs = {name: spec.dtype for shard in plan.shards for name, spec in shard.tensors.items()}
    advance = counted(progress, sum(shard.nbytes for shard in plan.shards))
    rows = {}
    for one in ordered_map(
        lambda name: _tensor(plan, name, specs[name], lambda _: None), sorted(specs), threads=threads
    ):
        rows[one.name] = one.row
        advance(one.row.nbytes)
    return rows


def hashes(plan: Merge) -> dict[str, dict[str, str]]:
    """SHA-256 of every weight file that is merged, by model."""
    return {model.name: {file.name: file_hash(file) for file in model.files} for model in plan.models}


def file_hash(file: Ranges) -> str:
    digest = sha256()
    for start in range(0, file.size, _HASHED):
        digest.update(file.read(start, min(_HASHED, file.size - start), stretch=(0, file.size)))
    return digest.hexdigest()


def _tensor(merge: Merge, name: str, dtype: str, write: Write) -> Finished:
    if merge.base.manifest.tensors[name].dtype not in FLOATS:
        _check_same(merge, name)
    return compute(merge.personas[name], merge.base, merge.vectors, name, dtype, write)


def _check_same(merge: Merge, name: str) -> None:
    """A tensor that is not floats cannot be merged: it must be the same in all models."""
    for vector in merge.vectors.values():
        if not isinstance(vector, FolderVector) or name not in vector.aligned.specs:
            continue
        if vector.aligned.read(name) != merge.base.checkpoint.read(name):
            raise IntegrityError(
                f"tensor {name!r} is {merge.base.manifest.tensors[name].dtype}, which cannot be merged, and "
                f"differs between {merge.base.model} and {vector.model}",
                hint="give the models the same one before they are merged",
            )
