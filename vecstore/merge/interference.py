"""What behaviours do to each other in weight space, pair by pair.

Measured on the deltas in fp32 before rounding, with sums in fp64. These are observations, not builds: their
last digits may differ between machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.delta import evaluate, holdings, taus
from pv.vecstore.merge.diff import square, touched
from pv.vecstore.merge.plan import plan
from pv.vecstore.progress import Progress
from pv.vecstore.vectors.vector import Vector

__all__ = ["Pair", "interference"]


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


@dataclass(slots=True)
class _PairSums:
    dot: float = 0.0
    a2: float = 0.0
    b2: float = 0.0
    agree: int = 0
    overlap: int = 0


def interference(
    behaviours: Mapping[str, Behaviour],
    vectors: Mapping[str, Vector],
    *,
    base_id: str,
    progress: Progress | None = None,
) -> tuple[Pair, ...]:
    """Each pair of behaviours, at their weights, in name order."""
    sums = {pair: _PairSums() for pair in combinations(sorted(behaviours), 2)}
    alone = {name: Persona(base_id, {name: behaviour}) for name, behaviour in behaviours.items()}
    held, names = holdings(vectors), touched(vectors.values())
    for done, tensor in enumerate(names, 1):
        plans = {name: plan(persona, held, tensor) for name, persona in alone.items()}
        decoded = taus([operand for operands in plans.values() for operand in operands], vectors, tensor)
        deltas = {name: evaluate(alone[name].combine, operands, decoded) for name, operands in plans.items()}
        squares = {name: 0.0 if d is None else square(d) for name, d in deltas.items()}
        for (a, b), total in sums.items():
            total.a2 += squares[a]
            total.b2 += squares[b]
            x, y = deltas[a], deltas[b]
            if x is None or y is None:
                continue
            both = (x != 0) & (y != 0)
            total.dot += float(np.dot(x.astype(np.float64), y.astype(np.float64)))
            total.overlap += int(np.count_nonzero(both))
            total.agree += int(np.count_nonzero(both & (np.signbit(x) == np.signbit(y))))
        if progress:
            progress(done, len(names))
    return tuple(_pair(a, b, total) for (a, b), total in sums.items())


def _pair(a: str, b: str, total: _PairSums) -> Pair:
    norms = math.sqrt(total.a2), math.sqrt(total.b2)
    product = norms[0] * norms[1]
    return Pair(
        a,
        b,
        cosine=total.dot / product if product else 0.0,
        sign_agreement=total.agree / total.overlap if total.overlap else 0.5,
        overlap=total.overlap,
        norm_a=norms[0],
        norm_b=norms[1],
    )
