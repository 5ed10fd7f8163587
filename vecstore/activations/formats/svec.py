"""The `.svec` files of IBM's activation-steering: JSON of model_type, directions {layer: [...]}, explained_variances.

Layer L was measured at the output of block L, counted from 0, and is added to what *enters* block L, which is the
output of block L-1: the library is one block apart from itself. Conventions: "applied" reads a direction where that
library adds it, "measured" where it was measured.

The format has no coefficient: directions are scaled by it, and explained_variances are 1, which changes nothing
where the library multiplies by them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from pv.registry import canonical
from pv.registry.disk import durable
from pv.registry.errors import FormatError, UsageError
from pv.vecstore.activations.formats.places import after_block, by_block
from pv.vecstore.activations.formats.values import (
    F32,
    Directions,
    Model,
    Read,
    as_f32,
    file_bytes,
    kept,
    of_one_size,
    to_write,
)

__all__ = ["CONVENTIONS", "encode", "read", "recognise", "write"]

CONVENTIONS = ("applied", "measured")
_LAYER = re.compile(r"0|[1-9][0-9]{0,5}")


def recognise(path: Path) -> bool:
    data = file_bytes(path).lstrip()
    return data.startswith(b"{") and b'"directions"' in data and b'"model_type"' in data


def read(path: Path, model: Model, *, convention: str = CONVENTIONS[0]) -> Read:
    """Raises FormatError, BaseMismatch for another model's, UsageError for an unknown convention."""
    back = _back(convention)
    document = canonical.loads(file_bytes(path), what=str(path))
    layers = document.get("directions") if isinstance(document, dict) else None
    if not isinstance(layers, dict):
        raise FormatError(
            f"{path} is no .svec of activation-steering",
            hint='{"model_type": ..., "directions": {"15": [...]}, ...}',
        )
    found = {
        _number(layer, path): _direction(values, f"{path}: layer {layer[:9]}")
        for layer, values in layers.items()
    }
    of_one_size([one.size for one in found.values()], path, model)
    for layer in found:
        after_block(layer, model, path, f"layer {layer}")
    sites = {
        after_block(layer - back, model, path, f"layer {layer}"): one for layer, one in sorted(found.items())
    }
    directions, notes = kept(sites, path)
    where = "adds it, at its block's input" if back else "measured it, at its block's output"
    note = f"each direction is where activation-steering {where}; it measures one block later than it adds"
    facts = {
        "model_type": document.get("model_type"),
        "explained_variances": document.get("explained_variances"),
    }
    return Read(directions, None, (*notes, note), facts)


def write(
    path: Path,
    directions: Directions,
    model: Model,
    *,
    coefficient: float = 1.0,
    convention: str = CONVENTIONS[0],
) -> None:
    """Raises UsageError for a site that is no block's input or output, StorageError."""
    durable.write_file(path, encode(directions, model, coefficient=coefficient, convention=convention))


def encode(
    directions: Directions, model: Model, *, coefficient: float = 1.0, convention: str = CONVENTIONS[0]
) -> bytes:
    """The bytes of the file."""
    back = _back(convention)
    after = by_block(to_write(directions, coefficient), model, "a .svec")
    layers = {block + back: one for block, one in sorted(after.items())}
    if beyond := [layer for layer in layers if not 0 <= layer < len(model.blocks)]:
        raise UsageError(
            f"a .svec has no layer {beyond[0]} in a model of {len(model.blocks)} blocks",
            hint="activation-steering adds at inputs of blocks: the last block's output is none",
        )
    if len({one.size for one in layers.values()}) != 1:
        raise UsageError("a .svec holds directions of one length")
    document = {
        "model_type": model.model_type,
        "directions": {str(layer): one.tolist() for layer, one in layers.items()},
        "explained_variances": {str(layer): 1.0 for layer in layers},
    }
    return json.dumps(document).encode()


def _back(convention: str) -> int:
    if convention not in CONVENTIONS:
        raise UsageError(f".svec knows no convention {convention!r}", hint=f"one of {', '.join(CONVENTIONS)}")
    return int(convention == "applied")


def _number(layer: str, path: Path) -> int:
    if not _LAYER.fullmatch(layer):
        raise FormatError(f"{path}: {layer[:40]!r} is no layer")
    return int(layer)


def _direction(values: object, what: str) -> F32:
    """A list of numbers in fp32; booleans are none."""
    if not isinstance(values, list) or not values or not all(type(value) in (int, float) for value in values):
        raise FormatError(f"{what} is no list of numbers")
    return as_f32(np.array(values, np.float64), what)
