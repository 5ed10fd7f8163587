"""A persona as one adapter: the factors of its vectors side by side, exact, or cut down to a rank that is asked for.

`add` is linear, so a sum of adapters is an adapter: A stacked, w_i s_i B_i side by side. Methods that look at single
elements are not: they act on delta W, never on A and B, of which there are many for one delta W. So under those, and
of what is no product of factors, an adapter is made of delta W itself, and only for a rank that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry import canonical, ids
from pv.registry.errors import IntegrityError, UsageError
from pv.registry.manifest import Spec, TensorRow
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.side_files import EXPORT
from pv.vecstore.merge.delta import evaluate, holdings, place, taus, touched
from pv.vecstore.merge.folder import Finished, Write, Written, write_folder
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.plan import Operand, plan
from pv.vecstore.merge.shards import Shard
from pv.vecstore.packs.write import Part
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.adapters.config import CONFIG
from pv.vecstore.vectors.adapters.file import WEIGHTS
from pv.vecstore.vectors.adapters.write import Layout, Module, alpha_of, config_bytes, crossing, keys
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.factors import F64, Kept, of_delta, recompressed
from pv.vecstore.vectors.spool import Spool
from pv.vecstore.vectors.vector import Vector

__all__ = ["Adapted", "ModuleLoss", "write_adapter"]


@dataclass(frozen=True, slots=True)
class ModuleLoss:
    """What was cut of a module, as sums of squares."""

    module: str
    cut: float
    whole: float

    @property
    def relative(self) -> float:
        """The norm of what was cut, over that of the whole."""
        return math.sqrt(self.cut / self.whole) if self.whole else 0.0


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter that was written. `losses` are empty where it is exact; `left_out` are no matrices."""

    written: Written
    ranks: Mapping[str, int]
    losses: tuple[ModuleLoss, ...] = ()
    left_out: tuple[ModuleLoss, ...] = field(default=())

    @property
    def residual(self) -> float:
        """The norm of all that was cut or left out, over that of all that the persona adds."""
        parts = (*self.losses, *self.left_out)
        whole = sum(part.whole for part in parts)
        return math.sqrt(sum(part.cut for part in parts) / whole) if whole else 0.0


@dataclass(frozen=True, slots=True)
class _Made:
    tensor: str
    b: Array
    a: Array
    scale: float
    loss: ModuleLoss


def write_adapter(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    out: Path,
    layout: Layout,
    *,
    rank: int | None = None,
    threads: int = 2,
    force: bool = False,
    progress: Progress | None = None,
) -> Adapted:
    """Write the persona as a PEFT adapter to the folder `out`: exact, or of at most `rank`.

    Raises UsageError for what has no factors, where no rank is given, and IntegrityError for what is not finite.
    """
    persona = settle(persona, base, vectors, threads=threads)
    held = holdings(vectors)
    planned = {
        name: found for name in sorted(touched(vectors.values())) if (found := plan(persona, held, name))
    }
    if not planned:
        raise UsageError(
            "nothing is added to the base: there is no adapter of it", hint="`pv status` lists the weights"
        )
    matrices = {name for name in planned if _is_matrix(base, name)}
    if rank is None:
        _check_factored(persona, vectors, planned, matrices)
    with Spool(out.parent) as spool:
        modules: list[Module] = []
        parts: dict[str, Part] = {}
        losses: list[ModuleLoss] = []
        left_out: list[ModuleLoss] = []
        verbatim = rank is None and all(
            len(_pieces(operands)) == 1 and _pieces(operands)[0][0] > 0 for operands in planned.values()
        )
        making = _Making(persona, base, vectors, planned, rank, verbatim)
        for done, made in enumerate(ordered_map(making.tensor, sorted(planned), threads=threads), 1):
            if isinstance(made, _Made):
                module = _module(layout, made)
                modules.append(module)
                losses += [made.loss] if rank is not None else []
                for key, array in keys(module, made.b, made.a).items():
                    parts[key] = spool.part(key, "", array)
            elif made.whole:
                left_out.append(made)
            if progress:
                progress(done, len(planned))
        if not modules:
            raise UsageError(f"no matrix of the base is moved, but {_listed(planned.keys() - matrices)}")
        config = config_bytes(modules, base.manifest, layout)
        said = {"schema": 1, "base": base.manifest.id, "persona": persona.id}
        written = _write(parts, {CONFIG: config, EXPORT: canonical.dumps(said)}, out, force=force)
    return Adapted(written, {m.name: m.rank for m in modules}, tuple(losses), tuple(left_out))


