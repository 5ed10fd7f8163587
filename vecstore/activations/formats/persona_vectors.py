"""The `.pt` files of persona_vectors: one tensor of [blocks + 1, width], row i from `hidden_states[i]`.

Row 0 is what the embedding puts out; row i is what block i-1, counted from 0, puts out, so every row is one further
down than the block of its number. persona_vectors adds row i there too, after block i-1, and row 0 nowhere. The last
row was measured behind the model's final norm, as transformers' last hidden state is, and is added before it.

The format has no coefficient: directions are scaled by it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from pv.registry.disk import durable
from pv.registry.errors import BaseMismatch, FormatError, UsageError
from pv.vecstore.activations.formats import pt
from pv.vecstore.activations.formats.places import after_block, by_block
from pv.vecstore.activations.formats.values import (
    Directions,
    Model,
    Read,
    file_bytes,
    kept,
    of_one_size,
    to_write,
)

__all__ = ["encode", "read", "recognise", "write"]


def recognise(path: Path) -> bool:
    """Raises FormatError for a broken file."""
    data = file_bytes(path)
    return pt.is_zip(data) and isinstance(pt.load(data, str(path)), pt.Tensor)


def read(path: Path, model: Model) -> Read:
    """Raises FormatError, BaseMismatch for a model with another number of blocks or another width."""
    tensor = pt.load(file_bytes(path), str(path))
    if not isinstance(tensor, pt.Tensor) or tensor.raw.ndim != 2:
        raise FormatError(f"{path} is no file of persona_vectors: that is one tensor of [layers + 1, width]")
    rows = tensor.f32(str(path))
    if len(rows) != len(model.blocks) + 1:
        raise BaseMismatch(
            f"{path} has {len(rows)} rows; for a model of {len(model.blocks)} blocks it has {len(model.blocks) + 1}",
            hint="it was made for another model; the first row is the embedding's",
        )
    of_one_size([rows.shape[1]], path, model)
    found = {
        after_block(row - 1, model, path, f"row {row}"): one
        for row, one in enumerate(rows)
        if row and one.any()
    }
    directions, _ = kept(found, path)
    notes = [
        "row i is read as the output of block i-1, as persona_vectors means it: row 0 is the embedding's"
    ]
    if rows[0].any():
        notes.append("row 0, the embedding's output, was left out: persona_vectors cannot steer there either")
    if rows[-1].any():
        notes.append(
            f"the last row, {model.blocks[-1]}, was measured behind the final norm and is added before it: do not rely "
            "on its length"
        )
    return Read(directions, None, tuple(notes), {"rows": len(rows), "dtype": tensor.dtype})


def write(path: Path, directions: Directions, model: Model, *, coefficient: float = 1.0) -> None:
    """Raises UsageError for a site that is no block's output, StorageError."""
    durable.write_file(path, encode(directions, model, coefficient=coefficient))


def encode(directions: Directions, model: Model, *, coefficient: float = 1.0) -> bytes:
    """The bytes of the file; a block without a direction has a row of zeros."""
    after = by_block(to_write(directions, coefficient), model, "a file of persona_vectors")
    if -1 in after:
        raise UsageError(
            "persona_vectors steers nothing before the first block", hint=f"leave {model.blocks[0]}:input out"
        )
    if len({one.size for one in after.values()}) != 1:
        raise UsageError("a file of persona_vectors holds directions of one length")
    rows = np.zeros((len(model.blocks) + 1, next(iter(after.values())).size), np.float32)
    for block, one in after.items():
        rows[block + 1] = one
    out = io.BytesIO()
    torch.save(torch.from_numpy(rows), out)
    return out.getvalue()
