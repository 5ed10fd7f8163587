"""What `pv probe heads` finds, and how: the change of every head, and grafts that say what the change is worth.

Half of the rows rank the heads and say how much each changed, the others say what grafts are worth: no row does both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.activations.shift import texts_of
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap
from pv.vecstore.probe.attribution import attribution
from pv.vecstore.probe.graft import grafted, swapped
from pv.vecstore.probe.head_change import HeadChange, head_change
from pv.vecstore.probe.parts import Part, Parts, parts_of
from pv.vecstore.probe.recovery import grid, halves, random_set, recovered
from pv.vecstore.probe.significance import benjamini_hochberg, log_normal_p
from pv.vecstore.probe.values import read, unlike, written
from pv.vecstore.probe.verdict import Evidence, Point, Thresholds, Verdict, is_shift, verdict
from pv.vecstore.probe.weight_shares import WeightShares, weight_shares
from pv.vecstore.progress import Report, stage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["FEWEST_ROWS", "VERSION", "Head", "Heads", "HeadsSettings", "Linear", "halves_of", "measure_heads"]

FEWEST_ROWS = 16
VERSION = 1
RANKING_ROWS = 12  # through which the gradient goes, of those that rank
RANDOM_ROWS = 12  # on which random sets are tested, of those that test
Note = Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True, slots=True)
class HeadsSettings:
    """`draws` random sets of heads; `noise` draws of the null of each head's change; `prompts`: rows at most."""

    seed: int = 0
    draws: int = 20
    noise: int = 6
    prompts: int = 48

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Head:
    """`change`, `own` and `pattern` as head_change.py defines them; `p` of `own` against noise, `beyond` after
    Benjamini and Hochberg; `score`: nats, by attribution.py; the ranking is by that."""

    layer: int
    head: int
    group: int
    change: float
    own: float
    pattern: float
    p: float
    beyond: bool
    score: float


@dataclass(frozen=True, slots=True)
class Linear:
    """A layer with linear attention: the change of its output, that on A's stream, and that of its recurrent state."""

    layer: int
    change: float
    own: float
    state: float | None


@dataclass(frozen=True, slots=True)
class Heads:
    """`top` is the core, highest first. `mlp`, `linear`: R of all MLPs or experts, and of all linear attention; `rest`:
    of everything but heads with their keys and values. `lost`: N. `random`: R of each random set, on `random_rows`;
    `beside`: R of the core on the same; `overlap`: how much of the core's score random sets have, on average."""

    probe: str
    a: str
    b: str
    data: str
    ranked: int
    tested: int
    random_rows: int
    settings: HeadsSettings
    heads: tuple[Head, ...]
    linear: tuple[Linear, ...]
    layers: int
    weights: WeightShares
    shift: Interval
    curve: tuple[Point, ...]
    mlp: Interval | None
    linear_attention: Interval | None
    rest: Interval | None
    lost: Interval | None
    random: tuple[float, ...]
    beside: Interval | None
    overlap: float
    verdict: Verdict
    notes: tuple[str, ...] = ()

    @property
    def top(self) -> tuple[Head, ...]:
        return self.ranking[: self.verdict.thresholds.core_of(len(self.heads))]

    @property
    def ranking(self) -> tuple[Head, ...]:
        sign = -1 if self.shift.mean < 0 else 1
        return tuple(sorted(self.heads, key=lambda one: (-sign * one.score, one.layer, one.head)))

    @property
    def beyond(self) -> int:
        return sum(one.beyond for one in self.heads)

    @property
    def random_p(self) -> float | None:
        """How often random sets did as well as the core: (1 + those) / (1 + draws)."""
        if self.beside is None or not self.random:
            return None
        return (1 + sum(one >= self.beside.mean for one in self.random)) / (1 + len(self.random))

    def to_json(self) -> dict[str, Any]:
        columns = {one.name: [getattr(head, one.name) for head in self.heads] for one in fields(Head)}
        return {**written(self), "heads": columns}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Heads:
        """Raises FormatError."""
        columns = read(_Columns, document).heads
        if len({*map(len, columns.values())}) != 1:
            raise unlike("heads.heads")
        heads = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
        found = read(Heads, {**document, "heads": heads})
        if not found.heads:
            raise unlike("heads.heads")
        return replace(found, weights=found.weights.ordered())


