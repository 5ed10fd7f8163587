"""From sites to blocks and back: most formats know no more of a model than the number of a block.

What enters block i is what leaves block i-1, so an input of a block is an output of the one before; what enters the
first is number -1 here. A slice of an activation becomes the whole one with zeros around.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pv.registry.errors import BaseMismatch, UsageError
from pv.vecstore.activations.formats.values import F32, Model

__all__ = ["after_block", "by_block", "whole"]

_SLICE = re.compile(r"(?P<whole>[^\[\]]+)\[(?P<index>\d{1,6})/(?P<of>\d{1,6})\]")
_INPUT = ":input"


def whole(directions: Mapping[str, F32]) -> dict[str, F32]:
    """The same edit without slices: those of one activation are laid into it, and added to what is there.

    Raises UsageError for slices that do not fit each other.
    """
    result: dict[str, F32] = {}
    for site, one in directions.items():
        name, laid = site, one
        if found := _SLICE.fullmatch(site):
            name, index, of = found["whole"], int(found["index"]), int(found["of"])
            if one.ndim != 1 or index >= of:
                raise UsageError(f"{site[:80]} is no slice of an activation with one dimension")
            laid = np.zeros(one.size * of, np.float32)
            laid[index * one.size : (index + 1) * one.size] = one
        if name in result and result[name].shape != laid.shape:
            raise UsageError(f"{site[:80]} does not fit the other directions at {name[:80]}")
        result[name] = result[name] + laid if name in result else laid
    return result


def by_block(directions: Mapping[str, F32], model: Model, what: str) -> dict[int, F32]:
    """{number of the block after which it is added, -1 for before the first: direction of one dimension}.

    Raises UsageError for a site that is no block's input or output.
    """
    _has_blocks(model, what)
    numbers = {name: number for number, name in enumerate(model.blocks)}
    numbers |= {name + _INPUT: number - 1 for number, name in enumerate(model.blocks)}
    result: dict[int, F32] = {}
    for site, one in whole(directions).items():
        if site not in numbers or one.ndim != 1:
            raise UsageError(
                f"{what} holds directions after blocks ({model.blocks[0]} and so on): {site[:80]} is not one",
                hint="safetensors holds every site; lm-eval every module's output",
            )
        number = numbers[site]
        if number in result and result[number].size != one.size:
            raise UsageError(f"{site[:80]} does not fit the other direction there")
        result[number] = result[number] + one if number in result else one
    return result


def after_block(number: int, model: Model, path: Path, label: str) -> str:
    """The site of an output by its block's number; -1: what enters the first. Raises BaseMismatch, UsageError."""
    _has_blocks(model, str(path))
    if number == -1:
        return model.blocks[0] + _INPUT
    if not 0 <= number < len(model.blocks):
        raise BaseMismatch(
            f"{path}: {label} has no place in a model of {len(model.blocks)} blocks",
            hint="it was made for another model",
        )
    return model.blocks[number]


def _has_blocks(model: Model, what: str) -> None:
    if not model.blocks:
        raise UsageError(
            f"{what} counts decoder blocks, and this model has none", hint="safetensors holds every site"
        )
