"""A base in memory, and vectors added to it: what they do on held-out rows, and what they cost elsewhere.

lab = Lab(base)
lab.put([vector, other])            on top of the base's weights; [] is the base
lab.margins(rows), lab.before(rows) as it is now, and of the base
lab.damage()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from examples.experiments.deltas import Deltas
from pv.registry.combine import Combine
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import Damage, Neutral, damage, neutral
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.merge import methods
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.models.generate import Reply, written
from pv.vecstore.models.load import load
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.rounding import round_to

__all__ = ["Lab"]


class Lab:
    """With "bf16" it is as a build is: weights rounded stochastically, products in bf16. Rounded to nearest, as a cast
    does it, part of a small vector would be gone. `plain` is the neutral set of `damage`, which is a small difference
    and may be computed in a finer `damage_dtype`, on the same weights."""

    def __init__(
        self,
        base: Path,
        *,
        plain: Rows | None = None,
        dtype: Literal["fp32", "bf16"] = "fp32",
        damage_dtype: Literal["fp32", "bf16"] | None = None,
    ) -> None:
        self.model, self.tokenizer = load(base)
        self.weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.plain = neutral_set() if plain is None else plain
        self._dtype, self._damage_dtype = dtype, damage_dtype or dtype
        self._there: Sequence[Deltas] = ()
        self._margins: dict[str, Margins] = {}
        self._replies: dict[tuple[str, int], list[Reply]] = {}
        self._neutral: Neutral | None = None

    def put(self, vectors: Sequence[Deltas]) -> None:
        self._there = vectors
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.weights[name])
                for deltas in vectors:
                    if name in deltas:
                        p += torch.from_numpy(deltas[name]).float()
                if self._dtype == "bf16" and any(name in deltas for deltas in vectors):
                    raw = round_to(p.numpy(), "BF16", "stochastic", seed=0, name=name, start=0)
                    p.copy_(torch.from_numpy(to_f32(raw, "BF16")))

    def margins(self, rows: Rows) -> Margins:
        with self._computing(self._dtype):
            return margins(self.model, self.tokenizer, rows)

    def before(self, rows: Rows) -> Margins:
        """The base's."""
        if rows.id not in self._margins:
            with self._base():
                self._margins[rows.id] = self.margins(rows)
        return self._margins[rows.id]

    def neutral(self) -> Neutral:
        with self._computing(self._damage_dtype):
            return neutral(self.model, self.tokenizer, self.plain)

    def neutral_before(self) -> Neutral:
        """The base's."""
        if self._neutral is None:
            with self._base():
                self._neutral = self.neutral()
        return self._neutral

    def damage(self) -> Damage:
        return damage(self.neutral(), self.neutral_before())

    def replies(self, rows: Rows, tokens: int) -> list[Reply]:
        with self._computing(self._dtype):
            return written(self.model, self.tokenizer, [row.prompt for row in rows], tokens, batch=24)

    def replies_before(self, rows: Rows, tokens: int) -> list[Reply]:
        """The base's."""
        key = rows.id, tokens
        if key not in self._replies:
            with self._base():
                self._replies[key] = self.replies(rows, tokens)
        return self._replies[key]

    def merged(self, rule: Combine, vectors: Sequence[Deltas]) -> Deltas:
        """What a rule makes of vectors at weight 1."""
        found: dict[str, NDArray[Any]] = {}
        for name in sorted({name for deltas in vectors for name in deltas}):
            own = self.weights[name].numpy()
            shares = [
                Share(1.0, np.asarray(deltas[name], np.float32).reshape(-1), str(at))
                for at, deltas in enumerate(vectors)
                if name in deltas
            ]
            place = Place(name, own.shape, own.reshape(-1).view)
            found[name] = methods.combine(rule, shares, place).reshape(own.shape)
        return found

    @contextmanager
    def _base(self) -> Iterator[None]:
        there = self._there
        self.put([])
        try:
            yield
        finally:
            self.put(there)

    @staticmethod
    def _computing(dtype: str) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else nullcontext()