@dataclass(frozen=True, slots=True)
class _Making:
    persona: Persona
    base: Base
    vectors: Mapping[str, Vector]
    planned: Mapping[str, tuple[Operand, ...]]
    rank: int | None
    verbatim: bool

    def tensor(self, name: str) -> _Made | ModuleLoss:
        """The factors of one tensor; of what is no matrix, what is lost with it."""
        operands = self.planned[name]
        linear = is_linear(self.persona.combine)
        if not _is_matrix(self.base, name):
            delta = self._delta(name, operands).astype(np.float64)
            return ModuleLoss(name, whole := float(delta @ delta), whole)
        if not linear or not all(self.vectors[v].is_factored(name) for _, v in _pieces(operands)):
            assert self.rank is not None  # else it was refused
            shape = self.base.manifest.tensors[name].shape
            return self._kept(name, of_delta(self._delta(name, operands).reshape(shape), self.rank))
        found = [(weight, *self.vectors[v].factored(name)) for weight, v in _pieces(operands)]
        if self.verbatim:
            ((weight, b, a, s),) = found
            return _Made(name, b, a, weight * s, ModuleLoss(name, 0.0, 0.0))
        wide = np.concatenate([_f64(b) * (weight * s) for weight, b, _, s in found], axis=1)
        tall = np.concatenate([_f64(a) for _, _, a, _ in found])
        if self.rank is None:
            return self._kept(name, Kept(wide.astype(np.float32), tall.astype(np.float32), 0.0, 0.0))
        kept = recompressed(wide, tall, self.rank)
        if wide.shape[1] <= self.rank:  # nothing to cut: the very factors
            kept = Kept(wide.astype(np.float32), tall.astype(np.float32), 0.0, kept.whole)
        return self._kept(name, kept)

    def _kept(self, name: str, kept: Kept) -> _Made:
        if not (np.isfinite(kept.b).all() and np.isfinite(kept.a).all()):
            raise IntegrityError(
                f"the factors of {name!r} leave the finite numbers", hint="use smaller weights"
            )
        b, a = (
            Array("F32", x.shape, np.ascontiguousarray(x).reshape(-1).view("<u4")) for x in (kept.b, kept.a)
        )
        return _Made(name, b, a, 1.0, ModuleLoss(name, kept.cut, kept.whole))

    def _delta(self, name: str, operands: tuple[Operand, ...]) -> F32:
        own = self.base.tensor(name)
        found = evaluate(self.persona.combine, operands, taus(operands, self.vectors, name, own), place(own))
        if found is None:
            return np.zeros(own.row.numel, np.float32)
        if not np.isfinite(found).all():
            raise IntegrityError(
                f"what is added to {name!r} is not finite", hint="`pv fsck --deep` says more"
            )
        return found


def _pieces(operands: tuple[Operand, ...]) -> list[tuple[float, str]]:
    """(weight, vector) of a linear rule."""
    return [(operand.weight * share, vector) for operand in operands for share, vector in operand.terms]


def _check_factored(
    persona: Persona,
    vectors: Mapping[str, Vector],
    planned: Mapping[str, tuple[Operand, ...]],
    matrices: Collection[str],
) -> None:
    anyway = "--rank 64 makes an adapter of the sum itself, by a singular value decomposition, and says what that loses"
    if not is_linear(persona.combine):
        raise UsageError(
            f"the persona combines with {persona.combine.method}, which acts on the elements of delta W and not on "
            "the factors A and B: there is no exact adapter of it",
            hint=f"{anyway}; `pv combine add` combines by a sum",
        )
    dense: dict[str, list[str]] = {}
    for name, operands in planned.items():
        for _, vector in _pieces(operands):
            if not vectors[vector].is_factored(name) or name not in matrices:
                dense.setdefault(vector, []).append(name)
    if dense:
        names = {
            v: n
            for n, b in sorted(persona.behaviours.items(), reverse=True)
            for v in (t.vector for t in b.terms)
        }
        vector, tensors = min(dense.items(), key=lambda item: names[item[0]])
        raise UsageError(
            f"{names[vector]} has no factors for {_listed(tensors)} (vector {vector[:12]}, "
            f"{vectors[vector].manifest.encoding}): there is no exact adapter of it",
            hint=anyway,
        )


def _is_matrix(base: Base, name: str) -> bool:
    return name.endswith(".weight") and len(base.manifest.tensors[name].shape) == 2


def _module(layout: Layout, made: _Made) -> Module:
    rank = made.a.shape[0]
    return Module(
        layout.module(made.tensor), rank, alpha_of(made.scale, rank), *crossing(layout, made.tensor)
    )


def _f64(array: Array) -> F64:
    return to_f32(array.raw, array.dtype).astype(np.float64).reshape(array.shape)


def _write(parts: Mapping[str, Part], beside: Mapping[str, bytes], out: Path, *, force: bool) -> Written:
    specs = {key: Spec(part.dtype, part.shape) for key, part in sorted(parts.items())}

    def tensor(key: str, dtype: str, write: Write) -> Finished:
        spec = specs[key]
        raw = parts[key].read(0, spec.numel)
        write(raw.data.cast("B"))
        return Finished(key, TensorRow(dtype, spec.shape, ids.tensor_id(dtype, spec.shape, raw.data)), None)

    shards = (Shard(WEIGHTS, specs),)
    return write_folder(out, shards, tensor, lambda _: beside, threads=1, force=force, progress=None)


def _listed(names: Any) -> str:
    """`'a.weight'`, `'a.weight' and 3 more tensors`"""
    ordered = sorted(names)
    more = len(ordered) - 1
    return f"{ordered[0]!r}" + (f" and {more} more tensor{'s' if more > 1 else ''}" if more else "")
