"""What is measured while a run goes on, and when it has learnt enough: strength is chosen, not an accident of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Watch"]


@dataclass(frozen=True, slots=True)
class Watch:
    """`effect` measures a model: how much its held-out margin grew, in nats. Asked after every `every` steps.

    The run ends once it is at least `target`, or when `patience` measurements in a row were none the best so far.
    """

    effect: Callable[[PreTrainedModel], float]
    every: int = 1
    target: float | None = None
    patience: int | None = None

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def enough(self, effects: Sequence[float]) -> bool:
        if not effects:
            return False
        if self.target is not None and effects[-1] >= self.target:
            return True
        best = max(range(len(effects)), key=effects.__getitem__)
        return self.patience is not None and len(effects) - 1 - best >= self.patience