@dataclass(frozen=True, slots=True)
class _Columns:
    """How heads are noted."""

    heads: Mapping[str, tuple[Any, ...]]


def halves_of(rows: Rows, settings: HeadsSettings) -> tuple[Rows, Rows]:
    """At most `settings.prompts` rows, the first ones: those that rank, and those that test."""
    few = rows[: settings.prompts]
    first, second = halves(len(few), settings.seed)
    return _some(few, first), _some(few, second)


def _some(rows: Rows, numbers: Sequence[int]) -> Rows:
    return Rows(tuple(rows[i] for i in numbers), rows.source)


def measure_heads(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    other: Mapping[str, torch.Tensor],
    rows: Rows,
    *,
    settings: HeadsSettings | None = None,
    lines: Thresholds | None = None,
    names: tuple[str, str, str] = ("", "A", "B"),
    part: Note = lambda _, compute: compute(),
    progress: Report | None = None,
) -> Heads:
    """`model` has A's weights in fp32 and eager attention, `other` B's by parameter name; the model is left as it was.

    `part(key, compute)` gives what `compute` gives, or gave before. `names`: of the probe, A and B. Raises UsageError
    for a model without heads, DataError for rows that do not fit it.
    """
    settings, lines = settings or HeadsSettings(), lines or Thresholds()
    parts = parts_of(model)
    ranking, testing = halves_of(rows, settings)
    work = _Work(model, tokenizer, other, parts, testing, settings, part, progress)
    shift = bootstrap(work.b - work.a, seed=settings.seed)
    changed, scores = work.changes(ranking), work.scores(ranking)
    heads = _heads(parts, changed, scores, lines)
    found = Heads(
        probe=names[0], a=names[1], b=names[2], data=rows.source.rpartition("/")[2], ranked=len(ranking),
        tested=len(testing), random_rows=min(RANDOM_ROWS, len(testing)), settings=settings, heads=heads,
        linear=tuple(
            Linear(layer, far, changed.linear_own[layer], changed.states.get(layer))
            for layer, far in sorted(changed.linear.items())
        ),
        layers=parts.layers, weights=weight_shares(model, other, parts), shift=shift, curve=(), mlp=None,
        linear_attention=None, rest=None, lost=None, random=(), beside=None, overlap=0.0,
        verdict=Verdict("inconclusive", (), lines), notes=parts.notes,
    )  # fmt: skip
    if is_shift(shift, lines):
        found = work.grafts(found)
    evidence = Evidence(
        len(heads), found.beyond, shift, found.mlp, found.curve, found.lost, found.random, found.beside, found.rest,
        found.overlap,
    )  # fmt: skip
    return replace(found, verdict=verdict(evidence, lines))


