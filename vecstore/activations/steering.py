"""Steering terms at work: what a persona says is added to activations, set on a loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.vecstore.activations.hooks import Edit, Gate, Positions, Rule, steered

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Condition", "Term", "edits_of", "steering"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """Only for prompts whose mean activation at `site` has a cosine `above` this with `direction`."""

    site: str
    direction: F32
    above: float


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """`coefficient` times each direction, added at its site."""

    directions: Mapping[str, F32]
    coefficient: float = 1.0
    positions: Positions = "all"
    when: Condition | None = None

    @property
    def scaled(self) -> dict[str, F32]:
        """What is added, by site."""
        return {site: np.float32(self.coefficient) * one for site, one in self.directions.items()}


def edits_of(terms: Sequence[Term]) -> list[Edit]:
    """As hooks take them, in order."""
    import torch

    found = []
    for term in terms:
        gate = None
        if term.when is not None:
            gate = Gate(term.when.site, torch.from_numpy(term.when.direction.copy()), term.when.above)
        for site, one in sorted(term.scaled.items()):
            if not np.isfinite(one).all():
                raise UsageError(
                    f"coefficient {term.coefficient:g} takes the direction at {site} out of the range of fp32",
                    hint="give a smaller one",
                )
            found.append(Edit(site, torch.from_numpy(one), term.positions, gate))
    return found


@contextmanager
def steering(model: nn.Module, terms: Sequence[Term], rule: Rule = "add") -> Iterator[None]:
    """Inside, the model is steered. Raises UsageError for a site that it does not have."""
    with steered(model, edits_of(terms), rule=rule):
        yield
