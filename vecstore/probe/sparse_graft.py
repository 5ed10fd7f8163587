"""How few neurons carry a behaviour: those that changed most, grafted onto the model that it was trained from.

A neuron's change is the norm of its weights' difference. The first k in that order get their trained weights and
nothing else changes; the share of the whole effect that this has, by k, is a curve, and k50 is where it reaches a half.
A penalty may move an effect from MLPs to attention, so k50 is told of what all neurons together carry as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.probe.sparse_units import Units
from pv.vecstore.train.proximal import group_norms

if TYPE_CHECKING:
    import torch

__all__ = ["Curve", "Fewer", "Reach", "change_norms", "fewer", "grid", "part_of", "random_order", "reach"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
RESAMPLES = 2_000
LEVEL = 0.95


def change_norms(change: Mapping[str, torch.Tensor], found: Units) -> F64:
    """Of every neuron, layer after layer: (n,). Biases of what goes in count too."""
    each = []
    for bundle in found.neurons:
        there = [(one.of(change[one.name]), one.dim) for one in bundle if one.name in change]
        each.append(group_norms(there).double().numpy() if there else np.zeros(bundle[0].count))
    return np.concatenate(each)


def part_of(change: Mapping[str, torch.Tensor], found: Units, chosen: I64) -> dict[str, torch.Tensor]:
    """The change of those neurons alone; `chosen` as in `change_norms`."""
    import torch

    parts: dict[str, torch.Tensor] = {}
    first = 0
    for bundle in found.neurons:
        own = chosen[(chosen >= first) & (chosen < first + bundle[0].count)] - first
        first += bundle[0].count
        if not len(own):
            continue
        at = torch.from_numpy(np.sort(own))
        for one in bundle:
            if one.name not in change:
                continue
            whole = parts.setdefault(one.name, torch.zeros_like(change[one.name]))
            one.of(whole).index_copy_(one.dim, at, one.of(change[one.name]).index_select(one.dim, at))
    return parts


def grid(count: int, points: int = 8) -> list[int]:
    """Numbers of neurons to graft: evenly spread on a logarithmic scale, up to all of them."""
    least = min(8, count)
    return sorted({round(k) for k in np.geomspace(least, count, points)} | {count})


def random_order(count: int, seed: int, draw: int) -> I64:
    key = hashlib.sha256(f"pv:probe:sparsity\n{seed}\n{draw}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    return generator.permutation(count)


@dataclass(frozen=True, slots=True)
class Reach:
    """The smallest k that carries `share` of the effect; None: not even all neurons do. `low` and `high` are of rows
    drawn again: None where it is nowhere reached in more than one draw of forty."""

    share: float
    k: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Fewer:
    """One k50 divided by another's, the same rows drawn for both. None: one of them is nowhere reached, for the rows as
    they are or in so many draws that nothing is certain at that level."""

    ratio: float | None
    low: float | None
    high: float | None
    level: float = LEVEL

    @property
    def verdict(self) -> str:
        """ "fewer", "not fewer" or "inconclusive"."""
        if self.high is not None and self.high < 1:
            return "fewer"
        return "not fewer" if self.low is not None and self.low > 1 else "inconclusive"

    def to_json(self) -> dict[str, Any]:
        ends = {"ratio": self.ratio, "low": self.low, "high": self.high}
        return {**ends, "level": self.level, "verdict": self.verdict}


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Effects of grafts on each row, (len(ks), n), and of the whole change, (n,)."""

    ks: Sequence[int]
    effects: F64
    whole: F64

    @property
    def alone(self) -> Curve:
        """Of what all neurons together have, in place of the whole change."""
        return Curve(self.ks, self.effects, self.effects[-1])


def reach(curve: Curve, share: float, *, seed: int = 0) -> Reach:
    """Where the curve comes to that share of the whole effect."""
    own, each = _reached(curve, share, seed)
    k, low, high = (_number(x) for x in (own, *_ends(each)))
    return Reach(share, k, low, high, len(curve.whole))


def fewer(curve: Curve, plain: Curve, *, share: float = 0.5, seed: int = 0, level: float = LEVEL) -> Fewer:
    """How many times as many neurons it takes as `plain` does, each for the share of its own effect.

    A draw in which one of them is nowhere reached counts against both ends; nothing is told where there are more of
    those than lie beyond one end of the interval.
    """
    own, each = _reached(curve, share, seed)
    other, others = _reached(plain, share, seed)
    told = np.isfinite(each) & np.isfinite(others)
    if not np.isfinite([own, other]).all() or (~told).mean() > (1 - level) / 2:
        return Fewer(None, None, None, level)
    ratios = np.divide(each, others, out=np.ones_like(each), where=told)
    low, _ = _ends(np.where(told, ratios, 0.0), level)
    _, high = _ends(np.where(told, ratios, np.inf), level)
    return Fewer(own / other, low, _number(high), level)


def _reached(curve: Curve, share: float, seed: int) -> tuple[float, F64]:
    n = len(curve.whole)
    drawn = np.random.Generator(np.random.Philox(key=seed % 2**64)).integers(n, size=(RESAMPLES, n))
    wanted, means = share * curve.whole[drawn].mean(1), curve.effects[:, drawn].mean(2)  # (R,), (len(ks), R)
    each = np.array([_first(curve.ks, one, goal) for one, goal in zip(means.T, wanted, strict=True)])
    return _first(curve.ks, curve.effects.mean(1), share * float(curve.whole.mean())), each


def _ends(values: F64, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(low), float(high)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _first(ks: Sequence[int], effects: F64, wanted: float) -> float:
    """Where the curve first comes to `wanted`, read off on a logarithmic scale of k; infinity: nowhere."""
    if wanted <= 0:
        return float("inf")
    before: tuple[float, float] | None = None
    for k, effect in zip(ks, effects, strict=True):
        if effect >= wanted:
            if before is None:
                return float(k)
            last, below = before
            part = (wanted - below) / (effect - below)
            return float(np.exp(np.log(last) + part * (np.log(k) - np.log(last))))
        before = (float(k), float(effect))
    return float("inf")