@dataclass(eq=False)
class _Work:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    other: Mapping[str, torch.Tensor]
    parts: Parts
    testing: Rows
    settings: HeadsSettings
    part: Note
    progress: Report | None
    kept: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.a = self._margins("margins a", self.testing, "margins of A")
        with swapped(self.model, self.other):
            self.b = self._margins("margins b", self.testing, "margins of B")

    def _margins(self, key: str, rows: Rows, name: str | None = None) -> NDArray[np.float64]:
        def compute() -> list[float]:
            update = stage(self.progress, name, "rows", len(rows)) if name else None
            return margins(self.model, self.tokenizer, rows, progress=update).margin.tolist()  # type: ignore[no-any-return]

        if key not in self.kept:
            self.kept[key] = np.array(self.part(key, compute), np.float64)
        return self.kept[key]

    def changes(self, rows: Rows) -> HeadChange:
        def compute() -> dict[str, Any]:
            return head_change(
                self.model, self.other, self.parts, texts_of(self.model, self.tokenizer, rows),
                draws=self.settings.noise, seed=self.settings.seed,
                progress=stage(self.progress, "measuring heads", "texts", len(rows)),
            ).to_json()  # fmt: skip

        return HeadChange.from_json(self.part("change", compute))

    def scores(self, rows: Rows) -> NDArray[np.float64]:
        few = rows[:RANKING_ROWS]

        def compute() -> list[float]:
            update = stage(self.progress, "ranking heads", "rows", len(few))
            found = attribution(
                self.model,
                self.tokenizer,
                self.other,
                self.parts,
                few,
                progress=update,
            )
            return found.tolist()  # type: ignore[no-any-return]

        return np.array(self.part("scores", compute), np.float64)

    def grafts(self, found: Heads) -> Heads:
        """With the curve, and what other parts and random heads recover."""
        by_place = {(part.layer, part.index): part for part in self.parts.heads}
        ranking = [by_place[one.layer, one.head] for one in found.ranking]
        core = ranking[: len(found.top)]
        attention = self.parts.of("head", "kv")
        others: dict[str, Sequence[Part]] = {
            "mlp": self.parts.of("mlp", "experts"),
            "linear_attention": self.parts.of("linear-attention"),
            "rest": self.parts.but(attention),
        }
        counts = grid(len(ranking), len(core))
        drawn = [random_set(self.parts, core, self.settings.seed, i) for i in range(self.settings.draws)]
        sets = [self.parts.with_groups(one) for one in drawn]
        update = stage(self.progress, "grafting", "grafts", len(counts) + len(others) + 1 + len(sets))
        total = len(counts) + len(others) + 1 + len(sets)
        done = 0

        def measured(key: str, parts: Iterable[Part], rows: int | None = None) -> Interval:
            nonlocal done
            share = self._recovered(key, tuple(parts), rows)
            done += 1
            if update is not None:
                update(done, total)
            return share

        curve = tuple(Point(k, measured(f"top {k}", self.parts.with_groups(ranking[:k]))) for k in counts)
        shares = {name: measured(name, some) if some else None for name, some in others.items()}
        kept = measured("without the top", self.parts.but(self.parts.with_groups(core)))
        lost = replace(kept, mean=1 - kept.mean, low=1 - kept.high, high=1 - kept.low)
        random = tuple(measured(f"random {i}", some, found.random_rows).mean for i, some in enumerate(sets))
        beside = self._of(self._margins(f"top {len(core)}", self.testing)[: found.random_rows])
        worth = {part: max(score, 0.0) for part, score in zip(core, _scores(found), strict=False)}
        whole = sum(worth.values()) * len(drawn)
        shared = sum(worth.get(part, 0.0) for one in drawn for part in one)
        return replace(
            found, curve=curve, lost=lost, random=random, beside=beside,
            overlap=shared / whole if whole > 0 else 0.0, **shares,  # type: ignore[arg-type]
        )  # fmt: skip

    def _of(self, graft: NDArray[np.float64]) -> Interval:
        """R of the first rows that test."""
        n = len(graft)
        return recovered(graft, self.a[:n], self.b[:n], seed=self.settings.seed)

    def _recovered(self, key: str, parts: tuple[Part, ...], count: int | None) -> Interval:
        """On the first `count` of the rows that test; None: on all."""
        rows = self.testing[:count]
        with grafted(self.model, self.other, parts):
            return self._of(self._margins(key, rows))


def _scores(found: Heads) -> list[float]:
    """Of the ranking, in the direction of the shift."""
    sign = -1 if found.shift.mean < 0 else 1
    return [sign * one.score for one in found.ranking]


def _heads(
    parts: Parts, changed: HeadChange, scores: NDArray[np.float64], lines: Thresholds
) -> tuple[Head, ...]:
    p = np.ones(len(parts.heads))
    at = 0
    for one in parts.attention:
        of = slice(at, at := at + one.heads)
        p[of] = log_normal_p(changed.own[of], changed.null[:, of])
    beyond = benjamini_hochberg(p, lines.fdr)
    return tuple(
        Head(
            part.layer or 0, part.index or 0, part.group or 0, float(changed.change[i]), float(changed.own[i]),
            float(changed.pattern[i]), float(p[i]), bool(beyond[i]), float(scores[i]),
        )
        for i, part in enumerate(parts.heads)
    )  # fmt: skip
