"""Capture of a PEFT adapter: what it does to the base's weights, as a `lora` vector (all DoRA: `float`).

    LoRA, rsLoRA                  s * B A          the factors, bit for bit
    a Conv1D's, an embedding's    s * (B A)^T      the factors, transposed
    lora_bias                     s * bias         as factors of rank 1
    DoRA                          m / |W + s B A| * (W + s B A) - W          dense, in fp32
    modules_to_save, bias=        the tensor that takes the base's place, bit for bit

(Hu et al., ICLR 2022; Kalajdzievski, arXiv:2312.03732; Liu et al., ICML 2024.) What is not exactly one of
these is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry.errors import CheckpointRefused, UsageError
from pv.registry.manifest import VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.packs.read import Reference
from pv.vecstore.packs.write import Part
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.adapters.file import Adapter, Low, flipped, is_base, open_adapter
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.encode import write_vector
from pv.vecstore.vectors.encodings import lora
from pv.vecstore.vectors.spool import Spool

__all__ = ["capture_adapter"]


def capture_adapter(
    path: Path, base: Base, packs: PackStore, *, threads: int = 2, progress: Progress | None = None
) -> tuple[VectorManifest, dict[str, Any]]:
    """Keep an adapter as a `lora` vector, or `float` if it is all DoRA; returns its manifest, and facts of its origin.

    Raises CheckpointRefused for one that does not fit the base or that pv does not understand.
    """
    with open_adapter(path, base) as adapter, Spool(packs.tmp) as spool:
        names = sorted(adapter.changes)
        parts: list[Part] = []
        dense: list[str] = []
        replaced: list[str] = []
        total, done = sum(base.manifest.tensors[name].nbytes for name in names), 0

        def made(name: str) -> tuple[str, dict[str, Array]]:
            return name, _arrays(adapter, base, name)

        for name, arrays in ordered_map(made, names, threads=threads):
            for part, array in arrays.items():
                reference = _near(base, name, array) if part == "ft" else None
                parts.append(spool.part(name, part, array, reference))
            dense += [name] if "tau" in arrays else []
            replaced += [name] if "ft" in arrays else []
            done += base.manifest.tensors[name].nbytes
            if progress:
                progress(done, total)
        if not parts:
            raise UsageError(f"{path} changes nothing in this base: there is nothing to commit")
        encoding = (
            "float" if all(part.part == "tau" for part in parts) else "lora"
        )  # nothing is left of factors
        manifest = write_vector(parts, base.manifest.id, encoding, packs, threads=threads)
    return manifest, _facts(adapter, manifest, dense, replaced)


def _near(base: Base, name: str, array: Array) -> Reference | None:
    """What a replaced tensor is packed against: the base's own, if they have one dtype."""
    own = base.manifest.tensors[name]
    return (lambda start, stop: base.raw(name, start, stop)) if array.dtype == own.dtype else None


def _facts(
    adapter: Adapter, manifest: VectorManifest, dense: list[str], replaced: list[str]
) -> dict[str, Any]:
    """What is needed to write the adapter out again, and to see where it came from."""
    config = {
        key: value for key, value in adapter.config.document.items() if value not in (None, False, {}, [])
    }
    origin = str(config.get("base_model_name_or_path", ""))
    if origin.startswith(("/", "~", ".")) or "\\" in origin:  # a place on somebody's disk
        del config["base_model_name_or_path"]
    facts: dict[str, Any] = {
        "config": config,
        "low_rank": len(manifest.tensors) - len(dense) - len(replaced),
        "dense": dense,
        "replaced": replaced,
        "transposed": sorted(n for n, c in adapter.changes.items() if c.low and c.low.crossed),
    }
    if any(adapter.renamed):
        facts["renamed"] = list(adapter.renamed)
    if adapter.notes:
        facts["notes"] = list(adapter.notes)
    return facts


def _arrays(adapter: Adapter, base: Base, name: str) -> dict[str, Array]:
    """The parts of one tensor of the vector; none if nothing moves."""
    change = adapter.changes[name]
    magnitude = change.low.magnitude if change.low else None
    whole = adapter.array(change.whole) if change.whole is not None else None
    own = base.tensor(name) if whole is not None or magnitude is not None else None
    if whole is not None and is_base(whole, base, name):
        whole = None
    if change.low is None and change.bias is None:
        return {} if whole is None else {"ft": _finite(adapter, name, whole)}
    if change.bias is not None:
        parts = _bias(adapter, *change.bias)
    else:
        assert change.low is not None
        parts = _low(adapter, change.low)
    for part in parts.values():
        _finite(adapter, name, part)
    if own is None or (whole is None and magnitude is None):
        return parts
    shape = own.row.shape
    moved = lora.tau(parts, lambda: own.f32, shape)
    start = own.f32 if whole is None else to_f32(whole.raw, whole.dtype)
    if magnitude is None:
        tau = (start.astype(np.float64) - own.f32 + moved).astype(np.float32)
    else:
        assert change.low is not None
        axis = 0 if change.low.crossed else 1
        tau = _dora(own.f32, start, moved, adapter.f32(magnitude).reshape(-1), shape, axis)
    return {"tau": _finite(adapter, name, Array("F32", shape, tau.view("<u4")))}


def _low(adapter: Adapter, low: Low) -> dict[str, Array]:
    a, b = adapter.array(low.a), adapter.array(low.b)
    if low.crossed:
        a, b = flipped(b), flipped(a)
    return lora.factors(a, b, adapter.config.scale(low.module))


def _bias(adapter: Adapter, module: str, key: str) -> dict[str, Array]:
    """(n,) as one row: 1 times the bias, scaled."""
    bias = adapter.array(key)
    one = Array("F32", (1, 1), np.ones(1, np.float32).view("<u4"))
    return lora.factors(Array(bias.dtype, (1, *bias.shape), bias.raw), one, adapter.config.scale(module))


def _dora(base: F32, start: F32, moved: F32, magnitude: F32, shape: tuple[int, ...], axis: int) -> F32:
    """tau of DoRA (Liu et al. 2024, eq. 5), all flat; the norm is over what enters a feature: along `axis`."""
    tau = np.empty(base.size, np.float32)
    columns = shape[1]
    squares = np.zeros(shape[1 - axis])
    for at in _slices(base.size, columns):
        rows = (start[at].astype(np.float64) + moved[at]).reshape(-1, columns)
        sums = (rows * rows).sum(axis=axis)
        if axis == 1:
            squares[at.start // columns : at.start // columns + len(sums)] = sums
        else:
            squares += sums
    with np.errstate(all="ignore"):
        factor = magnitude.astype(np.float64) / np.sqrt(squares)
    for at in _slices(base.size, columns):
        rows = (start[at].astype(np.float64) + moved[at]).reshape(-1, columns)
        first = at.start // columns
        scale = factor[first : first + len(rows), None] if axis == 1 else factor[None]
        tau[at] = (scale * rows - base[at].reshape(-1, columns)).reshape(-1)
    return tau


def _slices(size: int, columns: int) -> Iterator[slice]:
    step = max(1, (1 << 20) // max(1, columns)) * columns
    for low in range(0, size, max(1, step)):
        yield slice(low, min(low + step, size))


def _finite(adapter: Adapter, name: str, array: Array) -> Array:
    if not np.isfinite(to_f32(array.raw, array.dtype)).all():
        raise CheckpointRefused(
            f"{adapter.path} holds infinite or undefined numbers for {name!r}", hint="was training stable?"
        )
    return array
