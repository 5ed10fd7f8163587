"""Small true checkpoints, bases and vectors for tests of the vector store, from random integers.

`from support.vectors import BASE, base_at, save, store`. Tensors are bits (`Array`), made by the engine's own
generator with integer operations: the same arguments give the same bytes on every machine, without torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry.combine import Combine
from pv.registry.disk.safetensors import header_bytes
from pv.registry.dtypes import DTYPES
from pv.registry.manifest import TensorRow, VectorManifest
from pv.registry.packs.store import PackStore
from pv.registry.persona import ENGINE, Behaviour, Output, Persona, Term
from pv.vecstore.checkpoints.checkpoint import INDEX, Checkpoint
from pv.vecstore.merge.build import Built, build
from pv.vecstore.packs.write import Part, write_pack
from pv.vecstore.tensors.array import F32, Array, Raw, storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.philox import bits32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors import encodings
from pv.vecstore.vectors.base import Base, base_manifest
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.vector import Vector

__all__ = [
    "FLOATING",
    "WHOLE",
    "Parts",
    "Tensors",
    "World",
    "array",
    "base_at",
    "behaviour",
    "captured",
    "decoded",
    "delta",
    "files_below",
    "kept",
    "nothing_stored",
    "nudged",
    "part_of",
    "persona",
    "put",
    "random_f32",
    "read_all",
    "same",
    "same_bits",
    "save",
    "size_of",
    "small_base",
    "store",
    "values",
    "write_safetensors",
]

Tensors = Mapping[str, Array]
Parts = Mapping[str, Array]
WHOLE = 5_000_000_000  # shard_bytes, for a checkpoint of one file


def random_f32(name: str, n: int, *, least: int = 110, spread: int = 14, seed: int = 1) -> F32:
    """(n,) fp32 of either sign, biased exponents least ... least + spread - 1 (110: about 1e-5)."""
    bits = bits32(seed, name, 0, n)
    exponent = np.uint32(least) + bits32(seed, f"{name} exponent", 0, n) % np.uint32(spread)
    return ((bits & np.uint32(0x807FFFFF)) | exponent << np.uint32(23)).view(np.float32)


def array(name: str, dtype: str, *shape: int, seed: int = 1) -> Array:
    """Ordinary weights for a float dtype, any integers for the others."""
    n = int(np.prod(shape, dtype=np.int64))
    if dtype in ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"):
        raw = round_to(random_f32(name, n, seed=seed), dtype, "nearest", seed=0, name="", start=0)
    else:
        raw = bits32(seed, name, 0, n).astype(storage_dtype(dtype))
    return Array(dtype, shape, raw.view(storage_dtype(dtype)))


def small_base(seed: int = 1) -> dict[str, Array]:
    """Every sort of tensor that a checkpoint has: four floats, integers, a scalar, an empty one."""
    return {
        "model.embed_tokens.weight": array("embed", "BF16", 40, 12, seed=seed),
        "model.layers.0.mlp.up_proj.weight": array("up 0", "BF16", 24, 12, seed=seed),
        "model.layers.0.self_attn.q_proj.weight": array("q 0", "F16", 12, 12, seed=seed),
        "model.layers.1.mlp.up_proj.weight": array("up 1", "BF16", 24, 12, seed=seed),
        "model.layers.1.self_attn.q_proj.weight": array("q 1", "F32", 12, 12, seed=seed),
        "model.norm.weight": array("norm", "BF16", 12, seed=seed),
        "model.position_ids": array("positions", "I64", 1, 16, seed=seed),
        "model.scale": array("scale", "F32", seed=seed),
        "model.unused": array("unused", "BF16", 0, 5, seed=seed),
    }


FLOATING = [name for name, tensor in small_base().items() if DTYPES[tensor.dtype].is_float]


def nudged(
    tensors: Tensors, seed: int, *, share: int = 4, only: Sequence[str] | None = None
) -> dict[str, Array]:
    """A fine-tune: in each float tensor (or those named) one element in `share` is moved by a few steps."""
    made = dict(tensors)
    for name, old in tensors.items():
        if (only is None and not DTYPES[old.dtype].is_float) or (only is not None and name not in only):
            continue
        draw = bits32(seed, f"nudge {name}", 0, old.raw.size)
        step = (draw >> np.uint32(8)) % np.uint32(5)
        step[draw % np.uint32(share) != 0] = 0
        made[name] = Array(old.dtype, old.shape, old.raw + step.astype(old.raw.dtype))
    return made


def values(tensor: Array) -> F32:
    """Flat fp32."""
    return to_f32(tensor.raw, tensor.dtype)


def same(a: Raw, b: Raw) -> bool:
    """Same storage, same shape, same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same_bits(a: Array, b: Array) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.raw.tobytes() == b.raw.tobytes()


def write_safetensors(path: Path, tensors: Tensors) -> Path:
    entries = {name: (t.dtype, t.shape, t.raw.nbytes) for name, t in tensors.items()}
    path.write_bytes(
        header_bytes(entries, {"format": "pt"}) + b"".join(t.raw.tobytes() for t in tensors.values())
    )
    return path


