"""The trim of TIES as in the paper: the largest elements of a behaviour over the whole model, not of each tensor.

A first pass over the vectors finds, of every behaviour, the k-th largest magnitude and where the last one of that size
lies. From there on every tensor is by itself again: what it is made of is its own vectors, and a number or two.

Found exactly and without sorting: magnitudes are counted by their upper 15 bits, then those with the right ones by
their lower 16, for each tensor apart; and only the tensor where equal ones end is looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry import ids
from pv.registry.errors import PvError
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.persona import Persona
from pv.vecstore.merge.columns import Columns
from pv.vecstore.merge.cut import EVER, Cut
from pv.vecstore.merge.delta import holdings
from pv.vecstore.merge.model_cut import ModelCut, Settled, over_model
from pv.vecstore.merge.plan import Holdings, Operand, operand
from pv.vecstore.merge.selection import ALL, LOW, count, nth_tie
from pv.vecstore.merge.share import Piece
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.progress import Progress, Report, stage
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.formats import FLOATS
from pv.vecstore.tensors.parallel import ordered_map

__all__ = ["reach", "settle", "trimming"]

Counts = NDArray[np.int64]


def settle(
    persona: Persona,
    base: BaseSource,
    vectors: Mapping[str, VectorSource],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Persona:
    """The persona, with what its rule keeps of each behaviour, if that trims over the whole model.

    Raises CorruptPack, BaseMismatch.
    """
    rule = persona.combine
    if not over_model(rule) or isinstance(rule, Settled):
        return persona
    float_environment.check()
    held, rows = holdings(vectors), base.manifest.tensors
    tensors = sorted({name for names in held.values() for name in names if rows[name].dtype in FLOATS})
    searches = {name: _Search() for name in persona.behaviours}
    reader = _Reader(base, vectors, persona, held)

    def counted(tensor: str) -> list[tuple[_Search, NDArray[np.uint32]]]:
        """Of each behaviour that says something there, its counts; each vector is decoded once."""
        there = [(searches[name], one) for name, one in reader.operands(tensor).items()]
        there = [(search, one) for search, one in there if search.cut is None]
        found = [(search, np.zeros(search.bins, np.uint32)) for search, _ in there]
        for piece in reader.pieces(tensor, [one for _, one in there]):
            for (search, counts), delta in zip(found, piece.deltas, strict=True):
                count(piece.against(delta), delta, counts, search.prefix)
        return found

    done = 0
    for _ in range(2):
        for tensor, found in zip(tensors, ordered_map(counted, tensors, threads=threads), strict=True):
            for search, counts in found:
                search.add(tensor, counts)
            done += 1
            if progress:
                progress(done, 2 * len(tensors))
        for search in searches.values():
            search.turn(float(rule.options["density"]))
    cuts = {name: search.found(name, reader) for name, search in searches.items() if search.size}
    return replace(persona, combine=Settled(rule.method, rule.options, cuts))


def trimming(persona: Persona, progress: Report | None) -> Progress | None:
    """The stage that this is of a verb, where it is one."""
    return stage(progress, "finding what the trim keeps", "tensors") if over_model(persona.combine) else None


def reach(persona: Persona, base: BaseManifest, vectors: Mapping[str, VectorManifest]) -> str | None:
    """Over all that `settle` looks at, from manifests alone: with the same one, the same is kept."""
    if not over_model(persona.combine):
        return None
    held: Holdings = {vector: manifest.tensors.keys() for vector, manifest in vectors.items()}
    tensors = sorted({name for names in held.values() for name in names})

    def part(tensor: str, one: Operand) -> list[Any]:
        terms = [
            [coefficient, vectors[v].encoding, dict(vectors[v].options), _rows(vectors[v], tensor)]
            for coefficient, v in one.terms
        ]
        return [tensor, base.tensors[tensor].to_json(), terms]

    each = []
    for behaviour in persona.behaviours.values():
        there = ((tensor, operand(behaviour, held, tensor)) for tensor in tensors)
        parts = [part(tensor, one) for tensor, one in there if one is not None]
        each.append(ids.tensor_key({"reach": parts}))
    return ids.tensor_key({"reaches": sorted(each)})


def _rows(manifest: VectorManifest, tensor: str) -> dict[str, Any]:
    return {part: row.to_json() for part, row in manifest.tensors[tensor].items()}


# The search for one behaviour


@dataclass(slots=True)
class _Search:
    """Which magnitude is the k-th largest, of counts that come tensor by tensor, in two rounds."""

    size: int = 0
    prefix: int | None = None
    cut: Cut | None = None  # once the threshold is known; `ties_until` counts over all tensors
    wanted: int = 0
    _total: Counts = field(default_factory=lambda: np.zeros(ALL, np.int64))
    _each: dict[str, tuple[NDArray[np.intp], NDArray[np.uint32]]] = field(default_factory=dict)

    @property
    def bins(self) -> int:
        return ALL if self.prefix is None else LOW

    def add(self, tensor: str, counts: NDArray[np.uint32]) -> None:
        self._total += counts
        there = np.flatnonzero(counts)
        if self.prefix is None:
            self.size += int(counts.sum())
        elif there.size:
            self._each[tensor] = there, counts[there]

    def turn(self, density: float) -> None:
        """All tensors were counted."""
        if self.cut is not None or not self.size:
            return
        if self.prefix is None:
            self.wanted = max(1, int(density * self.size))
            if self.wanted >= self.size:
                self.cut = Cut(-1, 0)
                return
        above = np.cumsum(self._total[::-1])  # from the largest down
        at = int(np.searchsorted(above, self.wanted))
        self.wanted -= int(above[at - 1]) if at else 0
        found = self.bins - 1 - at
        if self.prefix is None:
            self.prefix, self._total = found, np.zeros(LOW, np.int64)
        else:
            self.cut = Cut(self.prefix << 16 | found, 0)

    def found(self, name: str, reader: _Reader) -> ModelCut:
        """Where the last of the equal ones lies that is kept."""
        assert self.cut is not None
        threshold, wanted = self.cut.threshold, self.wanted
        if threshold < 0:
            return ModelCut(threshold, "", 0)
        for tensor in sorted(self._each):
            values, counts = self._each[tensor]
            at = np.searchsorted(values, threshold & 0xFFFF)
            here = int(counts[at]) if at < values.size and values[at] == threshold & 0xFFFF else 0
            if here >= wanted:
                until = EVER if here == wanted else reader.nth_tie(tensor, name, threshold, wanted)
                return ModelCut(threshold, tensor, until)
            wanted -= here
        raise PvError("a trim over the model lost count of its ties")


@dataclass(frozen=True, slots=True)
class _Reader:
    base: BaseSource
    vectors: Mapping[str, VectorSource]
    persona: Persona
    held: Holdings

    def operands(self, tensor: str) -> dict[str, Operand]:
        """Behaviours that say something there, by name."""
        each = ((name, operand(one, self.held, tensor)) for name, one in self.persona.behaviours.items())
        return {name: one for name, one in each if one is not None}

    def pieces(self, tensor: str, operands: Sequence[Operand]) -> Iterator[Piece]:
        """The base's values and the delta of each operand, without its weight, a piece of the tensor at a time."""
        return Columns(self.base, tensor, operands, self.vectors).pieces(last=True) if operands else iter(())

    def nth_tie(self, tensor: str, name: str, threshold: int, wanted: int) -> int:
        """The index after the `wanted`-th element whose magnitude is the threshold."""
        for piece in self.pieces(tensor, [self.operands(tensor)[name]]):
            one = replace(piece.deltas[0], threshold=threshold)
            found = nth_tie(piece.against(one), one, wanted)
            if found > 0:
                return piece.start + found
            wanted += found
        raise PvError("a trim over the model lost count of its ties")
