"""Means of directions: what slerp, nuslerp, multislerp and karcher do, as factors for the vectors that they are given.

Whatever is made of vectors along arcs between them lies in their span. So all of it is worked out on their inner
products, in 40 digits, and a tensor sees one sum of scaled vectors. The inner products come from `tensors/reduce`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np

from pv.registry.errors import IntegrityError, UsageError
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.reduce import Total
from pv.vecstore.tensors.scalars import EXACT, acos, cos, sin

__all__ = ["Span", "inner_products", "karcher", "models", "multislerp", "slerp"]

Vector = tuple[Decimal, ...]
"""A vector in the span: a factor for each of those that span it."""

_FLAT = Decimal("1e-8")  # sine of an angle below which an arc is a straight line
_ZERO, _ONE = Decimal(0), Decimal(1)


@dataclass(frozen=True, slots=True)
class Span:
    """Vectors, by their inner products: `gram[i][j]` is ⟨vᵢ, vⱼ⟩."""

    gram: tuple[tuple[Decimal, ...], ...]

    @property
    def count(self) -> int:
        return len(self.gram)

    def length(self, i: int) -> Decimal:
        return self.gram[i][i].sqrt(EXACT)

    def inner(self, x: Vector, y: Vector) -> Decimal:
        pairs = [(i, j) for i in range(self.count) for j in range(self.count)]
        return sum((x[i] * y[j] * self.gram[i][j] for i, j in pairs), _ZERO)

    def norm(self, x: Vector) -> Decimal:
        return max(self.inner(x, x), _ZERO).sqrt()

    def unit(self, i: int) -> Vector:
        length = self.length(i)
        return tuple(1 / length if j == i else _ZERO for j in range(self.count))

    def zero(self) -> Vector:
        return (_ZERO,) * self.count


def inner_products(
    tensor: Tensor,
    voices: Sequence[Voice],
    *,
    with_base: bool = False,
    of: Callable[[Piece, Voice], F32] = Piece.tau,
) -> Span:
    """Of what the voices add, without their weights; `with_base`, of the base before them. One pass.

    Raises IntegrityError if one holds what is infinite or undefined.
    """
    count = len(voices) + with_base
    sums = {(i, j): Total() for i in range(count) for j in range(i + 1)}
    for piece in tensor.pieces():
        vectors = [*([piece.base] if with_base else []), *(of(piece, voice) for voice in voices)]
        wide = [vector.astype(np.float64) for vector in vectors]
        for (i, j), total in sums.items():
            total.add(wide[i], wide[j])
    rows = [[_ZERO] * count for _ in range(count)]
    for (i, j), total in sums.items():
        product = Decimal(total.value)
        if product.is_nan():
            raise IntegrityError(
                f"tensor {tensor.name!r} holds infinite or undefined numbers, which have no length",
                hint="combine with add, which leaves them where they are: `pv combine add`",
            )
        rows[i][j] = rows[j][i] = product
    return Span(tuple(map(tuple, rows)))


def models(deltas: Span) -> Span:
    """Of the base and some deltas: the inner products of the models base + delta, exact but for 40 digits."""
    with localcontext(EXACT):
        g = deltas.gram
        count = deltas.count
        return Span(
            tuple(
                tuple(g[0][0] + g[0][i] + g[0][j] + g[i][j] for j in range(1, count)) for i in range(1, count)
            )
        )


def slerp(span: Span, t: Decimal, *, straight_from: Decimal | None = None) -> Vector:
    """Of two vectors: sin((1-t)θ)/sin θ and sin(tθ)/sin θ, θ the angle between them; 1-t and t on a straight line.

    That is where one of them is zero, where they are parallel or opposite, and where |cos θ| is above `straight_from`.
    """
    with localcontext(EXACT):
        straight = (1 - t, t)
        lengths = span.length(0) * span.length(1)
        if lengths == 0:
            return straight
        cosine = span.gram[0][1] / lengths
        angle = acos(cosine)
        sine = sin(angle)
        if sine < _FLAT or (straight_from is not None and abs(cosine) > straight_from):
            return straight
        return sin((1 - t) * angle) / sine, sin(t * angle) / sine


def multislerp(span: Span, weights: Sequence[Decimal], where: str, *, step: bool) -> Vector:
    """The weighted mean of the directions, or one `step` on the sphere from it to theirs; as long as the mean length.

    What is zero has no direction: it counts in the length alone. Raises UsageError where the directions cancel.
    """
    with localcontext(EXACT):
        units, shares, length = _directions(span, weights)
        if not units:
            return span.zero()
        mean = _normalised(span, _mix(span, units, shares), where)
        if step:
            mean = _walk(span, mean, _mean_of_logs(span, units, shares, mean, where))
        return _scaled(length, mean)


def karcher(span: Span, weights: Sequence[Decimal], steps: int, tolerance: Decimal, where: str) -> Vector:
    """The weighted mean of the directions on the sphere (Karcher), as long as they are on average.

    It is walked to from their straight mean, in at most so many steps, until one is shorter than the tolerance, which
    is an angle. Raises UsageError where the directions cancel.
    """
    with localcontext(EXACT):
        units, shares, length = _directions(span, weights)
        if not units:
            return span.zero()
        mean = _normalised(span, _mix(span, units, shares), where)
        for _ in range(steps):
            step = _mean_of_logs(span, units, shares, mean, where)
            if span.norm(step) < tolerance:
                break
            mean = _walk(span, mean, step)
        return _scaled(length, mean)


def _directions(span: Span, weights: Sequence[Decimal]) -> tuple[list[Vector], list[Decimal], Decimal]:
    """Unit vectors of those that are not zero, their weights of 1 together, and the mean length of all."""
    total = sum(weights, _ZERO)
    length = sum((w * span.length(i) for i, w in enumerate(weights)), _ZERO) / total
    present = [i for i in range(span.count) if span.gram[i][i] > 0]
    among = sum((weights[i] for i in present), _ZERO)
    return [span.unit(i) for i in present], [weights[i] / among for i in present], length


def _mix(span: Span, vectors: Sequence[Vector], shares: Sequence[Decimal]) -> Vector:
    columns = range(span.count)
    pairs = list(zip(shares, vectors, strict=True))
    return tuple(sum((share * vector[c] for share, vector in pairs), _ZERO) for c in columns)


def _scaled(factor: Decimal, x: Vector) -> Vector:
    return tuple(factor * c for c in x)


def _normalised(span: Span, x: Vector, where: str) -> Vector:
    length = span.norm(x)
    if length < _FLAT:
        raise _cancelled(where)
    return _scaled(1 / length, x)


def _mean_of_logs(
    span: Span, units: Sequence[Vector], shares: Sequence[Decimal], mean: Vector, where: str
) -> Vector:
    """Σ share · θ/sin θ · (u - cos θ · mean): the mean direction from `mean` to the others, as long as its angle."""
    logs = []
    for unit in units:
        cosine = span.inner(unit, mean)
        angle = acos(cosine)
        sine = sin(angle)
        if sine < _FLAT:
            if cosine < 0:
                raise _cancelled(where)
            logs.append(span.zero())
        else:
            logs.append(tuple(angle / sine * (u - cosine * m) for u, m in zip(unit, mean, strict=True)))
    return _mix(span, logs, shares)


def _walk(span: Span, start: Vector, step: Vector) -> Vector:
    """As far as the step is long, along the great circle that it points to."""
    angle = span.norm(step)
    if angle < _FLAT:
        return start
    along, aside = cos(angle), sin(angle) / angle
    return tuple(along * s + aside * t for s, t in zip(start, step, strict=True))


def _cancelled(where: str) -> UsageError:
    return UsageError(
        f"the directions in tensor {where!r} cancel: they have no mean on the sphere",
        hint="combine with add or linear: `pv combine linear`",
    )
