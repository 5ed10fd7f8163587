"""The step from one persona to another, tensor by tensor, where its heads or its spectrum are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pv.registry.persona import Persona
from pv.vecstore.merge.compare import apart
from pv.vecstore.merge.delta import evaluate, holdings, place, taus, touched
from pv.vecstore.merge.diff import Movement
from pv.vecstore.merge.heads import Head, HeadCount, Split
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.plan import plan
from pv.vecstore.merge.spectrum import Spectrum, spectrum
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["step_details"]


def step_details(
    old: Persona,
    new: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    heads: HeadCount | None = None,
    spectra: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[tuple[Head, ...], tuple[Spectrum, ...]]:
    """Heads that moved, if `heads` says how many there are, and spectra of the step, if asked. Raises CorruptPack,
    BaseMismatch."""
    old, new = (settle(persona, base, vectors, threads=threads) for persona in (old, new))
    held = holdings(vectors)
    shapes = {name: base.manifest.tensors[name].shape for name in touched(vectors.values())}
    splits = {name: None if heads is None else heads.split(name, shape) for name, shape in shapes.items()}
    wanted = [name for name, shape in shapes.items() if splits[name] or (spectra and len(shape) == 2)]

    def look(name: str) -> tuple[tuple[Head, ...], Spectrum | None]:
        rules = apart((old.combine, plan(old, held, name)), (new.combine, plan(new, held, name)))
        plans = [operands for _, operands in rules]  # what both add alike is no step, not even rounding
        if not any(plans):
            return (), None
        own = base.tensor(name)
        decoded = taus([*plans[0], *plans[1]], vectors, name, own)
        first, second = (
            evaluate(persona.combine, operands, decoded, place(own))
            for persona, operands in zip((old, new), plans, strict=True)
        )
        zero = np.zeros(own.raw.size, np.float32)
        with np.errstate(all="ignore"):  # what is not finite gives what is not a number
            step = np.subtract(zero if second is None else second, zero if first is None else first)
            split, shape = splits[name], shapes[name]
            moved = () if split is None else tuple(_heads(name, split, step, own.f32))
            return moved, spectrum(name, step.reshape(shape)) if spectra and len(shape) == 2 else None

    found_heads: list[Head] = []
    found_spectra: list[Spectrum] = []
    for done, (moved, spread) in enumerate(ordered_map(look, wanted, threads=threads), 1):
        found_heads += moved
        found_spectra += [] if spread is None else [spread]
        if progress:
            progress(done, len(wanted))
    return tuple(found_heads), tuple(found_spectra)


def _heads(name: str, split: Split, step: F32, base: F32) -> Iterator[Head]:
    for (head, part), (_, there) in zip(split.whole(step), split.whole(base), strict=True):
        wide, own = part.astype(np.float64), there.astype(np.float64)
        moved = Movement(
            name,
            part.size,
            int(np.count_nonzero(part)),
            float(wide @ wide),
            float(own @ own),
            float(np.abs(part).max(initial=0)),
        )
        yield Head(split.projection, head, moved)
