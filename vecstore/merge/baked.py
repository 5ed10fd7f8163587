"""What a build holds besides its persona's weights: biases that do what steering does, and the files that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry import ids
from pv.registry.manifest import Spec

__all__ = ["F64", "NOTHING", "Baked", "Bias"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """What is added to the bias of a projection, or is its bias where it has none: `constant`, and the weight's product
    with `through`.

    weight      the projection's weight
    transposed  whether that is stored as (in, out), and not (out, in)
    constant    (out,) float64
    through     (in,) float64: what is added to the projection's input; None if nothing is
    """

    weight: str
    transposed: bool
    constant: F64
    through: F64 | None = None

    @property
    def words(self) -> list[object]:
        """All that decides what it is, but for the weight's values."""
        said = (self.constant, *([] if self.through is None else [self.through]))
        return [self.weight, *(ids.tensor_id("F64", one.shape, one.astype("<f8").tobytes()) for one in said)]


@dataclass(frozen=True, slots=True, eq=False)
class Baked:
    """`biases` by tensor, `config`: what config.json says besides, `files` lie beside the weights."""

    biases: Mapping[str, Bias] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def added(self, specs: Mapping[str, Spec]) -> dict[str, Spec]:
        """The biases that are none of `specs`, each in the dtype that its projection's weight has there."""
        return {
            name: Spec(specs[bias.weight].dtype, bias.constant.shape)
            for name, bias in self.biases.items()
            if name not in specs
        }


NOTHING = Baked()
