"""The `.pt` files of lm-eval-harness's `--model steered` (0.4.13): {hookpoint: what is done there}.

A hookpoint is a module's name inside `model.base_model`: `layers.14` where transformers says `model.layers.14`. What
that module puts out gets steering_coefficient * steering_vector at every position, the product taken in the model's
dtype. Read and written is the action "add" on whole outputs. "clamp" replaces what is there and cannot be added up;
`head_index` picks from outputs of four dimensions, which transformers' attention does not have.

Written is one more thing than the harness asks for: `bias` and `head_index` as None, since 0.4.13 names them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pv.registry.disk import durable
from pv.registry.errors import BaseMismatch, FormatError, UsageError
from pv.vecstore.activations.formats import pt
from pv.vecstore.activations.formats.places import whole
from pv.vecstore.activations.formats.values import F32, Directions, Model, Read, file_bytes, kept, to_write

__all__ = ["encode", "read", "recognise", "write"]

KEYS = {"steering_vector", "steering_coefficient", "action", "bias", "head_index"}


def recognise(path: Path) -> bool:
    """Raises FormatError for a broken file."""
    data = file_bytes(path)
    if not pt.is_zip(data):
        return False
    document = pt.load(data, str(path))
    return isinstance(document, dict) and all(
        isinstance(v, dict) and "action" in v for v in document.values()
    )


def read(path: Path, model: Model) -> Read:
    """Raises FormatError, UsageError for what cannot be added up, BaseMismatch for another width."""
    document = pt.load(file_bytes(path), str(path))
    if not isinstance(document, dict) or not document:
        raise FormatError(
            f"{path} is no steering file of lm-eval: it holds a {type(document).__name__}, not a dict of hookpoints",
            hint='{"layers.14": {"steering_vector": tensor, "steering_coefficient": 1.0, "action": "add"}}',
        )
    prefix, found, coefficients = _prefix(model), {}, {}
    for hookpoint, entry in document.items():
        if not isinstance(hookpoint, str) or not isinstance(entry, dict):
            raise FormatError(f"{path} is no steering file of lm-eval: a hookpoint is a name, with a dict")
        site = prefix + hookpoint
        found[site], coefficients[site] = _entry(entry, f"{path}: {hookpoint[:80]!r}")
        if model.width is not None and site in model.blocks and found[site].size != model.width:
            raise BaseMismatch(
                f"{path}: {hookpoint[:80]!r} has {found[site].size} numbers, the model's blocks put out {model.width}",
                hint="it was made for another model",
            )
    directions, notes = kept(found, path)
    common = {coefficients[site] for site in directions}
    if len(common) == 1:
        return Read(directions, common.pop(), notes)
    scaled = to_write({site: one * coefficients[site] for site, one in directions.items()})
    return Read(
        scaled, None, (*notes, "each hookpoint has a coefficient of its own: the directions are scaled by it")
    )


def write(path: Path, directions: Directions, model: Model, *, coefficient: float = 1.0) -> None:
    """Raises UsageError for a site that is no output of a module within the base model, StorageError."""
    durable.write_file(path, encode(directions, model, coefficient=coefficient))


def encode(directions: Directions, model: Model, *, coefficient: float = 1.0) -> bytes:
    """The bytes of the file."""
    prefix = _prefix(model)
    document: dict[str, dict[str, Any]] = {}
    to_write(directions, coefficient)  # the product that the harness takes is finite
    for site, one in whole(to_write(directions)).items():
        site = _as_output(site, model)
        if not site.startswith(prefix) or ":" in site or one.ndim != 1:
            raise UsageError(
                f"lm-eval steers what modules within {prefix.rstrip('.') or 'the model'} put out, not {site[:80]}",
                hint="safetensors holds every site",
            )
        hookpoint = site.removeprefix(prefix)
        if hookpoint in document:
            one = one + document[hookpoint]["steering_vector"].numpy()
        document[hookpoint] = {
            "steering_vector": torch.from_numpy(one.copy()),
            "steering_coefficient": float(coefficient),
            "action": "add",
            "bias": None,
            "head_index": None,
        }
    out = io.BytesIO()
    torch.save(document, out)
    return out.getvalue()


def _prefix(model: Model) -> str:
    """What names within the base model lack: the name of that in the model that transformers loads."""
    parts = model.blocks[0].split(".") if model.blocks else []
    return f"{parts[0]}." if len(parts) > 2 else ""


def _as_output(site: str, model: Model) -> str:
    """The block before, for what enters a block."""
    block = site.removesuffix(":input")
    if block != site and block in model.blocks[1:]:
        return model.blocks[model.blocks.index(block) - 1]
    return site


def _entry(entry: Mapping[Any, Any], what: str) -> tuple[F32, float]:
    """A direction of one dimension and its coefficient."""
    if strange := sorted(str(key)[:40] for key in entry if key not in KEYS):
        raise FormatError(f"{what} has {strange[0]!r}, which lm-eval 0.4.13 does not know")
    action, coefficient = entry.get("action"), entry.get("steering_coefficient", 1.0)
    if action == "clamp":
        raise UsageError(
            f"{what} clamps: it replaces what the activation has along the direction, and pv adds",
            hint="only the action 'add' can be a steering vector",
        )
    if action != "add":
        raise FormatError(f"{what}: the action must be 'add', not {str(action)[:40]!r}")
    if entry.get("bias") is not None or entry.get("head_index") is not None:
        raise UsageError(
            f"{what} has a bias or a head_index, which pv cannot take over",
            hint="a head's direction in pv is at the input of o_proj: model.layers.14.self_attn.o_proj:input[3/9]",
        )
    if type(coefficient) not in (int, float) or not math.isfinite(coefficient):
        raise FormatError(f"{what}: steering_coefficient must be a number")
    tensor = entry.get("steering_vector")
    if not isinstance(tensor, pt.Tensor) or not tensor.raw.ndim or tensor.raw.size != tensor.raw.shape[-1]:
        raise FormatError(f"{what}: steering_vector must be a tensor of one row")
    return tensor.f32(what).reshape(-1), float(coefficient)
