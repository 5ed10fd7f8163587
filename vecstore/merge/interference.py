"""What two behaviours do to each other in weight space. `compare` measures it, pair by pair."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Pair"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two behaviours: cosine of their deltas; over elements both move, the share with equal sign.

    For unrelated vectors the cosine is 0 and the sign agreement 0.5.
    """

    a: str
    b: str
    cosine: float
    sign_agreement: float
    overlap: int
    norm_a: float
    norm_b: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
