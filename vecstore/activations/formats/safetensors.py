"""The plain form: one tensor a site, under its name, in safetensors; every site and every rank.

Metadata: `pv_steering`, the id of the base it was measured on, and `coefficient`. Tensors of another float dtype
than F32 are read too.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pv.registry.disk import durable
from pv.registry.disk.safetensors import TensorFile, header_bytes, is_usable_name
from pv.registry.errors import BaseMismatch, FormatError, UsageError
from pv.vecstore.activations.formats.values import (
    Directions,
    Model,
    Read,
    as_f32,
    file_bytes,
    kept,
    to_write,
)
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32

__all__ = ["encode", "read", "recognise", "write"]

MARK, COEFFICIENT = "pv_steering", "coefficient"


def recognise(path: Path) -> bool:
    """Raises FormatError for a safetensors file that is broken."""
    with path.open("rb") as opened:
        if opened.read(9)[8:] != b"{":
            return False
    with TensorFile(path) as file:
        return MARK in file.metadata


def read(path: Path, model: Model) -> Read:
    """Raises FormatError, BaseMismatch for a vector of another base, NotFoundError."""
    file_bytes(path)  # a file, and not too long
    with TensorFile(path) as file:
        if MARK not in file.metadata:
            raise FormatError(
                f"{path} is safetensors, and no steering vector: it has no {MARK!r} in its metadata",
                hint="a checkpoint's task vector is committed with pv commit",
            )
        base = file.metadata[MARK]
        if model.base and base and base != model.base:
            raise BaseMismatch(
                f"{path} was measured on base {base[:12]}, and this is {model.base[:12]}",
                hint="measure it again on this base",
            )
        found = {}
        for name, entry in file.entries.items():
            if entry.dtype not in FLOATS:
                raise FormatError(f"{path}: {name[:80]!r} is {entry.dtype}: a direction is F32")
            raw = np.frombuffer(file.read(name), storage_dtype(entry.dtype)).reshape(entry.shape)
            found[name] = as_f32(to_f32(raw, entry.dtype), f"{path}: {name[:80]!r}")
        directions, notes = kept(found, path)
        return Read(directions, _coefficient(file, path), notes, {"base": base})


def write(path: Path, directions: Directions, model: Model, *, coefficient: float = 1.0) -> None:
    """Raises UsageError, StorageError."""
    durable.write_file(path, encode(directions, model, coefficient=coefficient))


def encode(directions: Directions, model: Model, *, coefficient: float = 1.0) -> bytes:
    """The bytes of the file."""
    if not math.isfinite(coefficient):
        raise UsageError("the coefficient is not a finite number")
    rows = {site: one.astype("<f4", copy=False) for site, one in sorted(to_write(directions).items())}
    if unusable := [site for site in rows if not is_usable_name(site)]:
        raise UsageError(f"{unusable[0][:80]!r} cannot name a site")
    tensors = {site: ("F32", one.shape, one.nbytes) for site, one in rows.items()}
    head = header_bytes(tensors, {MARK: model.base, COEFFICIENT: repr(float(coefficient))})
    return head + b"".join(one.tobytes() for one in rows.values())


def _coefficient(file: TensorFile, path: Path) -> float | None:
    if COEFFICIENT not in file.metadata:
        return None
    try:
        value = float(file.metadata[COEFFICIENT][:40])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FormatError(f"{path}: the coefficient is {file.metadata[COEFFICIENT][:40]!r}")
    return value
