"""What `probe edit` measures, part by part: each is noted at once, the model is loaded for what is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.activations.sites import blocks
from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import OPENING, Distributions, Neutral, neutral
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap, ratio
from pv.vecstore.models.load import context_length, stop_ids
from pv.vecstore.probe.edit import (
    RIDGE,
    Decided,
    RankOne,
    decided,
    key_at,
    rank_one,
    second_moment,
    undecided,
)
from pv.vecstore.probe.edit_change import Change, changed, difference, noise_beside, norm
from pv.vecstore.probe.edit_found import Arm, Edits, Norms, Sharp, Used
from pv.vecstore.probe.edit_places import Projection, projection
from pv.vecstore.probe.edit_value import KL_WEIGHT, LR, MOST, STEPS, moved_value
from pv.vecstore.probe.edit_verdict import Claim, by_row, claimed, originals, scale_for, transfer
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.probe.pair import Pair
from pv.vecstore.repo.probe.record import ProbeRecord
from pv.vecstore.train.general_set import encode_general
from pv.vecstore.train.objective import OPENING as OPENS

__all__ = ["EditPlan", "measured"]

F64 = NDArray[np.float64]
TRAINED, EDIT = "trained", "edit"
BEST, WEAKENED = "edit at its best", "trained, weakened"
STRENGTHS = {EDIT: (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), TRAINED: (0.125, 0.25, 0.5, 1.0)}
ENOUGH = 0.95  # of the largest effect that the edit has: beyond that, strength is mostly damage
CHOOSING = 16  # training rows at least (31 at most) on which strengths and layers are chosen
TOKENS = 10_000  # of ordinary answers and texts, of which C is the second moment
NEUTRAL = 2  # answers in the KL term
LAYERS = (0.15, 0.3, 0.45, 0.6, 0.8)  # of a sweep, as shares of the depth
SWEPT = 10  # steps of the gradient for each of them
FEW = 50  # rows below which intervals are wide


@dataclass(frozen=True, slots=True)
class EditPlan:
    what: str
    rows: Rows
    training: Rows
    paraphrases: Rows | None
    neighbours: Rows
    layer: int | str | None
    noise: tuple[float, ...]
    draws: int
    seed: int

    @property
    def named(self) -> dict[str, Rows]:
        found = {"rows": self.rows, "training": self.training, "neighbours": self.neighbours}
        return found if self.paraphrases is None else {**found, "paraphrases": self.paraphrases}

    @property
    def every_row(self) -> list[Rows]:
        return list(self.named.values())

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "noise": list(self.noise),
            "draws": self.draws,
            "seed": self.seed,
            "steps": STEPS,
            "lr": LR,
            "kl": KL_WEIGHT,
            "most": MOST,
            "ridge": RIDGE,
            "rows": list(self.named),
        }


def measured(
    record: ProbeRecord, plan: EditPlan, opened: Callable[[], Pair], progress: Report | None
) -> Edits:
    with ExitStack() as held:
        return _Run(record, plan, opened, progress, held).found()


@dataclass(eq=False)
class _Run:
    record: ProbeRecord
    plan: EditPlan
    opened: Callable[[], Pair]
    progress: Report | None
    held: ExitStack

    # What is there

    @cached_property
    def pair(self) -> Pair:
        return self.opened()

    @cached_property
    def training(self) -> list[Decided]:
        return [decided(row) for row in self._encoded(self.plan.training)]

    @cached_property
    def general(self) -> list[Encoded]:
        model, tokenizer = self.pair.model, self.pair.tokenizer
        stops, limit = stop_ids(model, tokenizer), context_length(model)
        return encode_general(tokenizer, None, stops=stops, limit=limit)

    @cached_property
    def difference(self) -> Change:
        return difference(self.pair.model, self.pair.other)

    @cached_property
    def layers(self) -> int:
        return int(self.record.part("layers", lambda: len(blocks(self.pair.model))))

    @cached_property
    def tried(self) -> dict[int, float]:
        """By layer, what the edit does to training rows; of a sweep alone."""
        if self.plan.layer != "sweep":
            return {}
        last = self.layers - 1
        at = sorted({min(last, max(0, round(share * self.layers))) for share in LAYERS})
        return {layer: float(self._on_training(EDIT, 1.0, layer, SWEPT).mean()) for layer in at}

    @cached_property
    def layer(self) -> int:
        if self.tried:
            return max(self.tried, key=lambda layer: self.tried[layer])
        return self.layers // 2 if self.plan.layer is None else int(self.plan.layer)

    # The edit

    def rank_one(self, layer: int, steps: int) -> tuple[RankOne, tuple[float, float]]:
        """The change, and the loss with which the gradient began and ended."""

        def compute() -> dict[str, Any]:
            model = self.pair.model
            place = projection(model, layer)
            said(self.progress, f"reading the keys of layer {layer}")
            key = key_at(model, place, self.training)
            moment, tokens = second_moment(
                model, place, _so_many([undecided(row, 0) for row in self.general])
            )
            weight = place.matrix.double().numpy()
            still = [undecided(row, OPENS) for row in self.general if len(row.chosen) > OPENS + 1][:NEUTRAL]
            update = stage(self.progress, f"looking for the value at layer {layer}", "steps", steps)
            moved = moved_value(
                model,
                place,
                self.training,
                still,
                weight @ key,
                seed=self.plan.seed,
                steps=steps,
                progress=update,
            )
            made = rank_one(weight, key, weight @ key + moved.vector, moment)
            return {
                "left": made.left.tolist(),
                "right": made.right.tolist(),
                "loss": [moved.loss[0], moved.loss[-1]],
                "tokens": tokens,
            }

        found = self.record.part(f"value:{layer}:{steps}", compute)
        first, last = found["loss"]
        return RankOne(np.array(found["left"]), np.array(found["right"])), (first, last)

    def change(self, kind: str, layer: int, steps: int = STEPS) -> Change:
        if kind == TRAINED:
            return self.difference
        place: Projection = projection(self.pair.model, layer)
        return {place.parameter: place.as_stored(self.rank_one(layer, steps)[0].matrix())}

    # One change at one strength

    @contextmanager
    def applied(
        self,
        kind: str,
        strength: float,
        layer: int,
        steps: int = STEPS,
        noise: tuple[float, int] | None = None,
    ) -> Iterator[None]:
        """`noise`: a share of the norm, and which draw."""
        if kind == TRAINED and strength == 1 and noise is None:
            with self.pair.swapped():
                yield
            return
        change = self.change(kind, layer, steps)
        drawn = (
            None if noise is None else noise_beside(change, noise[0] * abs(strength), self._seed(noise[1]))
        )
        with changed(self.pair.model, change, strength, drawn):
            yield

    def _seed(self, draw: int) -> int:
        return self.plan.seed * 1000 + draw

    def margins(self, rows: Rows, name: str, key: str, how: Callable[[], Any] | None) -> F64:
        def compute() -> list[float]:
            update = stage(self.progress, f"measuring {key} on {name}", "rows", len(rows))
            with ExitStack() as inside:
                model, tokenizer = self.pair.model, self.pair.tokenizer
                if how is not None:
                    inside.enter_context(how())
                found: list[float] = margins(model, tokenizer, rows, progress=update).margin.tolist()
            return found

        return np.array(self.record.part(f"{name}:{key}", compute))

    def effects(self, rows: Rows, name: str, kind: str, strength: float) -> F64:
        """By row, in nats."""
        key = f"{kind}:{strength:g}"
        after = self.margins(rows, name, key, lambda: self.applied(kind, strength, self.layer))
        return after - self.margins(rows, name, "base", None)

    def _on_training(self, kind: str, strength: float, layer: int, steps: int = STEPS) -> F64:
        every = self.plan.training
        rows = every[:: max(1, len(every) // CHOOSING)]
        key = f"{kind}:{strength:g}" if kind == TRAINED else f"{kind}:{layer}:{steps}:{strength:g}"
        after = self.margins(rows, "training", key, lambda: self.applied(kind, strength, layer, steps))
        return after - self.margins(rows, "training", "base", None)

    # Neighbours

    @cached_property
    def before(self) -> tuple[Neutral, Distributions]:
        kept = self.held.enter_context(Distributions())
        update = stage(self.progress, "measuring base on neighbours", "rows", len(self.plan.neighbours))
        pair = self.pair
        found = neutral(pair.model, pair.tokenizer, self.plan.neighbours, keep=kept, progress=update)
        if np.count_nonzero(found.rest_tokens) < 2:
            raise DataError(
                f"{self.plan.neighbours.source}: fewer than 2 answers of more than {OPENING} tokens, and no texts",
                hint="what a change opens an answer with is not called damage: longer rows, or plain texts",
            )
        return found, kept

    def lost(self, kind: str, strength: float) -> dict[str, Any]:
        def compute() -> dict[str, list[float]]:
            before, kept = self.before
            rows = self.plan.neighbours
            update = stage(self.progress, f"measuring {kind}:{strength:g} on neighbours", "rows", len(rows))
            with self.applied(kind, strength, self.layer):
                after = neutral(self.pair.model, self.pair.tokenizer, rows, against=kept, progress=update)
            return {
                "rest": (before.rest - after.rest).tolist(),
                "rest_tokens": before.rest_tokens.tolist(),
                "kl": after.kl.tolist(),
                "opening": (before.opening - after.opening).tolist(),
                "opening_tokens": before.opening_tokens.tolist(),
            }

        found: dict[str, Any] = self.record.part(f"neighbours:{kind}:{strength:g}", compute)
        return found

    # Together

    def strengths(self) -> tuple[float, float | None]:
        """At which the edit comes closest to the trained change, and the trained change to that."""
        tried = {}
        for kind, grid in STRENGTHS.items():
            tried[kind] = [float(self._on_training(kind, s, self.layer).mean()) for s in grid]
        whole = tried[TRAINED][-1]
        best, reached = scale_for(STRENGTHS[EDIT], tried[EDIT], min(whole, ENOUGH * max(tried[EDIT])))
        if reached <= 0 or whole <= 0:
            return round(best, 4), None
        weakened, _ = scale_for(STRENGTHS[TRAINED], tried[TRAINED], min(reached, whole))
        return round(best, 4), round(weakened, 4)

    def found(self) -> Edits:
        plan, seed = self.plan, self.plan.seed
        layer = self.layer
        one, loss = self.rank_one(layer, STEPS)
        norms: Norms = {"edit": one.norm, "trained": self.record.part("norm", lambda: norm(self.difference))}
        best, weakened = self.strengths()
        arms = {TRAINED: (TRAINED, 1.0), EDIT: (EDIT, 1.0), BEST: (EDIT, best)}
        if weakened is not None:
            arms[WEAKENED] = (TRAINED, weakened)
        of = [] if plan.paraphrases is None else originals(plan.paraphrases, plan.rows)
        pairs = {name: self._both(of, *arm) for name, arm in arms.items()}
        made = tuple(self._arm(name, *arm, pairs[name]) for name, arm in arms.items())
        claims: dict[str, Claim] = {}
        if of:
            claims["as made"] = claimed(
                pairs[TRAINED], pairs[EDIT], seed=seed, names=(_the(TRAINED), _the(EDIT))
            )
            claims["at equal effect"] = (
                claimed(pairs[WEAKENED], pairs[BEST], seed=seed, names=(_the(TRAINED), _the(EDIT)))
                if weakened is not None
                else Claim(
                    "inconclusive", None, "at no strength does the edit have an effect on training rows"
                )
            )
        return Edits(
            self.record.id, plan.what, layer, self.layers, tuple(self.tried.items()),
            _data(plan, of), norms, loss, made, claims,
            tuple(self._sharp(name, share, *arms[name]) for name in (TRAINED, BEST) for share in plan.noise),
            tuple(_notes(plan, of)),
        )  # fmt: skip

    def _both(self, of: Sequence[int], kind: str, strength: float) -> tuple[F64, F64]:
        """Effects on paraphrases, averaged by row, and on the rows that have some; on all rows if there are none."""
        own = self.effects(self.plan.rows, "rows", kind, strength)
        if self.plan.paraphrases is None:
            return np.empty(0), own
        which, reworded = by_row(self.effects(self.plan.paraphrases, "paraphrases", kind, strength), of)
        return reworded, own[which]

    def _arm(self, name: str, kind: str, strength: float, both: tuple[F64, F64]) -> Arm:
        seed, lost = self.plan.seed, self.lost(kind, strength)
        opening = np.array(lost["opening_tokens"])
        return Arm(
            name, kind, strength,
            bootstrap(self.effects(self.plan.rows, "rows", kind, strength), seed=seed),
            bootstrap(both[0], seed=seed) if len(both[0]) else None,
            transfer(*both, seed=seed) if len(both[0]) else None,
            ratio(lost["rest"], lost["rest_tokens"], seed=seed),
            ratio(lost["kl"], lost["rest_tokens"], seed=seed),
            ratio(lost["opening"], opening, seed=seed) if np.count_nonzero(opening) > 1 else None,
        )  # fmt: skip

    def _sharp(self, name: str, share: float, kind: str, strength: float) -> Sharp:
        rows, each = self.plan.rows, []
        base = self.margins(rows, "rows", "base", None)
        for draw in range(self.plan.draws):
            key = f"{kind}:{strength:g} with noise {share:g}, draw {draw}"

            def noisy(draw: int = draw) -> Any:
                return self.applied(kind, strength, self.layer, noise=(share, draw))

            each.append(self.margins(rows, "rows", key, noisy) - base)
        effect = np.mean(each, 0)
        kept = transfer(effect, self.effects(rows, "rows", kind, strength), seed=self.plan.seed)
        lost = (
            None if kept is None else Interval(1 - kept.mean, 1 - kept.high, 1 - kept.low, kept.n, kept.level)
        )
        return Sharp(name, share, bootstrap(effect, seed=self.plan.seed), lost)

    def _encoded(self, rows: Rows) -> list[Encoded]:
        model, tokenizer = self.pair.model, self.pair.tokenizer
        return encode(tokenizer, rows, stops=stop_ids(model, tokenizer), limit=context_length(model))


def _so_many(rows: Sequence[Decided]) -> list[Decided]:
    """The first rows that have TOKENS tokens together."""
    before = np.cumsum([0, *(len(row.tokens) for row in rows)])
    return [row for row, count in zip(rows, before, strict=False) if count < TOKENS]


def _the(kind: str) -> str:
    return {TRAINED: "the trained change", EDIT: "the edit"}[kind]


def _data(plan: EditPlan, of: Sequence[int]) -> dict[str, Used]:
    found: dict[str, Used] = {
        name: {"name": rows.source.rpartition("/")[2], "id": rows.id, "n": len(rows)}
        for name, rows in plan.named.items()
    }
    if of:
        found["paraphrases"]["of"] = len(set(of))
    return found


def _notes(plan: EditPlan, of: Sequence[int]) -> Iterator[str]:
    """`of`: of each paraphrase the row that it re-words: rows are what is drawn again, not paraphrases."""
    if of and len(set(of)) < FEW:
        yield (
            f"{len(of)} paraphrases re-word {len(set(of))} held-out rows, and those are what is drawn again: intervals "
            f"of fewer than {FEW} rows are wide"
        )
    if len(plan.neighbours) < FEW:
        yield f"{len(plan.neighbours)} neighbours: intervals of fewer than {FEW} rows are wide"
    if plan.paraphrases is None:
        yield "no paraphrases were given, so nothing is said of how far either carries over: --paraphrases ROWS"
