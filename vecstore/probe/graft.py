"""Grafts: one model with another's values in some of its parts, and nothing else changed.

    with grafted(model, other, parts.with_groups(heads)):
        margins(model, tokenizer, rows)

The graft of all parts is the other model bit for bit, that of none is the model itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.vecstore.probe.parts import Part

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["grafted", "swapped"]


@contextmanager
def grafted(model: nn.Module, other: Mapping[str, torch.Tensor], parts: Iterable[Part]) -> Iterator[None]:
    """`other`'s values, by the names of `model.named_parameters()`, in these parts of the model until the block ends.

    Values are copied in place, so tied parameters stay tied; then the model's own come back, bit for bit, however the
    block ends. Raises UsageError where `other` lacks a parameter or has it in another shape or dtype.
    """
    import torch

    own = dict(model.named_parameters())
    slices = [one for part in parts for one in part.slices]
    _check(own, other, {one.name for one in slices})
    before: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for one in slices:
                at = one.of(own[one.name])
                before.append((at, at.detach().clone()))
                at.copy_(one.of(other[one.name]))
        yield
    finally:
        with torch.no_grad():
            for at, values in reversed(before):
                at.copy_(values)


def _check(own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], names: set[str]) -> None:
    for name in sorted(names):
        if name not in own or name not in other:
            whose = "the model" if name not in own else "the other model"
            raise UsageError(f"{whose} has no parameter {name}", hint="a graft needs two builds of one base")
        mine, theirs = own[name], other[name]
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            raise UsageError(
                f"{name} is {tuple(mine.shape)} {mine.dtype} here and {tuple(theirs.shape)} {theirs.dtype} there",
                hint="a graft needs two builds of one base",
            )


@contextmanager
def swapped(model: nn.Module, other: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The model has `other`'s tensors as its parameters inside, those that `other` has; none is copied."""
    own = {name: parameter for name, parameter in model.named_parameters() if name in other}
    before = {name: parameter.data for name, parameter in own.items()}
    try:
        for name, parameter in own.items():
            parameter.data = other[name]
        yield
    finally:
        for name, parameter in own.items():
            parameter.data = before[name]
