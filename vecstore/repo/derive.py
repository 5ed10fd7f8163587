"""derive: one vector made of several behaviours by a method that cannot be part of a build, `tsv(a, b, c)`.

It is computed once and kept, and the persona names it like any other vector: a build stays the same bytes everywhere,
though two machines that compute it apart may differ in last bits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.errors import IntegrityError, UsageError
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Merged
from pv.vecstore.merge.delta import touched
from pv.vecstore.merge.derived import by_name, options
from pv.vecstore.merge.derived.core import Core, as_f32, f64
from pv.vecstore.merge.derived.spectra import F64
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.algebra import check_free, read
from pv.vecstore.repo.export_lora import adapter_facts
from pv.vecstore.repo.expression import Call
from pv.vecstore.repo.long_work import long_work
from pv.vecstore.repo.opening import opened
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.derive import EncodingSpec, encode_all
from pv.vecstore.vectors.encodings import lora
from pv.vecstore.vectors.vector import Vector

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["DerivedBehaviour", "derive"]

LORA = EncodingSpec("lora", "lora")

DIGITS = 6  # of the factor that makes norms equal: a number that a person can type


@dataclass(frozen=True, slots=True)
class DerivedBehaviour:
    """A behaviour with one new vector. `factor` is the coefficient of its term: 1, or what makes the norms equal."""

    commit: str
    branch: str
    name: str
    vector: str
    stored_bytes: int
    factor: float
    origin: Merged
    persona: Persona
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "branch": self.branch,
            "behaviour": self.name,
            "vector": self.vector,
            "stored_bytes": self.stored_bytes,
            "factor": self.factor,
            "provenance": self.origin.to_json(),
            "notes": list(self.notes),
            "persona_id": self.persona.id,
        }


def derive(
    repo: Repo,
    name: str,
    text: str,
    *,
    match_norm: bool = False,
    to: str | None = None,
    weight: float | None = None,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> DerivedBehaviour:
    """Make a vector of others by a method, `tsv(a, 0.5*b)`, and commit it as a behaviour.

    What is made of adapters alone is an adapter again, unless `to` names an encoding; by default all else is `float`.
    With `match_norm` its term has the coefficient that gives it the norm of the plain sum. Raises UsageError,
    UnknownBehaviour, IntegrityError for what is not finite.
    """
    asked = None if to in (None, LORA.text) else EncodingSpec.parse(to or "")
    found = read(repo, name, text)
    call = found.made
    if not isinstance(call, Call):
        raise UsageError(
            f"{text!r} is a sum: nothing has to be computed for it",
            hint=f"pv add {name}='{call}' keeps its terms",
        )
    method = by_name(call.method)
    if len(call.sums) < method.LEAST:
        raise UsageError(
            f"{call.method} makes a vector of at least {method.LEAST}, and {len(call.sums)} is given",
            hint=f"pv add {name}='{call.method}(a, b)'",
        )
    settings = options(method, dict(call.options))
    with long_work(repo, also=found.commits) as work:
        check_free(work.persona, name, str(call))
        operands = [found.terms(one, work.persona) for one in call.sums]
        modules = found.modules(call.sums, work.persona)
        work.check(name, weight)
        everything = Behaviour(1.0, tuple(term for terms in operands for term in terms))
        sources = work.persona.without_behaviours().with_behaviour(name, everything)
        with opened(work.registry, work.commit, [sources]) as at:
            names = sorted(touched(at.vectors.values()))
            dense = _first_dense(at.vectors, names, call.method)
            if to == LORA.text and dense is not None:
                raise UsageError(
                    f"{call.method} of these is no adapter: {dense}",
                    hint="leave --to out, or pv add ... --to lowrank:64",
                )
            spec = asked or (LORA if dense is None else EncodingSpec.parse("float"))
            making = _Making(at.base, at.vectors, operands, call.method, settings, spec is LORA)
            manifest, error = encode_all(
                names, making.tau, at.base, spec, work.registry.packs, arrays=making.arrays.get,
                threads=threads, progress=stage(progress, f"computing {call.method}", "elements"),
            )  # fmt: skip
        norm, sum_norm = making.norms()
        origin = Merged(
            call.method, tuple(tuple((t.coefficient, t.vector) for t in terms) for terms in operands), found.words,
            spec.text, error.relative_l2, error.max_abs, norm, sum_norm,
            adapter_facts(work.registry, None, sources.vectors) if spec is LORA else None, settings=settings,
        )  # fmt: skip
        factor = float(f"{sum_norm / norm:.{DIGITS}g}") if match_norm else 1.0
        made = Behaviour(
            1.0 if weight is None else float(weight) + 0.0, (Term(factor, manifest.id),), modules
        )

        def edit(persona: Persona) -> Persona:
            check_free(persona, name, str(call))
            return persona.with_behaviour(name, made)

        commit = work.land(
            repo.command(f"add {name}={call}"), message or f"Add {name} = {found.words}", edit,
            {manifest.id: (manifest, origin)},
        )  # fmt: skip
        return DerivedBehaviour(
            commit, work.branch, name, manifest.id, work.registry.packs.size(manifest.id), factor, origin,
            work.registry.persona(commit), found.notes(call.sums, work.persona, name),
        )  # fmt: skip


def _first_dense(vectors: Mapping[str, Vector], names: Sequence[str], method: str) -> str | None:
    """Why the result has no factors, in words; None if it has."""
    if not by_name(method).ROTATES:
        return f"{method} looks at single elements of delta W"
    for vector in vectors.values():
        for name in sorted(vector.manifest.tensors):
            if not vector.is_factored(name) or len(vector.base.manifest.tensors[name].shape) != 2:
                return f"vector {vector.id[:12]} has no factors for {name!r}"
    return None


@dataclass(frozen=True)
class _Making:
    base: Base
    vectors: Mapping[str, Vector]
    operands: Sequence[tuple[Term, ...]]
    method: str
    settings: Mapping[str, float]
    factored: bool
    arrays: dict[str, Mapping[str, Array]] = field(default_factory=dict)
    _squares: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def tau(self, name: str) -> F32:
        """What the method makes of one tensor, flat."""
        if self.factored:
            return self._in_core(name)
        row, method = self.base.manifest.tensors[name], by_name(self.method)
        taus = {v: vector.tau(name) for v, vector in self.vectors.items() if name in vector.manifest.tensors}
        deltas = [self._delta(terms, taus, row.numel) for terms in self.operands]
        if not all(np.isfinite(delta).all() for delta in deltas):
            raise IntegrityError(
                f"an operand holds infinite or undefined numbers in {name!r}",
                hint="`pv fsck --deep` says which",
            )
        try:
            if len(row.shape) >= 2:
                made = np.concatenate(
                    [
                        method.matrix(each, **self.settings).reshape(-1)
                        for each in _matrices(deltas, row.shape)
                    ]
                )
            else:
                made = method.other(deltas)
        except np.linalg.LinAlgError as error:
            raise IntegrityError(f"{self.method} found no decomposition of {name!r}: {error}") from error
        total: F64 = np.sum(deltas, axis=0, dtype=np.float64)
        with self._lock:
            self._squares[name] = float(made @ made), float(total @ total)
        return made.astype(np.float32)

    def _in_core(self, name: str) -> F32:
        """The same of factors, computed between the directions that they have: an adapter again."""
        pieces = {
            v: vector.factored(name) for v, vector in self.vectors.items() if name in vector.manifest.tensors
        }
        core = Core.of({v: (f64(b) * s, f64(a)) for v, (b, a, s) in pieces.items()})
        deltas = [core.sum((t.coefficient, t.vector) for t in terms) for terms in self.operands]
        room = min(self.base.manifest.tensors[name].shape)
        made = by_name(self.method).matrix(deltas, room, **self.settings)
        b, a = core.factors(made)
        total: F64 = np.sum(deltas, axis=0)
        with self._lock:
            self._squares[name] = float(np.square(made).sum()), float(np.square(total).sum())
            self.arrays[name] = lora.factors(as_f32(a), as_f32(b), 1.0)
        tau: F32 = (b @ a).astype(np.float32).reshape(-1)
        return tau

    def norms(self) -> tuple[float, float]:
        """Of the result, and of the plain sum. Raises UsageError if there is nothing of the first."""
        squares = [self._squares[name] for name in sorted(self._squares)]
        norm, sum_norm = (math.sqrt(math.fsum(one)) for one in zip(*squares, strict=True))
        if not norm:
            raise UsageError(
                f"{self.method} leaves nothing of these: every element of the result is 0",
                hint="`pv diff --weights` compares them",
            )
        return norm, sum_norm

    def _delta(self, terms: tuple[Term, ...], taus: Mapping[str, F32], size: int) -> F32:
        found = [(t.coefficient, taus[t.vector]) for t in terms if t.vector in taus]
        return scaled_sum(found) if found else np.zeros(size, np.float32)


def _matrices(deltas: Sequence[F32], shape: tuple[int, ...]) -> list[list[F32]]:
    """Of each matrix in a tensor (experts lie one behind the other), the deltas as (rows, columns)."""
    stacks = [delta.reshape(-1, *shape[-2:]) for delta in deltas]
    return [[stack[i] for stack in stacks] for i in range(len(stacks[0]))]
