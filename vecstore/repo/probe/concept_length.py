"""The length of a behaviour: the candidates of `pv compress`, searched for each kind of encoding by itself.

What is compared is the behaviour alone on its base, in fp32: the vectors as they are against each encoding of them.
Baselines: the same share of elements chosen at random, as they are and made larger by one over the share, and one
steering vector of 16 bits a number. They are of A and B, so there are some only where these are the base and the
behaviour alone at weight 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import Distributions, Neutral, damage
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.statistics import Interval, effect, kept
from pv.vecstore.merge.build import build_id
from pv.vecstore.probe.length import KINDS, Baseline, Length, Rung, ideal_bytes, next_rung
from pv.vecstore.probe.values import read
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.candidates import Candidates
from pv.vecstore.repo.long_work import LongWork
from pv.vecstore.repo.probe.concept_model import margins_from, margins_json
from pv.vecstore.repo.probe.pair import Pair, pair
from pv.vecstore.repo.probe.record import ProbeRecord
from pv.vecstore.repo.probe.sides import Sides
from pv.vecstore.repo.steer.swept import part_of_neutral_set
from pv.vecstore.vectors.derive import EncodingSpec

if TYPE_CHECKING:
    from pv.registry.persona import Persona
    from pv.vecstore.repo.repo import Repo

__all__ = ["length_of"]

BITS = {"sparse": 16, "ternary": 1}  # of what an element that is kept takes


def length_of(
    repo: Repo,
    asked: Sides,
    rows: Rows,
    record: ProbeRecord,
    *,
    seed: int,
    vector: tuple[int, Interval | None],
    threads: int,
    progress: Report | None,
) -> Length:
    """`vector`: the width of a steering vector, and what it keeps of the effect. Without baselines where A and B are
    not the base and the behaviour alone at weight 1. Raises as `Candidates` does."""
    with ExitStack() as held:
        packs = repo.registry.packs
        for one in sorted(asked.b.persona.vectors):
            if packs.has(one):
                held.enter_context(packs.holding(one))
        search = held.enter_context(_Search(repo, asked, rows, record, threads, progress))
        found = search.found()
        alike = asked.a.persona.is_base and asked.b.build == build_id(search.candidates.alone())
    noted = record.part(
        "length",
        lambda: {
            "baselines": [
                _plain(one)
                for one in (
                    _masks(repo, asked, rows, record, found, seed, threads, progress) if alike else ()
                )
            ]
        },
    )
    if not alike:
        return found
    masks = read(Length, {**found.to_json(), "baselines": noted["baselines"]}).baselines
    width, share = vector
    return found.with_baselines([*masks, Baseline("one steering vector", 2.0 * width, share)])


class _Search:
    """A context manager, because candidates are temporary."""

    def __init__(
        self, repo: Repo, asked: Sides, rows: Rows, record: ProbeRecord, threads: int, progress: Report | None
    ) -> None:
        assert asked.behaviour is not None
        work = LongWork(repo.registry, repo.head.branch, asked.b.commit)
        self.candidates = Candidates(work, asked.behaviour, threads=threads, persona=asked.b.persona)
        self.rows, self.neutral = rows, part_of_neutral_set()
        self.record, self.progress = record, progress
        self._held = ExitStack()
        self._known: tuple[Margins, Margins, Neutral, Distributions] | None = None

    def __enter__(self) -> _Search:
        self._held.enter_context(self.candidates)
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.close()

    def found(self) -> Length:
        """Each kind's ladder by bisection."""
        rungs: list[Rung] = []
        for kind, ladder in KINDS.items():
            tried: dict[str, bool] = {}
            while (encoding := next_rung(ladder, tried)) is not None:
                noted = self.record.part(f"length:{encoding}", partial(self._rung, encoding, kind))
                rung = read(Rung, noted)
                tried[encoding] = rung.holds
                rungs.append(rung)
        whole = self.record.part("length:whole", self._whole)
        return Length(
            self.candidates.name, self.candidates.elements(), self.candidates.stored_bytes,
            read(Interval, whole), tuple(sorted(rungs, key=lambda one: one.stored_bytes)),
        )  # fmt: skip

    def _whole(self) -> dict[str, Any]:
        before, alone, _, _ = self._before()
        return _plain(effect(alone, before))

    def _rung(self, encoding: str, kind: str) -> dict[str, Any]:
        before, alone, quiet, distributions = self._before()
        label = f"encoding {self.candidates.name} as {encoding}"
        spec = EncodingSpec.parse(encoding)
        candidate = self.candidates.make(spec, progress=stage(self.progress, label))
        after, lost = self._measure(
            self.candidates.alone(candidate), f"{self.candidates.name} as {encoding}", distributions
        )
        more = damage(lost, quiet)
        share = self.candidates.filled(candidate) if kind in BITS else None
        ideal = None if share is None else ideal_bytes(self.candidates.elements(), share, BITS[kind])
        return _plain(Rung(
            encoding, kind, candidate.stored_bytes, effect(after, before), kept(after, alone, before),
            more.answers, more.text, share, ideal,
        ))  # fmt: skip

    def _before(self) -> tuple[Margins, Margins, Neutral, Distributions]:
        """Margins of the base and of the behaviour as it is, what that does to plain text, and the base's words."""
        if self._known is None:
            distributions = self._held.enter_context(Distributions())
            alone = self.candidates.alone()
            with self.candidates.measurements(alone.without_behaviours(), "the base", self.progress) as of:
                before = of.margins(self.rows)
                of.neutral(self.neutral, keep=distributions)
            own, quiet = self._measure(alone, self.candidates.name, distributions)
            self._known = before, own, quiet, distributions
        return self._known

    def _measure(self, persona: Persona, what: str, against: Distributions) -> tuple[Margins, Neutral]:
        with self.candidates.measurements(persona, what, self.progress) as of:
            return of.margins(self.rows), of.neutral(self.neutral, against=against)


