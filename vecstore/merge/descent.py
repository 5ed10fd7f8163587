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

import numpy as np

from pv.registry.dtypes import DTYPES
from pv.registry.errors import CorruptPack, UsageError
from pv.registry.persona import ROUNDINGS, Persona
from pv.vecstore.checkpoints.checkpoint import Weights, read_raw
from pv.vecstore.merge.delta import evaluate, holdings
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.plan import plan, vectors_of
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.vector import Vector

__all__ = ["Descent", "Samples", "sampled_tensors"]

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


class Samples:
    """Parts of a few tensors of a checkpoint, of the base, and of vectors, each read once."""

    def __init__(
        self, checkpoint: Weights, base: Base, vectors: Mapping[str, Vector], names: Sequence[str]
    ) -> None:
        self._base, self._names, self.vectors = base, names, vectors
        self._checkpoint = checkpoint
        self._tensors: dict[str, BaseTensor] = {}
        self._taus: dict[tuple[str, str], F32] = {}

    def __call__(self, persona: Persona) -> Descent | None:
        """How much of the persona's build is in the checkpoint; None if that cannot be seen."""
        try:
            return self._descent(persona)
        except (
            CorruptPack,
            UsageError,
        ):  # damaged, or with weights that cannot be built: no reason to refuse a commit
            return None

    def _descent(self, persona: Persona) -> Descent | None:
        held = holdings({v: self.vectors[v] for v in persona.vectors})
        sums = np.zeros(3)  # <τ,τ>  <f-b,τ>  |f-b-τ|²
        noises = np.zeros((len(ROUNDINGS), 3))  # <r,r>  <τ,r>  <f-b,r>
        same, wider = True, False
        for name in self._names:
            operands = plan(persona, held, name)
            needed = {v: self._tau(v, name) for v in vectors_of(operands)}
            cut = slice(0, SAMPLE)
            if is_linear(persona.combine):
                needed = {v: tau[cut] for v, tau in needed.items()}
            total = evaluate(persona.combine, operands, needed)
            if total is None or name not in self._checkpoint.specs:
                continue
            own, spec = self._tensor(name), self._checkpoint.specs[name]
            b, tau = own.f32[cut], total[cut]
            f = to_f32(read_raw(self._checkpoint, name, 0, min(SAMPLE, spec.numel)), spec.dtype)
            wider = wider or DTYPES[spec.dtype].bits > DTYPES[own.row.dtype].bits
            moved = f.astype(np.float64) - b
            rest = moved - tau
            sums += tau @ tau.astype(np.float64), moved @ tau, rest @ rest
            for at, rounding in enumerate(ROUNDINGS):
                seed = persona.output.seed
                raw = round_to(b + tau, own.row.dtype, rounding, start=0, seed=seed, name=name)
                p = to_f32(raw, own.row.dtype)
                noise = p.astype(np.float64) - b - tau
                noises[at] += noise @ noise, noise @ tau, moved @ noise
                if rounding == persona.output.rounding:
                    same = same and np.array_equal(p, f)
        if not np.isfinite(sums).all() or sums[0] == 0:
            return None
        marks = [mark for noise in noises if (mark := _mark(*sums[:2], *noise)) is not None]
        unmarked = wider or not marks
        return Descent(sums[1] / sums[0], max(marks, default=0.0), sums[2] / sums[0], same, unmarked)

    def _tensor(self, name: str) -> BaseTensor:
        if name not in self._tensors:
            self._tensors[name] = self._base.tensor(name)
        return self._tensors[name]

    def _tau(self, vector: str, name: str) -> F32:
        if (vector, name) not in self._taus:
            self._taus[vector, name] = self.vectors[vector].tau(name, self._tensor(name))
        return self._taus[vector, name]


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