def save(folder: Path, tensors: Tensors, *, shards: int = 1) -> Path:
    """A checkpoint folder: weights in one file or in shards with an index, and a config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["Tiny"], "dtype": "bfloat16"}')
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return folder
    where = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        write_safetensors(folder / file, part)
        where.update(dict.fromkeys(part, file))
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    return folder


def read_all(path: Path) -> dict[str, Array]:
    """Every tensor of a checkpoint, in name order."""
    with Checkpoint(path) as checkpoint:
        return {
            name: Array(spec.dtype, spec.shape, _raw(checkpoint, name))
            for name, spec in checkpoint.specs.items()
        }


def _raw(checkpoint: Checkpoint, name: str) -> Raw:
    return np.frombuffer(checkpoint.read(name), storage_dtype(checkpoint.specs[name].dtype))


def base_at(path: Path) -> Base:
    """The checkpoint at `path` as a base, open."""
    checkpoint = Checkpoint(path)
    manifest = base_manifest(checkpoint, {"kind": "path", "path": str(path)}, (), pinned=False)
    return Base(manifest, checkpoint, checkpoint.close)


def store(root: Path) -> PackStore:
    """An empty pack store below `root`."""
    for folder in ("packs", "tmp", "quarantine"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return PackStore(root)


def nothing_stored(packs: PackStore) -> bool:
    return list(packs.ids()) == [] and list(packs.tmp.iterdir()) == []


def captured(folder: Path, tensors: Tensors, base: Base, packs: PackStore) -> VectorManifest:
    """Save a checkpoint and capture it."""
    with Checkpoint(save(folder, tensors)) as checkpoint:
        return capture(checkpoint, base, packs)


def kept(
    base: Base, packs: PackStore, deltas: Mapping[str, F32], encoding: str = "float", dtype: str = "F32"
) -> str:
    """Keep deltas and return the vector's id; without loss by default."""
    options = {"dtype": dtype} if encoding == "float" else {}
    return encode_vector(deltas, base.manifest, packs, encoding=encoding, options=options).id


def size_of(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def delta(shape: tuple[int, ...], seed: int = 1, *, spread: int = 14) -> F32:
    return random_f32("delta", size_of(shape), spread=spread, seed=seed)


def no_base() -> F32:
    raise AssertionError("this encoding does not look at the base")


def decoded(encoding: str, parts: Parts, shape: tuple[int, ...], base: Callable[[], F32] = no_base) -> F32:
    return encodings.decode(encoding, parts, base, shape)


def part_of(name: str, part: str, array: Array) -> Part:
    return Part(name, part, array.dtype, array.shape, lambda start, stop: array.raw[start:stop])


def put(packs: PackStore, base: str, encoding: str, parts: Sequence[Part]) -> str:
    """A vector of ready-made parts, as somebody else's encoder may have made it; returns its id."""

    def manifest(rows: dict[tuple[str, str], TensorRow]) -> VectorManifest:
        tensors: dict[str, dict[str, TensorRow]] = {}
        for (name, part), row in rows.items():
            tensors.setdefault(name, {})[part] = row
        return VectorManifest(base, encoding, tensors)

    with packs.writer() as out:
        made = write_pack(out.file, parts, manifest)
        out.commit(made.id)
    return made.id


def behaviour(weight: float, *vectors: str, modules: Mapping[str, float] | None = None) -> Behaviour:
    return Behaviour(weight, tuple(Term(1.0, vector) for vector in vectors), modules)


def persona(
    base: Base,
    behaviours: Mapping[str, Behaviour],
    combine: Combine | None = None,
    *,
    dtype: str = "base",
    rounding: str = "stochastic",
    seed: int = 0,
    engine: int = ENGINE,
) -> Persona:
    output = Output(dtype, rounding, seed)
    return Persona(base.manifest.id, behaviours, combine or Combine.of("add"), output, engine)


def files_below(folder: Path) -> set[str]:
    """Every file and folder below, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclass(frozen=True)
class World:
    """A base, a fine-tune captured as `exact`, and two float vectors, opened; a folder to build in."""

    base: Base
    packs: PackStore
    tuned: Tensors
    exact: str
    a: str
    b: str
    deltas: Mapping[str, Mapping[str, F32]]
    vectors: Mapping[str, Vector]
    out: Path

    def build(self, persona: Persona, name: str = "out", **options: Any) -> Built:
        return build(persona, self.base, self.vectors, self.out / name, **{"side_files": {}, **options})

    def of(self, behaviours: Mapping[str, Behaviour], rule: Combine | None = None, **output: Any) -> Persona:
        return persona(self.base, behaviours, rule, **output)

    def weights(self, behaviours: Mapping[str, Behaviour], rule: Combine | None = None, **output: Any) -> str:
        """The id of the built weights; the folder is not kept in the way of the next."""
        return self.build(self.of(behaviours, rule, **output), f"n{len(list(self.out.iterdir()))}").weights

    def read(self, name: str = "out") -> dict[str, Array]:
        return read_all(self.out / name)