def _masks(
    repo: Repo,
    asked: Sides,
    rows: Rows,
    record: ProbeRecord,
    found: Length,
    seed: int,
    threads: int,
    progress: Report | None,
) -> Iterator[Baseline]:
    """B's change of A, of which a share chosen at random is kept: as many elements as the smallest `sparse` keeps."""
    best = found.smallest("sparse") or max(
        (one for one in found.rungs if one.kind == "sparse"), key=lambda one: one.stored_bytes
    )
    share = best.share or 0.0
    size = found.elements * share * BITS["sparse"] / 8
    with pair(repo, asked, threads=threads, progress=progress) as both:

        def measure(key: str, scale: float | None, *, swapped: bool = False) -> Margins:
            def compute() -> dict[str, Any]:
                said(
                    progress,
                    f"measuring {share:.2%} of the elements at random" if scale else "measuring both sides",
                )
                inside = (
                    both.swapped()
                    if swapped
                    else nullcontext()
                    if scale is None
                    else masked(both, share, scale, seed)
                )
                with inside:
                    return margins_json(margins(both.model, both.tokenizer, rows))

            return margins_from(record.part(key, compute))

        a, b = measure("margins:a", None), measure("margins:b", None, swapped=True)
        for name, scale in (("random elements", 1.0), ("random elements, made larger", 1 / max(share, 1e-9))):
            after = measure(f"mask:{share:.9g}:{scale:.9g}", scale)
            yield Baseline(f"{name}, {100 * share:.2g} %", size, kept(after, b, a))


@contextmanager
def masked(both: Pair, share: float, scale: float, seed: int) -> Iterator[None]:
    """A with `scale` times B's change at a random share of each matrix's elements, and all of what is no matrix."""
    import torch

    own = {name: parameter.data for name, parameter in both.model.named_parameters()}
    try:
        for name, parameter in both.model.named_parameters():
            delta = both.other[name] - own[name]
            if not bool(delta.any()):
                continue
            if delta.dim() > 1:
                random = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
                mask = random.random(delta.numel(), dtype=np.float32) < share
                delta = delta * torch.from_numpy(mask).view(delta.shape) * scale
            parameter.data = own[name] + delta
        yield
    finally:
        for name, parameter in both.model.named_parameters():
            parameter.data = own[name]


def _plain(value: Rung | Interval | Baseline) -> dict[str, Any]:
    return asdict(value)
