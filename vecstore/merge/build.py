"""Build: persona -> checkpoint, a deterministic function.

The same persona and engine give the same bytes on any machine, for any thread count and shard size. The result
has exactly the base's keys, and its side files. A folder appears whole or not at all. Each tensor of the base is
read and hashed once, however many vectors there are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pv.registry import ids
from pv.registry.disk import durable
from pv.registry.dtypes import OUTPUTS
from pv.registry.errors import BaseMismatch, FormatError, IntegrityError, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.fingerprint import table_id
from pv.vecstore.checkpoints.side_files import is_side_file
from pv.vecstore.merge.delta import delta
from pv.vecstore.merge.methods import check_weights
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, index_bytes, plan_shards, write_shard
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import apply
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Built", "build", "build_id", "side_file", "table"]

BLOCK = 1 << 20  # elements rounded at a time: no result depends on it


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. `weights` is the id of the tensor table: the same however it is sharded.

    `files` has the SHA-256 of each weight file; `touched` tensors differ from the base, in `changed` elements.
    """

    build: str
    weights: str
    files: Mapping[str, str]
    tensors: int
    touched: int
    changed: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Finished:
    """One tensor as it is written, and how many elements moved (None: no vector touches it)."""

    name: str
    row: TensorRow
    raw: Raw
    moved: int | None


def build_id(persona: Persona) -> str:
    return ids.build_id(persona.id, persona.engine)


def build(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    out: Path,
    *,
    side_files: Mapping[str, bytes],
    shard_bytes: int = SHARD_BYTES,
    threads: int = 2,
    force: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Write the persona's checkpoint to the folder `out`.

    Raises BaseMismatch, CorruptPack, StorageError, and IntegrityError if a weight would leave the finite numbers.
    """
    _check(persona, base)
    beside = {name: side_file(name, data, persona) for name, data in side_files.items()}
    shards = plan_shards(persona, base.manifest, shard_bytes=shard_bytes)
    total = sum(shard.nbytes for shard in shards)
    advance = counted(progress, total)
    touched = changed = 0
    rows: dict[str, TensorRow] = {}
    sums: dict[str, str] = {}
    with _fresh_folder(out, force=force) as folder:
        for shard in shards:
            with write_shard(folder / shard.file, shard, sums) as write:
                for one in _finished(persona, base, vectors, shard, threads):
                    write(one.raw.data.cast("B"))
                    rows[one.name] = one.row
                    touched += one.moved is not None
                    changed += one.moved or 0
                    advance(one.row.nbytes)
        if len(shards) > 1:
            (folder / INDEX).write_bytes(index_bytes(shards))
        for name, data in beside.items():
            (folder / name).write_bytes(data)
        (folder / "persona.json").write_bytes(persona.to_bytes())
    return Built(build_id(persona), table_id(rows), sums, len(rows), touched, changed, total)


def table(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, TensorRow]:
    """The tensor table of the checkpoint that `build` would write. Nothing is written; raises the same."""
    _check(persona, base)
    (shard,) = plan_shards(persona, base.manifest, shard_bytes=1 << 62)
    advance = counted(progress, shard.nbytes)
    rows: dict[str, TensorRow] = {}
    for one in _finished(persona, base, vectors, shard, threads):
        rows[one.name] = one.row
        advance(one.row.nbytes)
    return rows


def _check(persona: Persona, base: Base) -> None:
    if persona.base != base.manifest.id:
        raise BaseMismatch(f"the persona is for base {persona.base[:12]}, this is {base.manifest.id[:12]}")
    check_weights(persona.combine, {name: b.weight for name, b in persona.behaviours.items()})


def _finished(
    persona: Persona, base: Base, vectors: Mapping[str, Vector], shard: Shard, threads: int
) -> Iterator[_Finished]:
    """A shard's tensors, in order."""

    def work(job: tuple[str, str]) -> _Finished:
        float_environment.check()
        return _tensor(persona, base, vectors, *job)

    jobs = [(name, spec.dtype) for name, spec in shard.tensors.items()]
    yield from ordered_map(work, jobs, threads=threads)


def _tensor(persona: Persona, base: Base, vectors: Mapping[str, Vector], name: str, dtype: str) -> _Finished:
    own = base.tensor(name)
    moved = delta(persona, vectors, name, own)
    if moved is None and own.row.dtype == dtype:
        return _Finished(name, own.row, own.raw, None)
    if moved is not None and own.row.dtype not in FLOATS:
        raise IntegrityError(f"tensor {name!r} is {own.row.dtype}: a vector cannot be added to it")

    raw = own.raw
    out = np.empty(len(raw), storage_dtype(dtype))
    for start in range(0, len(raw), BLOCK):
        part = slice(start, start + BLOCK)
        x = to_f32(raw[part], own.row.dtype)
        if moved is not None:
            x = apply(x, moved[part])
        out[part] = round_to(
            x, dtype, persona.output.rounding, start=start, seed=persona.output.seed, name=name
        )
        if _left_the_finite(raw[part], own.row.dtype, out[part], dtype):
            raise IntegrityError(
                f"tensor {name!r} would hold infinite or undefined weights as {dtype}",
                hint="use smaller weights, or a wider --dtype",
            )
    row = TensorRow(dtype, own.row.shape, ids.tensor_id(dtype, own.row.shape, out.data))
    return _Finished(name, row, out, None if moved is None else int(np.count_nonzero(moved)))


def _left_the_finite(raw: Raw, own: str, out: Raw, dtype: str) -> bool:
    """Whether an element that was finite in the base no longer is."""
    strange = ~np.isfinite(to_f32(out, dtype))
    return bool(strange.any()) and bool(np.isfinite(to_f32(raw[strange], own)).any())


@contextmanager
def _fresh_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place when the body is done, and vanishes if it fails."""
    out = out.resolve()  # what a link points to is replaced, not the link
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ours = _is_built(out)
        if not (force and ours):
            raise UsageError(
                f"{out} exists and is not empty",
                hint="--force replaces a folder that pv built" if ours else "name a new folder with -o",
            )
    with durable.storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = out.parent / f".{out.name}.pv-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
            if out.exists():
                shutil.rmtree(out)
            folder.rename(out)
            durable.fsync_dir(out.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _is_built(folder: Path) -> bool:
    """Whether a folder holds a build and no folders: where a registry lives too, nothing may be replaced."""
    try:
        Persona.from_bytes((folder / "persona.json").read_bytes())
    except (OSError, FormatError):
        return False
    return not any(path.is_dir() for path in folder.iterdir())


def side_file(name: str, data: bytes, persona: Persona) -> bytes:
    """A side file as it goes beside the weights. config.json says which dtype they have, so it follows them.

    Side files come out of a history that may be a stranger's. Raises FormatError.
    """
    if not is_side_file(name):
        raise FormatError(f"{name[:80]!r} cannot lie beside a checkpoint's weights", hint="run `pv fsck`")
    if name != "config.json" or persona.output.dtype == "base":
        return data
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the base's config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError("the base's config.json is not a JSON object")
    for key in [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]:
        config[key] = OUTPUTS[persona.output.dtype].torch
    return json.dumps(config, indent=2).encode() + b"\n"
