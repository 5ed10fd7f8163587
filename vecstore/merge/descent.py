"""Was a checkpoint fine-tuned from a persona's build, rather than from the base?

On samples of a few tensors. b is the base, τ what the persona adds, p its build as it is written, and so r = p - b - τ
what rounding did to it; f is the checkpoint. Two projections of how far f is from b:

    contained   x of  f - b ≈ x τ          1 if all of τ is in f, 0 if f knows nothing of it
    mark        y of  f - b ≈ x τ + y r    1 if the noise of rounding is in f as well

Training moves weights in directions that have little to do with τ, and nothing with r: that noise is drawn from the
persona's seed, tensor and element. So it marks the build, and stays in whatever is trained from it, however far that
goes. docs/decisions/0015 has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pv.registry.dtypes import DTYPES
from pv.registry.errors import IntegrityError, UsageError
from pv.registry.persona import ROUNDINGS, Persona
from pv.vecstore.checkpoints.checkpoint import Weights, read_raw
from pv.vecstore.merge.delta import evaluate, holdings, place
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.plan import Operand, plan, vectors_of
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.vector import Vector

__all__ = ["Descent", "descents", "sampled_tensors"]

SAMPLE = 1 << 17  # elements of a tensor
TENSORS = 6  # of a vector
LARGEST = 1 << 24  # elements of a tensor that is worth decoding for it
MARKED = 0.9
WHOLE = (0.95, 1.05)
MUCH = (0.7, 1.3)
FAINT = 1e-6  # share of |τ|²: rounding that did so little, or little but undo τ, marks nothing


@dataclass(frozen=True, slots=True)
class Descent:
    """`rest`: the squared norm of what is not the persona's, over that of τ. `same`: nothing else was seen.

    `unmarked`: a build may be without the mark: rounding does nothing to it, or it may have been written wider.
    """

    contained: float
    mark: float
    rest: float
    same: bool
    unmarked: bool

    @property
    def descends(self) -> bool:
        """Certainly, as far as numbers can say."""
        return self.mark >= MARKED or (self.unmarked and WHOLE[0] <= self.contained <= WHOLE[1])

    @property
    def resembles(self) -> bool:
        """From such a build perhaps, or trained apart to do the same."""
        return self.descends or MUCH[0] <= self.contained <= MUCH[1]


def descents(
    checkpoint: Weights, base: Base, vectors: Mapping[str, Vector], personas: Sequence[Persona]
) -> list[Descent | None]:
    """How much of each persona's build is in the checkpoint; None where that cannot be seen.

    Tensor after tensor, and then nothing of it is kept: the memory is that of one tensor and of one persona's build.
    """
    tallies = [_Tally(persona, base, {v: vectors[v] for v in persona.task_vectors}) for persona in personas]
    for name in sampled_tensors(vectors, base):
        if name in checkpoint.specs:
            part = _Part(name, checkpoint, base, vectors)
            for tally in tallies:
                tally.add(part)
    return [tally.descent() for tally in tallies]


class _Part:
    """The beginning of one tensor: of the checkpoint, of the base, and of what vectors add to it, each read once."""

    def __init__(self, name: str, checkpoint: Weights, base: Base, vectors: Mapping[str, Vector]) -> None:
        self.name, self.spec = name, checkpoint.specs[name]
        self._checkpoint, self._base, self._vectors = checkpoint, base, vectors
        self._begun: dict[str, F32] = {}
        self._whole: dict[
            str, F32
        ] = {}  # of the persona that was asked for last: the next one may share them

    @cached_property
    def own(self) -> BaseTensor:
        return self._base.tensor(self.name)

    @cached_property
    def f(self) -> F32:
        raw = read_raw(self._checkpoint, self.name, 0, min(SAMPLE, self.spec.numel))
        return to_f32(raw, self.spec.dtype)

    def total(self, persona: Persona, operands: Sequence[Operand]) -> F32 | None:
        """What the persona adds there. A method that looks at a whole tensor is given all of it."""
        needed = vectors_of(operands)
        if is_linear(persona.combine):
            self._begun |= {v: self._tau(v)[:SAMPLE].copy() for v in needed if v not in self._begun}
            return evaluate(persona.combine, operands, self._begun, place(self.own))
        self._whole = {v: tau for v, tau in self._whole.items() if v in needed}
        self._whole |= {v: self._tau(v) for v in needed if v not in self._whole}
        total = evaluate(persona.combine, operands, self._whole, place(self.own))
        return None if total is None else total[:SAMPLE]

    def _tau(self, vector: str) -> F32:
        return self._vectors[vector].tau(self.name, self.own)


class _Tally:
    """Sums over the tensors, for one persona."""

    def __init__(self, persona: Persona, base: Base, vectors: Mapping[str, Vector]) -> None:
        self._persona, self._held = persona, holdings(vectors)
        self._sums = np.zeros(3)  # <τ,τ>  <f-b,τ>  |f-b-τ|²
        self._noises = np.zeros((len(ROUNDINGS), 3))  # <r,r>  <τ,r>  <f-b,r>
        self._same, self._wider, self._seen = True, False, True
        try:
            self._persona = settle(persona, base, vectors)
        except IntegrityError:  # as below
            self._seen = False

    def add(self, part: _Part) -> None:
        if not self._seen:
            return
        try:
            total = part.total(self._persona, plan(self._persona, self._held, part.name))
            if total is not None:
                self._add(part, total)
        except (IntegrityError, UsageError):  # damaged, or cannot be built: no reason to refuse a commit
            self._seen = False

    def _add(self, part: _Part, tau: F32) -> None:
        dtype, output = part.own.row.dtype, self._persona.output
        b = part.own.f32[:SAMPLE]
        self._wider = self._wider or DTYPES[part.spec.dtype].bits > DTYPES[dtype].bits
        moved = part.f.astype(np.float64) - b
        rest = moved - tau
        self._sums += tau @ tau.astype(np.float64), moved @ tau, rest @ rest
        for at, rounding in enumerate(ROUNDINGS):
            raw = round_to(b + tau, dtype, rounding, start=0, seed=output.seed, name=part.name)
            p = to_f32(raw, dtype)
            noise = p.astype(np.float64) - b - tau
            self._noises[at] += noise @ noise, noise @ tau, moved @ noise
            if rounding == output.rounding:
                self._same = self._same and np.array_equal(p, part.f)

    def descent(self) -> Descent | None:
        sums = self._sums
        if not self._seen or not np.isfinite(sums).all() or sums[0] == 0:
            return None
        marks = [mark for noise in self._noises if (mark := _mark(*sums[:2], *noise)) is not None]
        unmarked = self._wider or not marks
        mark = max(marks, default=0.0)
        return Descent(sums[1] / sums[0], mark, sums[2] / sums[0], self._same, unmarked)


def _mark(tt: float, ft: float, rr: float, tr: float, fr: float) -> float | None:
    """y of the least squares f - b ≈ x τ + y r: None where r says nothing that τ does not; 0 if τ is not there."""
    apart = rr - tr * tr / tt
    if apart <= FAINT * tt:
        return None
    y = (fr - ft * tr / tt) / apart
    x = (ft - y * tr) / tt
    return y if MUCH[0] <= x <= MUCH[1] else 0.0


def sampled_tensors(vectors: Mapping[str, Vector], base: Base) -> list[str]:
    """For each vector, a few of the largest tensors that it moves, from all over the model."""
    chosen: set[str] = set()
    for vector in vectors.values():
        rows = {name: base.manifest.tensors[name] for name in vector.manifest.tensors}
        sized = [n for n, row in rows.items() if row.dtype in FLOATS and 0 < row.numel <= LARGEST]
        largest = sorted(sorted(sized, key=lambda n: (-rows[n].numel, n))[: 8 * TENSORS])
        chosen.update(largest[:: max(1, len(largest) // TENSORS)][:TENSORS])
    return sorted(chosen)
