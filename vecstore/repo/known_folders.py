"""Folders that were built before: one that is the build already, and those that a build may copy tensors from."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pv.registry.built_folders import BuiltFolder, BuiltTensor
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.seal import seal
from pv.registry.errors import FormatError, PvError
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import INDEX, MAX_INDEX_BYTES, Checkpoint
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.checkpoints.side_files import RECIPE
from pv.vecstore.merge.baked import NOTHING, Baked
from pv.vecstore.merge.build import Built, build_id, files_beside
from pv.vecstore.merge.plan import plan
from pv.vecstore.merge.shards import Shard, index_bytes, plan_id
from pv.vecstore.merge.tensor_key import tensor_keys
from pv.vecstore.merge.weight_file import Finished, Placed
from pv.vecstore.progress import Report, stage

__all__ = ["already_built", "elsewhere", "note_folder"]


def already_built(
    registry: Registry,
    commit: str,
    persona: Persona,
    base: BaseManifest,
    shards: tuple[Shard, ...],
    folder: Path,
    *,
    baked: Baked = NOTHING,
    threads: int,
    progress: Report | None = None,
) -> Built | None:
    """What a folder holds, if it is this very build, in these files, with nothing beside it; None otherwise.

    As it was sealed when it was written here, that is known at once. Otherwise every byte is hashed, if it is known
    what the build gives.
    """
    folder = folder.resolve()
    beside = files_beside(persona, registry.base_files(commit), baked)
    if not _has(folder, RECIPE, beside[RECIPE]):  # nothing there, most of the time
        return None
    if len(shards) > 1:
        beside[INDEX] = index_bytes(shards)
    try:
        sealed = seal(folder)
    except OSError:
        return None
    if sealed.keys() != {*beside, *(shard.file for shard in shards)} or not all(
        _has(folder, name, data) for name, data in beside.items()
    ):
        return None
    what = plan_id(build_id(persona), shards)
    known = registry.folders.at(folder)
    if known is None or known.plan != what or known.seal != sealed:
        known = _hashed(registry, commit, persona, base, shards, folder, baked, threads, progress)
        if known is None or seal(folder) != sealed:
            return None
        known = replace(known, plan=what, seal=sealed)
        registry.folders.note(known)
    return _built(known, build_id(persona))


def note_folder(
    registry: Registry,
    folder: Path,
    persona: Persona,
    base: BaseManifest,
    vectors: Mapping[str, VectorManifest],
    shards: tuple[Shard, ...],
    made: Built,
    baked: Baked = NOTHING,
) -> None:
    """Remember a folder that has been built."""
    keys = tensor_keys(persona, base, vectors, shards, baked)
    tensors = {name: BuiltTensor(keys[name], one.row, one.moved) for name, one in made.finished.items()}
    what = plan_id(made.build, shards)
    registry.folders.note(BuiltFolder(folder.resolve(), what, made.weights, made.files, made.seal, tensors))


@contextmanager
def elsewhere(
    registry: Registry,
    persona: Persona,
    base: BaseManifest,
    vectors: Mapping[str, VectorManifest],
    shards: tuple[Shard, ...],
    folder: Path,
    baked: Baked = NOTHING,
) -> Iterator[Mapping[str, Placed]]:
    """Where its tensors lie already: in `folder`, which it replaces, or in a build that is kept. All to be hashed."""
    keys = tensor_keys(persona, base, vectors, shards, baked)
    found: dict[str, Placed] = {}
    places = {folder.resolve(), *(registry.builds.checkpoint(kept.build) for kept in registry.builds.kept())}
    with ExitStack() as held:
        for known in filter(None, map(registry.folders.at, places)):
            wanted = {n: t for n, t in known.tensors.items() if n not in found and keys.get(n) == t.key}
            if wanted:
                with contextlib.suppress(PvError, OSError):
                    checkpoint = held.enter_context(Checkpoint(known.path))
                    found.update(_placed(checkpoint, wanted))
            if len(found) == len(keys):
                break
        yield found


def _placed(checkpoint: Checkpoint, wanted: Mapping[str, BuiltTensor]) -> Iterator[tuple[str, Placed]]:
    for name, tensor in wanted.items():
        spec = checkpoint.specs.get(name)
        if spec is not None and (spec.dtype, spec.shape) == (tensor.row.dtype, tensor.row.shape):
            yield name, Placed(*checkpoint.place(name), Finished(name, tensor.row, tensor.moved))


def _has(folder: Path, name: str, data: bytes) -> bool:
    try:
        return read_bounded(folder / name, MAX_INDEX_BYTES) == data
    except (OSError, FormatError):
        return False


def _hashed(
    registry: Registry,
    commit: str,
    persona: Persona,
    base: BaseManifest,
    shards: tuple[Shard, ...],
    folder: Path,
    baked: Baked,
    threads: int,
    progress: Report | None,
) -> BuiltFolder | None:
    """What a folder holds, read through; None if that is not what the build is known to give."""
    expected = registry.record(build_id(persona)).get("weights")
    if not isinstance(expected, str):
        return None
    update = stage(progress, f"checking what is in {folder.name}")
    try:
        with Checkpoint(folder) as checkpoint:
            rows = fingerprint(checkpoint, threads=threads, progress=update)
            heads = {shard.file: shard.head for shard in shards}
            if table_id(rows) != expected or any(not _begins(folder / f, head) for f, head in heads.items()):
                return None
        files = {}
        for shard in shards:
            with (folder / shard.file).open("rb") as file:
                files[shard.file] = hashlib.file_digest(file, "sha256").hexdigest()
        vectors = {vector: registry.vector(commit, vector) for vector in persona.task_vectors}
    except (PvError, OSError):
        return None
    keys = tensor_keys(persona, base, vectors, shards, baked)
    held = {vector: manifest.tensors.keys() for vector, manifest in vectors.items()}
    touched = {n for n in rows if n in baked.biases or plan(persona, held, n)}
    tensors = {n: BuiltTensor(keys[n], row, 0 if n in touched else None) for n, row in rows.items()}
    return BuiltFolder(folder, "", expected, files, {}, tensors)


def _begins(path: Path, head: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _built(known: BuiltFolder, build: str) -> Built:
    moved = [tensor.moved for tensor in known.tensors.values()]
    return Built(
        known.weights,
        known.files,
        len(known.tensors),
        sum(one is not None for one in moved),
        sum(one or 0 for one in moved),
        sum(tensor.row.nbytes for tensor in known.tensors.values()),
        build=build,
    )
