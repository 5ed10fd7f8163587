"""Two personas of one base, and the behaviours of both, compared in one pass over the packs.

Each vector is decoded once, whatever is asked of it. Measured on the deltas in fp32 before rounding, with sums in
fp64. These are observations, not builds: their last digits may differ between machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.delta import evaluate, holdings, place, summed, taus, touched
from pv.vecstore.merge.diff import Movement, WeightDiff
from pv.vecstore.merge.interference import Pair
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.plan import Operand, operand, plan
from pv.vecstore.merge.share import Place
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Comparison", "compare"]

BLOCK = 1 << 15  # elements looked at at a time: with a row for each behaviour, they stay in the cache
SHORT = 1 << 11  # elements whose products are summed in fp32
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What moved from one persona to the other, and every two of the behaviours."""

    moved: WeightDiff
    pairs: tuple[Pair, ...]


def compare(
    old: Persona,
    new: Persona,
    behaviours: Mapping[str, Behaviour],
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """What `new` adds to the base minus what `old` adds to it; `behaviours` at their weights, in pairs by name.

    Raises CorruptPack, BaseMismatch.
    """
    names = sorted(behaviours)
    held = holdings(vectors)
    tensors = touched(vectors.values())

    def look(tensor: str) -> tuple[Movement | None, _Products]:
        plans = plan(old, held, tensor), plan(new, held, tensor)
        alone = {name: operand(behaviours[name], held, tensor) for name in names}
        there = {name: one for name, one in alone.items() if one is not None}
        own = base.tensor(tensor) if any(plans) else None
        decoded = taus([*plans[0], *plans[1], *there.values()], vectors, tensor, own)
        change = None
        rules = _apart((old.combine, plans[0]), (new.combine, plans[1]))
        if own is not None and rules[0] != rules[1]:
            change = _change(tensor, _steps(rules, decoded, place(own)), own.f32)
        return change, _products(
            list(there.values()), [names.index(name) for name in there], decoded, len(names)
        )

    changes: list[Movement] = []
    total = _Products.none(len(names))
    for done, (change, products) in enumerate(ordered_map(look, tensors, threads=threads), 1):
        if change is not None and change.changed:
            changes.append(change)
        total.add(products)
        if progress:
            progress(done, len(tensors))
    pairs = (_pair(names, total, a, b) for a, b in combinations(range(len(names)), 2))
    return Comparison(WeightDiff(tuple(changes)), tuple(pairs))


# What moved

Planned = tuple[Combine, tuple[Operand, ...]]


def _apart(old: Planned, new: Planned) -> tuple[Planned, Planned]:
    """Both plans; of sums, without the terms that they have in common."""
    if not (is_linear(old[0]) and is_linear(new[0])):
        return old, new
    first, second = (
        tuple(one for one in mine[1] if one not in theirs[1]) for mine, theirs in ((old, new), (new, old))
    )
    return (old[0], first), (old[0], second)


def _steps(
    rules: tuple[Planned, Planned], decoded: Mapping[str, F32], where: Place
) -> Iterator[tuple[slice, F32]]:
    """What the second adds minus what the first adds, block by block; a rule that looks at whole tensors has them."""
    adders = [_adder(rule, operands, decoded, where) for rule, operands in rules]
    for part in _blocks(len(next(iter(decoded.values())))):
        before, after = (add(part) for add in adders)
        if before is None:
            assert after is not None
            yield part, after
        else:
            yield part, -before if after is None else after - before


def _adder(
    rule: Combine, operands: tuple[Operand, ...], decoded: Mapping[str, F32], where: Place
) -> Callable[[slice], F32 | None]:
    """What a persona adds to a part of the tensor. A rule that is not linear looks at the whole of it first."""
    if is_linear(rule):
        return lambda part: evaluate(
            rule, operands, {vector: tau[part] for vector, tau in decoded.items()}, where
        )
    whole = evaluate(rule, operands, decoded, where)
    return lambda part: None if whole is None else whole[part]


def _change(where: str, steps: Iterable[tuple[slice, F32]], base: F32) -> Movement:
    changed, step2, base2, largest = 0, 0.0, 0.0, 0.0
    for part, step in steps:
        changed += int(np.count_nonzero(step))
        step2 += _square(step)
        base2 += _square(base[part])
        largest = float(np.maximum(largest, np.abs(step).max(initial=0)))  # NaN stays NaN
    return Movement(where, base.size, changed, step2, base2, largest)


def _square(x: F32) -> float:
    """The sum of squares, in fp64."""
    wide = x.astype(np.float64)
    return float(np.dot(wide, wide))


# Behaviours against one another


@dataclass(frozen=True, slots=True)
class _Products:
    """Over every two of n behaviours, each (n, n): dot products; above the diagonal, elements both move, and alike."""

    dot: F64
    overlap: I64
    agree: I64

    @staticmethod
    def none(count: int) -> _Products:
        shape = (count, count)
        return _Products(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def add(self, other: _Products) -> None:
        np.add(self.dot, other.dot, out=self.dot)
        np.add(self.overlap, other.overlap, out=self.overlap)
        np.add(self.agree, other.agree, out=self.agree)


def _products(
    operands: Sequence[Operand], where: Sequence[int], decoded: Mapping[str, F32], count: int
) -> _Products:
    """Of one tensor. `where` says which behaviour each operand is, of `count`."""
    total = _Products.none(count)
    if not operands:
        return total
    here = _Products.none(len(operands))
    weights = np.array([one.weight for one in operands])
    first, second = np.triu_indices(len(operands), 1)
    size = len(next(iter(decoded.values())))
    room = np.empty((len(operands), min(BLOCK, size)), np.float32)
    for part in _blocks(size):
        cut = {vector: tau[part] for vector, tau in decoded.items()}
        rows = room[:, : min(BLOCK, size - part.start)]  # (k, block)
        for row, one in zip(rows, operands, strict=True):
            row[:] = summed(one, cut)
        with np.errstate(all="ignore"):  # what is not finite gives what is not a number
            np.add(here.dot, _dots(rows), out=here.dot)
        if len(operands) > 1:
            up, down = _bits(rows > 0), _bits(rows < 0)  # (k, words)
            both = (up | down)[first] & (up | down)[second]  # (pairs, words)
            here.overlap[first, second] += _count(both)
            here.agree[first, second] += _count(both & ~(up[first] ^ up[second]))
    flipped = np.sign(weights)[:, None] * np.sign(weights)[None] < 0
    agree = np.where(flipped, here.overlap - here.agree, here.agree)
    at = np.ix_(where, where)
    total.dot[at], total.overlap[at], total.agree[at] = (
        here.dot * np.outer(weights, weights),
        here.overlap,
        agree,
    )
    return total


def _bits(rows: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(k, n) to (k, n / 64), a bit an element, the last word filled up with zeros."""
    packed = np.packbits(rows, axis=1)
    words = np.zeros((len(rows), -(-packed.shape[1] // 8) * 8), np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint64)


def _count(words: NDArray[np.uint64]) -> I64:
    """How many bits of each row are set, (pairs,)."""
    found: I64 = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return found


def _dots(rows: F32) -> F64:
    """Dot products of every two rows: of a few thousand elements in fp32, and the sum of those in fp64."""
    whole = rows.shape[1] // SHORT * SHORT
    short = rows[:, :whole].reshape(len(rows), -1, SHORT).swapaxes(0, 1)  # (pieces, k, SHORT)
    rest = rows[:, whole:].astype(np.float64)
    products: F64 = (short @ short.swapaxes(1, 2)).sum(axis=0, dtype=np.float64) + rest @ rest.T
    return products


def _blocks(size: int) -> Iterator[slice]:
    for low in range(0, size, BLOCK):
        yield slice(low, low + BLOCK)


def _pair(names: Sequence[str], found: _Products, a: int, b: int) -> Pair:
    norms = float(np.sqrt(found.dot[a, a])), float(np.sqrt(found.dot[b, b]))
    product, overlap = norms[0] * norms[1], int(found.overlap[a, b])
    return Pair(
        names[a],
        names[b],
        cosine=float(found.dot[a, b]) / product if product else 0.0,
        sign_agreement=int(found.agree[a, b]) / overlap if overlap else 0.5,
        overlap=overlap,
        norm_a=norms[0],
        norm_b=norms[1],
    )
