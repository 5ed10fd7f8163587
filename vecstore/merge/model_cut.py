"""What a trim over the whole model keeps of a behaviour, once it has been found: a number for all, and where it ends.

`settle` (model_trim) finds it. A rule that has been settled is still the persona's: it is written down, and counts in
ids, as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pv.registry.combine import Combine
from pv.vecstore.merge.cut import EVER, Cut

__all__ = ["ModelCut", "Settled", "over_model"]


@dataclass(frozen=True, slots=True)
class ModelCut:
    """Kept is a magnitude whose bits are above `threshold`. Equal ones count in order of tensor and index: all in
    tensors before `last`, and in that one those before the index `until`."""

    threshold: int
    last: str
    until: int

    def at(self, tensor: str) -> Cut:
        if tensor == self.last:
            return Cut(self.threshold, self.until)
        return Cut(self.threshold, EVER if tensor < self.last else 0)


@dataclass(frozen=True, slots=True)
class Settled(Combine):
    """A rule that trims over the whole model, and what it keeps of each behaviour."""

    cuts: Mapping[str, ModelCut] = field(default_factory=dict)


def over_model(rule: Combine) -> bool:
    """Whether a tensor's result depends on the others, as long as nothing is settled."""
    return rule.options.get("trim") == "model"
