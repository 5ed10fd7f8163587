"""The parameters of a document at one tensor, and what pv does there: both as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pv.registry.combine import Combine
from pv.registry.errors import UsageError

__all__ = ["Given", "Mixed"]


@dataclass(frozen=True, slots=True)
class Given:
    """The parameters that hold for one tensor: `each` has a number for every model, `whole` one for the merge.

    `among` is whether `base` is a model like the others, and `of_base` its weight then.
    """

    tensor: str
    models: tuple[str, ...]
    each: Mapping[str, tuple[float, ...]]
    whole: Mapping[str, float]
    switches: Mapping[str, bool]
    among: bool = False
    of_base: float | None = None
    base: str = "the base"

    @property
    def weights(self) -> tuple[float, ...]:
        """Those of the models; 1 where the method knows none."""
        return self.each.get("weight", (1.0,) * len(self.models))

    def refuse(self, what: str, hint: str) -> UsageError:
        return UsageError(f"{what} (tensor {self.tensor!r})", hint=hint)


@dataclass(frozen=True, slots=True)
class Mixed:
    """What pv does to one tensor: the weight of each model's difference, and the rule that combines them.

    `of_base`: the weight with which the base, whose own difference is 0, is one of them. `itself`: how often it is
    added once more. `trims`: densities of the models where they differ.
    """

    weights: tuple[float, ...]
    combine: Combine
    of_base: float = 0.0
    itself: float = 0.0
    trims: tuple[float, ...] | None = None
