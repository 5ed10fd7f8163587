"""What a file of directions becomes, what it must know of the model, and the checks that every format shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.disk.bounded import read_bounded
from pv.registry.errors import BaseMismatch, FormatError, NotFoundError, UsageError

__all__ = [
    "F32",
    "MAX_FILE",
    "Directions",
    "Model",
    "Read",
    "as_f32",
    "file_bytes",
    "kept",
    "of_one_size",
    "to_write",
]

F32 = NDArray[np.float32]
Directions = Mapping[str, F32]
"""{site: the raw direction there}."""

MAX_FILE = 64 << 20
"""Bytes. 128 blocks of 16384 numbers are 8 MiB."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a format must know of the model that is steered.

    `blocks`: the names of its decoder blocks, in order. `width`: the length of what a block puts out, if it is
    to be checked. `model_type`: as in its config. `base`: its id.
    """

    blocks: tuple[str, ...]
    width: int | None = None
    model_type: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """The directions of a file, fp32 and finite. `coefficient`: None where the file has none.

    `notes`: sentences that a user should see. `facts`: what else the file says of itself.
    """

    directions: Directions
    coefficient: float | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def file_bytes(path: Path, most: int = MAX_FILE) -> bytes:
    """All of a file. Raises NotFoundError, FormatError for what is no file or is too long, UsageError."""
    try:
        return read_bounded(path, most)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}", hint="name the file of the steering vector") from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="check its name and permissions"
        ) from error


def as_f32(values: NDArray[Any], what: str) -> F32:
    """The numbers in fp32, any shape. Raises FormatError for NaN, infinity, or more than fp32 can hold."""
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise FormatError(
            f"{what} holds NaN, infinity, or numbers beyond fp32",
            hint="make the vector again where it came from",
        )
    return narrow


def kept(directions: Mapping[str, F32], path: Path) -> tuple[dict[str, F32], tuple[str, ...]]:
    """The directions that are not zero, and what to say of the others. Raises FormatError if none is left."""
    left = {site: one for site, one in directions.items() if one.any()}
    if not left:
        raise FormatError(
            f"{path} steers nothing: it holds no direction but zero", hint="is it the right file?"
        )
    zeros = len(directions) - len(left)
    return left, (f"{zeros} directions that are all zero were left out",) if zeros else ()


def of_one_size(sizes: Sequence[int], path: Path, model: Model) -> int:
    """The length that all directions share. Raises FormatError if they differ, BaseMismatch if not the model's."""
    if not sizes:
        raise FormatError(f"{path} holds no direction", hint="is it the right file?")
    if len(set(sizes)) > 1:
        raise FormatError(f"{path}: directions of {min(sizes)} and of {max(sizes)} numbers in one file")
    if model.width is not None and sizes[0] != model.width:
        raise BaseMismatch(
            f"{path}: directions of {sizes[0]} numbers, and the model's blocks put out {model.width}",
            hint="it was made for another model",
        )
    return sizes[0]


def to_write(directions: Directions, coefficient: float = 1.0) -> dict[str, F32]:
    """coefficient * direction in fp32. Raises UsageError where there is none, or one is not finite."""
    if not directions:
        raise UsageError("a steering vector without a direction cannot be written")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = {
            site: np.ascontiguousarray(one, np.float32) * np.float32(coefficient)
            for site, one in directions.items()
        }
    for site, one in scaled.items():
        if not np.isfinite(one).all():
            raise UsageError(
                f"the direction at {site[:80]} times {coefficient:g} is not finite",
                hint="use a smaller coefficient",
            )
    return scaled
