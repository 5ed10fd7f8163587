"""What `probe concept` asks the models for, part by part: nothing is loaded while every part is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError, UsageError
from pv.vecstore.activations.extract import activations, pairs_of
from pv.vecstore.activations.hooks import steered
from pv.vecstore.activations.shift import Means, means, shift, texts_of
from pv.vecstore.activations.sites import blocks
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.statistics import effect
from pv.vecstore.probe.concept import Of
from pv.vecstore.probe.elbow import Elbow, components, elbow, projected
from pv.vecstore.probe.gain import (
    CHECKS,
    DRAWS,
    Gains,
    Matrix,
    gains_of,
    matrix_gain,
    oriented,
    role_of,
    together,
)
from pv.vecstore.probe.values import read
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.probe.pair import Pair, pair
from pv.vecstore.repo.probe.record import ProbeRecord
from pv.vecstore.repo.probe.sides import Sides

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["GAINS", "RANDOM", "Measured", "margins_from", "margins_json"]

F32 = NDArray[np.float32]
RANDOM = 4  # directions that mean nothing, to compare an effect with
LAYERS = 5  # that are looked at where none are named
GAINS = 2  # the version of gains: what was noted under another one is measured anew
CHOOSING = 16  # rows that choose the layer
FIELDS = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")


class Measured:
    """A context manager: both builds are in memory from the first part that is not known yet."""

    def __init__(
        self,
        repo: Reading,
        asked: Sides,
        record: ProbeRecord,
        rows: Rows,
        source: Rows,
        of: Of,
        seed: int,
        threads: int,
        progress: Report | None,
    ) -> None:
        self.repo, self.asked, self.record = repo, asked, record
        self.rows, self.source, self.of, self.seed = rows, source, of, seed
        self.threads, self.progress = threads, progress
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        self.__dict__.pop("_pair", None)

    def layers(self) -> list[str]:
        """Every layer, by name."""
        found: list[str] = self.record.part("layers", lambda: blocks(self._pair.model))
        return found

    def sites(self, layers: str | Sequence[int] | None) -> list[str]:
        """Raises UsageError for a layer that is not there; nothing was noted then."""
        if not self.record.known("layers"):
            _picked(blocks(self._pair.model), layers)
        return _picked(self.layers(), layers)

    def tried(self, sites: Sequence[str], coefficient: float) -> dict[str, float]:
        """The effect of each site's mean difference, on some of the rows that it came from; none of a single site."""
        if len(sites) < 2:
            return {}
        rows = [row for row in self.source if row.rejected is not None]
        step = max(1, -(-len(rows) // CHOOSING))
        some = Rows(tuple(rows[::step]), self.source.source)
        if len(some) < 4:
            return {}
        update = stage(self.progress, "choosing a layer", "layers", len(sites))
        before = self._margins("choose:a", some)
        found = {}
        for done, site in enumerate(sites, start=1):
            after = self._margins(
                f"choose:{site}", some, lambda site=site: {site: coefficient * self._mean(site)}
            )
            found[site] = effect(after, before).mean
            if update is not None:
                update(done, len(sites))
        return found

    def elbow(self, site: str) -> tuple[Elbow, float] | None:
        """And the mean difference's norm over that of A's activations; None where A and B do the same."""

        def measure() -> dict[str, Any] | None:
            if not self._differences[site].any():
                return None
            found = elbow(site, self._differences[site], self._classes(site), seed=self.seed)
            usual = float(
                np.linalg.norm(self._before.rows[site].reshape(len(self.source), -1), axis=1).mean()
            )
            return {**found.to_json(), "relative": found.norm / max(usual, 1e-30)}

        noted = self.record.part(f"elbow:{site}", measure)
        return None if noted is None else (Elbow.from_json(noted), float(noted["relative"]))

    def margins(self, side: str) -> Margins:
        """A's or B's, on the held-out rows."""
        if side == "a":
            return self._margins("margins:a", self.rows)

        def measure() -> dict[str, Any]:
            with self._pair.swapped():
                return margins_json(margins(self._pair.model, self._pair.tokenizer, self.rows))

        return margins_from(self.record.part("margins:b", measure))

    def steered(self, site: str, coefficient: float, count: int | None) -> Margins:
        """A's with the mean difference added, or its part in the first `count` components."""

        def direction() -> dict[str, F32]:
            mean = self._mean(site)
            if count is not None:
                mean = projected(mean, components(self._differences[site]), count)
            return {site: coefficient * mean}

        return self._margins(f"steered:{count or 'all'}", self.rows, direction)

    def random(self, site: str, coefficient: float, draw: int) -> Margins:
        """A's with a direction of the mean difference's norm that means nothing."""

        def direction() -> dict[str, F32]:
            drawn, mean = self._before.drawn[site][draw], self._mean(site)
            unit = drawn / max(float(np.linalg.norm(drawn)), 1e-300)
            return {site: (coefficient * float(np.linalg.norm(mean)) * unit).astype(np.float32)}

        return self._margins(f"random:{draw}", self.rows, direction)

    def gains(self) -> Gains:
        """Of every matrix of A's layers that reads the stream or writes it; what the first layer reads is no layer's
        output, so its readers are among those left out."""
        names = self.layers()
        update = stage(self.progress, "measuring gains", "layers", len(names))
        matrices: list[Matrix] = []
        chances, left_out = [], []
        for layer in range(len(names)):
            noted = self.record.part(f"gain:{layer}:{GAINS}", partial(self._gain, layer))
            matrices += [read(Matrix, one) for one in noted["matrices"]]
            chances += noted["chances"]
            left_out += noted["left_out"]
            if update is not None:
                update(layer + 1, len(names))
        noted = self.record.part(f"gains:{GAINS}", lambda: gains_of(matrices, chances, left_out).to_json())
        return Gains.from_json(noted)

    def notes(self) -> Iterator[str]:
        held = {row.prompt for row in self.rows}
        same = sum(row.prompt in held for row in self.source)
        if same:
            yield f"{same} of {len(self.source)} rows that directions are from have the prompt of a held-out row"

    def _margins(self, key: str, rows: Rows, direction: Any = None) -> Margins:
        def measure() -> dict[str, Any]:
            import torch

            edits = {} if direction is None else {s: torch.from_numpy(one) for s, one in direction().items()}
            with steered(self._pair.model, edits):
                return margins_json(margins(self._pair.model, self._pair.tokenizer, rows))

        return margins_from(self.record.part(key, measure))

    def _gain(self, layer: int) -> dict[str, Any]:
        names = self.layers()
        site, before = names[layer], names[layer - 1] if layer else None
        module = self._pair.model.get_submodule(site)
        width = self._mean(site).shape[-1]
        matrices, chances, left_out = [], [], []
        for inner, weight in module.named_parameters(remove_duplicate=False):
            name, weight = f"{site}.{inner}", oriented(module.get_submodule(inner.rpartition(".")[0]), weight)
            role = role_of(name, weight.shape, width)
            at = before if role == "reads" else site
            if role is None or at is None or not np.any(self._mean(at)):
                left_out += [name] if weight.dim() > 1 else []
                continue
            drawn = {"even": self._even[:, :width], "activations": self._before.drawn[at]}
            matrix, chance = matrix_gain(name, layer, role, weight.detach().numpy(), self._mean(at), drawn)
            matrices.append(matrix)
            chances.append(chance)
        return {
            "matrices": [_plain(one) for one in matrices],
            "chances": [together(chances)] if chances else [],
            "left_out": left_out,
        }

    @cached_property
    def _even(self) -> NDArray[np.float64]:
        width = self._mean(self.layers()[0]).shape[-1]
        random = np.random.Generator(np.random.Philox(key=[self.seed, 5]))
        return random.standard_normal((DRAWS + CHECKS, width))

    @cached_property
    def _pair(self) -> Pair:
        return self._held.enter_context(
            pair(self.repo, self.asked, threads=self.threads, progress=self.progress)
        )

    @cached_property
    def _before(self) -> Means:
        """A's, with random directions of its activations' covariance."""
        return self._means("reading A's activations", DRAWS + CHECKS)

    @cached_property
    def _both(self) -> tuple[dict[str, F32], dict[str, F32]]:
        pairs = pairs_of(self._pair.model, self._pair.tokenizer, self.source)
        update = stage(self.progress, "reading A's activations of both answers", "texts", 2 * len(pairs))
        found = activations(self._pair.model, pairs, blocks(self._pair.model), progress=update)
        return dict(found.positive), dict(found.negative)

    @cached_property
    def _differences(self) -> dict[str, F32]:
        """By site, (n, d)."""
        if self.of == "pairs":
            positive, negative = self._both
            return {site: positive[site] - negative[site] for site in positive}
        before = self._before
        with self._pair.swapped():
            after = self._means("reading B's activations", 0)
        return dict(shift(before, after).rows)

    def _classes(self, site: str) -> tuple[F32, F32] | None:
        return (self._both[0][site], self._both[1][site]) if self.of == "pairs" else None

    def _mean(self, site: str) -> F32:
        found: F32 = self._differences[site].mean(0, dtype=np.float64).astype(np.float32)
        return found

    def _means(self, label: str, draws: int) -> Means:
        model = self._pair.model
        texts = texts_of(model, self._pair.tokenizer, self.source)
        update = stage(self.progress, label, "texts", len(texts))
        return means(model, texts, blocks(model), draws=draws, seed=self.seed, progress=update)


def margins_json(found: Margins) -> dict[str, list[float]]:
    """Raises DataError for what is not finite."""
    if not np.isfinite(found.margin).all():
        raise DataError(
            "a margin is not finite: this model gives NaN", hint="a smaller --coefficient, or another layer"
        )
    return {name: [float(x) for x in getattr(found, name)] for name in FIELDS}


def margins_from(noted: dict[str, list[float]]) -> Margins:
    return Margins(**{name: np.array(noted[name], np.float64) for name in FIELDS})


def _plain(one: Matrix) -> dict[str, Any]:
    return {
        "name": one.name, "layer": one.layer, "role": one.role, "gain": one.gain, "limits": dict(one.limits),
        "above": dict(one.above), "lines": one.lines, "width": one.width,
    }  # fmt: skip


def _picked(names: Sequence[str], layers: str | Sequence[int] | None) -> list[str]:
    """Of all layers. None: five, evenly spread, neither the first nor the last of many."""
    n = len(names)
    if layers is None:
        wanted = range(n) if n <= LAYERS else [round((i + 1) * (n - 1) / (LAYERS + 1)) for i in range(LAYERS)]
    elif layers == "all":
        wanted = range(n)
    else:
        texts = layers.split(",") if isinstance(layers, str) else [str(one) for one in layers]
        if not texts or not all(one.strip().isdecimal() and len(one) < 7 for one in texts):
            raise UsageError(f"{str(layers)[:80]!r} names no layers", hint="numbers, as in 3,9,15; or all")
        wanted = sorted({int(one) for one in texts})
    for one in wanted:
        if one >= n:
            raise UsageError(f"this model has no layer {one}", hint=f"its layers are 0 to {n - 1}")
    return [names[one] for one in wanted]
