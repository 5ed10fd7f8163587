"""Build: persona -> checkpoint, a deterministic function.

The same persona and engine give the same bytes on any machine, for any thread count; shard size moves
tensors between files and changes none. The result has exactly the base's keys, and its side files.
A folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pv.registry import ids
from pv.registry.disk import durable
from pv.registry.disk.safetensors import header_bytes
from pv.registry.errors import BaseMismatch, FormatError, IntegrityError, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import INDEX, is_side_file
from pv.vecstore.checkpoints.fingerprint import Progress
from pv.vecstore.merge.combine import apply, check_weights
from pv.vecstore.merge.delta import delta, touches
from pv.vecstore.packs.codecs.layout import LAYOUTS, Raw
from pv.vecstore.tensors.float_environment import check
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Built", "Shard", "build", "build_id", "plan", "side_file", "table"]

SHARD_BYTES = 5_000_000_000
BLOCK = 1 << 20  # elements rounded at a time: no result depends on it
OUTPUT_DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


@dataclass(frozen=True, slots=True)
class Shard:
    """One weight file to be: its name, and for each tensor (dtype, shape, bytes) in file order."""

    file: str
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]]


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made. `weights` is the id of the tensor table: the same however it is sharded."""

    build: str
    weights: str
    files: Mapping[str, str]
    tensors: int
    touched: int
    changed: int
    nbytes: int


def build_id(persona: Persona) -> str:
    return ids.build_id(persona.id, persona.engine)


def plan(persona: Persona, base: Base, *, shard_bytes: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """Which tensors go into which file. Greedy in name order, as loaders expect."""
    groups: list[dict[str, tuple[str, tuple[int, ...], int]]] = [{}]
    room = shard_bytes
    for name in sorted(base.manifest.tensors):
        row = base.manifest.tensors[name]
        dtype = _output_dtype(persona, row)
        nbytes = row.numel * LAYOUTS[dtype].itemsize
        if groups[-1] and nbytes > room:
            groups.append({})
            room = shard_bytes
        groups[-1][name] = (dtype, row.shape, nbytes)
        room -= nbytes
    if len(groups) == 1:
        return (Shard("model.safetensors", groups[0]),)
    return tuple(
        Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group)
        for number, group in enumerate(groups, 1)
    )


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

    Every base tensor is hashed as it is read. Raises BaseMismatch, CorruptPack, StorageError, and
    IntegrityError if a weight would leave the finite numbers.
    """
    _check(persona, base)
    beside = {name: side_file(name, data, persona) for name, data in side_files.items()}
    shards = plan(persona, base, shard_bytes=shard_bytes)
    total = sum(nbytes for shard in shards for _, _, nbytes in shard.tensors.values())
    done = touched = changed = 0
    rows: dict[str, TensorRow] = {}
    sums: dict[str, str] = {}
    with _fresh_folder(out, force=force) as folder:
        for shard in shards:
            with _shard_file(folder / shard.file, shard, sums) as write:
                for name, raw, moved in _finished(persona, base, vectors, shard, threads):
                    dtype, shape, nbytes = shard.tensors[name]
                    write(raw.data.cast("B"))
                    rows[name] = TensorRow(dtype, shape, ids.tensor_id(dtype, shape, raw.data))
                    touched += moved is not None
                    changed += moved or 0
                    done += nbytes
                    if progress:
                        progress(done, total)
        if len(shards) > 1:
            (folder / INDEX).write_bytes(_index(shards, total))
        for name, data in beside.items():
            (folder / name).write_bytes(data)
        (folder / "persona.json").write_bytes(persona.to_bytes())
    weights = ids.base_id((name, row.dtype, row.shape, row.id) for name, row in rows.items())
    return Built(build_id(persona), weights, sums, len(rows), touched, changed, total)


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
    (shard,) = plan(persona, base, shard_bytes=1 << 62)
    total = sum(nbytes for _, _, nbytes in shard.tensors.values())
    done = 0
    rows: dict[str, TensorRow] = {}
    for name, raw, _ in _finished(persona, base, vectors, shard, threads):
        dtype, shape, nbytes = shard.tensors[name]
        rows[name] = TensorRow(dtype, shape, ids.tensor_id(dtype, shape, raw.data))
        done += nbytes
        if progress:
            progress(done, total)
    return rows


def _check(persona: Persona, base: Base) -> None:
    if persona.base != base.manifest.id:
        raise BaseMismatch(f"the persona is for base {persona.base[:12]}, this is {base.manifest.id[:12]}")
    check_weights(persona.combine, {name: b.weight for name, b in persona.behaviours.items()})


def _finished(
    persona: Persona, base: Base, vectors: Mapping[str, Vector], shard: Shard, threads: int
) -> Iterator[tuple[str, Raw, int | None]]:
    """Name, bits and number of moved elements (None: no vector touches it) of a shard's tensors, in order."""

    def work(job: tuple[str, str]) -> tuple[str, Raw, int | None]:
        check()
        return job[0], *_tensor(persona, base, vectors, *job)

    jobs = [(name, dtype) for name, (dtype, _, _) in shard.tensors.items()]
    yield from ordered_map(work, jobs, threads=threads)


def _output_dtype(persona: Persona, row: TensorRow) -> str:
    """The base's own, unless the persona asks for another float; integers are never touched."""
    if persona.output.dtype == "base" or row.dtype not in FLOATS:
        return row.dtype
    return OUTPUT_DTYPES[persona.output.dtype]


def _tensor(
    persona: Persona, base: Base, vectors: Mapping[str, Vector], name: str, dtype: str
) -> tuple[Raw, int | None]:
    """The bits of one finished tensor, and how many elements moved (None: no vector touches it)."""
    own = base.manifest.tensors[name].dtype
    raw = base.verified(name)
    moved = delta(persona, vectors, name) if touches(persona, vectors, name) else None
    if moved is None and own == dtype:
        return raw, None
    if moved is not None and own not in FLOATS:
        raise IntegrityError(f"tensor {name!r} is {own}: a vector cannot be added to it")

    out = np.empty(len(raw), LAYOUTS[dtype].storage)
    for start in range(0, len(raw), BLOCK):
        part = slice(start, start + BLOCK)
        x = to_f32(raw[part], own)
        if moved is not None:
            x = apply(x, moved[part])
        out[part] = round_to(
            x, dtype, persona.output.rounding, start=start, seed=persona.output.seed, name=name
        )
        if _left_the_finite(raw[part], own, out[part], dtype):
            raise IntegrityError(
                f"tensor {name!r} would hold infinite or undefined weights as {dtype}",
                hint="use smaller weights, or a wider --dtype",
            )
    return out, None if moved is None else int(np.count_nonzero(moved))


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


@contextmanager
def _shard_file(
    path: Path, shard: Shard, sums: dict[str, str]
) -> Iterator[Callable[[memoryview | bytes], None]]:
    digest = hashlib.sha256()
    with path.open("xb") as file:

        def write(data: memoryview | bytes) -> None:
            file.write(data)
            digest.update(data)

        write(header_bytes(shard.tensors, {"format": "pt"}))  # loaders insist on this word
        yield write
        file.flush()
        durable.fsync_file(file.fileno())
    sums[path.name] = digest.hexdigest()


def _index(shards: tuple[Shard, ...], total: int) -> bytes:
    where = {name: shard.file for shard in shards for name in shard.tensors}
    document = {"metadata": {"total_size": total}, "weight_map": where}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


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
        config[key] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[persona.output.dtype]
    return json.dumps(config, indent=2).encode() + b"\n"
