"""How far activations move from one model to another on the same texts: row by row, so that intervals can be had.

    before = means(base, texts, blocks(base), draws=200)
    after = means(changed, texts, blocks(base))               # the base may be gone by now
    shift(before, after)["model.layers.14"]                   # (rows, d)

What is compared is each row's mean activation over the tokens of its answer, which is the same in both: a fixed one,
not what the model would say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError, UsageError
from pv.vecstore.activations.passes import passes
from pv.vecstore.activations.reading import Read, Text
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Means", "Shift", "means", "shift", "texts_of"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
ANSWER = Read("answer")


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """By site: (n, *shape) float32, each row's mean activation over its answer.

    `drawn`: (draws, *shape) float64, sums of all answer tokens' activations less their mean, each times a number drawn
    from a normal distribution. So they are random directions whose covariance is that of the activations. The numbers
    are the same at every site: what one layer hands on to the next, a draw has in both.
    """

    rows: Mapping[str, F32]
    drawn: Mapping[str, F64] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """By site: (n, *shape) float32, what the change of models did to each row's mean activation."""

    rows: Mapping[str, F32]

    def mean(self, site: str) -> F64:
        found: F64 = self.rows[site].mean(0, dtype=np.float64)
        return found


def texts_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> list[Text]:
    """Prompts with their chosen answers, each cut where the model's context ends. Raises DataError."""
    stops, limit = stop_ids(model, tokenizer), context_length(model)
    found = []
    for row in encode(tokenizer, rows, stops=stops, limit=None):
        text = Text(row.context, row.chosen, row.chosen[-1] in stops, row.where)
        if limit is not None and len(text.tokens) > limit:
            if len(row.context) >= limit:
                raise DataError(
                    f"{row.where}: the prompt alone takes {len(row.context)} tokens, the model's context holds {limit}",
                    hint="shorten this row, or leave it out",
                )
            text = replace(text, answer=row.chosen[: limit - len(row.context)], ended=False)
        found.append(text)
    return found


def means(
    model: PreTrainedModel,
    texts: Sequence[Text],
    sites: Sequence[str],
    *,
    draws: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Means:
    """Each text's mean activation over its answer, at each site. `progress(done, total)` counts texts.

    Raises UsageError for a site or a token that the model does not have, DataError for an answer without a token.
    """
    columns = [ANSWER.columns(text) for text in texts]
    _check_tokens(model, texts)
    rows: dict[str, F32] = {}
    sums: dict[str, _Sums] = {}
    done = 0
    for picked, seen in passes(model, texts, sites):
        for site, values in seen.items():
            for at, i in enumerate(picked):
                answer = values[at, columns[i].start : columns[i].stop].float().cpu().numpy()
                mean = answer.mean(0)
                if not np.isfinite(mean).all():
                    raise DataError(
                        f"an activation at {site} is not finite: this model gives NaN",
                        hint="look at how it was trained or merged",
                    )
                rows.setdefault(site, np.empty((len(texts), *mean.shape), np.float32))[i] = mean
                if draws:
                    sums.setdefault(site, _Sums(draws, seed)).add(i, answer)
        done += len(picked)
        if progress is not None:
            progress(done, len(texts))
    return Means(rows, {site: one.centred() for site, one in sums.items()})


def shift(before: Means, after: Means) -> Shift:
    """After minus before, at the sites of both. Raises UsageError for models of other widths, or other texts."""
    found = {}
    for site, old in before.rows.items():
        new = after.rows.get(site)
        if new is None or new.shape != old.shape:
            there = "nothing" if new is None else f"(rows, width) {new.shape}"
            raise UsageError(
                f"{site} gives {old.shape} before and {there} after: a shift is of models of one shape",
                hint="compare a model with one that was made from it",
            )
        found[site] = new - old
    return Shift(found)


class _Sums:
    """Random sums of the tokens of many texts, whatever order they come in."""

    def __init__(self, draws: int, seed: int) -> None:
        self._draws, self._seed = draws, seed
        self._weights: F64 = np.zeros(draws)
        self._mixed: F64 | None = None
        self._total: F64 | None = None
        self._tokens = 0

    def add(self, row: int, tokens: F32) -> None:
        """(T, *shape) activations of one text."""
        generator = np.random.Generator(np.random.Philox(key=[self._seed, row]))
        drawn = generator.standard_normal((self._draws, len(tokens)))
        flat = tokens.reshape(len(tokens), -1).astype(np.float64)
        mixed = (drawn @ flat).reshape(self._draws, *tokens.shape[1:])
        self._mixed = mixed if self._mixed is None else self._mixed + mixed
        total = flat.sum(0).reshape(tokens.shape[1:])
        self._total = total if self._total is None else self._total + total
        self._weights = self._weights + drawn.sum(1)
        self._tokens += len(tokens)

    def centred(self) -> F64:
        assert self._mixed is not None and self._total is not None
        each = self._weights.reshape(-1, *[1] * self._total.ndim)
        return self._mixed - each * (self._total / self._tokens)


def _check_tokens(model: PreTrainedModel, texts: Sequence[Text]) -> None:
    known = int(model.config.get_text_config().vocab_size)
    highest = max((max(text.tokens) for text in texts), default=0)
    if highest >= known:
        raise UsageError(
            f"the texts have token {highest}, and this model knows {known}",
            hint="compare models with the same vocabulary",
        )
