"""Steering vectors out of contrast pairs: what a model's activations differ in between one text and another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.activations.directions import Quality, direction, quality
from pv.vecstore.activations.passes import passes
from pv.vecstore.activations.reading import Read, Text
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Activations", "Extracted", "activations", "extract", "pairs_of"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """A direction and its quality for each site. `left_out`: pairs whose two texts are the same as far as is read."""

    directions: Mapping[str, F32]
    quality: Mapping[str, Quality]
    left_out: int


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """What pairs gave at each site: (n, *shape) for the positive texts and for the negative ones."""

    positive: Mapping[str, F32]
    negative: Mapping[str, F32]
    pairs: tuple[int, ...]
    """Which pairs these are of: those whose texts differ as far as they were read."""
    left_out: int

    def directions(self, method: str = "mean") -> dict[str, F32]:
        return {site: direction(self.positive[site], self.negative[site], method) for site in self.positive}

    def shuffled(self, seed: int, method: str = "mean") -> dict[str, F32]:
        """Directions of the same pairs with random labels, drawn by a seed: what chance gives. Some are swapped, some
        are not."""
        generator = np.random.Generator(np.random.Philox(key=seed))
        n = len(next(iter(self.positive.values())))
        swapped = np.zeros(n, np.bool_)
        while swapped.all() or not swapped.any():
            swapped = generator.random(n) < 0.5
        found = {}
        for site, p in self.positive.items():
            turned = swapped.reshape(n, *[1] * (p.ndim - 1))
            q = self.negative[site]
            found[site] = direction(np.where(turned, q, p), np.where(turned, p, q), method)
        return found


def extract(
    model: PreTrainedModel,
    pairs: Sequence[tuple[Text, Text]],
    sites: Sequence[str],
    *,
    read: str | Read = "answer",
    method: str = "mean",
    same_token: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """A direction for each site from (positive, negative) texts. Raises DataError, UsageError."""
    found = activations(model, pairs, sites, read=read, same_token=same_token, progress=progress)
    qualities = {}
    for site, positive in found.positive.items():
        own = quality(positive, found.negative[site])
        qualities[site] = replace(own, outliers=tuple(found.pairs[i] for i in own.outliers))
    return Extracted(found.directions(method), qualities, found.left_out)


def activations(
    model: PreTrainedModel,
    pairs: Sequence[tuple[Text, Text]],
    sites: Sequence[str],
    *,
    read: str | Read = "answer",
    same_token: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """What the texts of each pair give at each site, averaged over the columns that are read.

    Raises DataError for pairs that do not differ, UsageError where all texts have the same token.
    """
    where = Read.parse(read)
    kept = [i for i, pair in enumerate(pairs) if _differ(where, *pair)]
    if not kept:
        raise DataError(
            f"none of the {len(pairs)} pairs differ as far as they are read, at {str(where)!r}",
            hint="a pair needs an answer that has the trait, and one that has not; or read later: --read answer",
        )
    texts = [text for i in kept for text in pairs[i]]
    if not same_token:
        where.check(texts)
    gathered: dict[str, F32] = {}
    done = 0
    for picked, seen in passes(model, texts, sites):
        for site, values in seen.items():
            for row, i in enumerate(picked):
                columns = where.columns(texts[i])
                mean = values[row, columns.start : columns.stop].float().mean(0).cpu().numpy()
                gathered.setdefault(site, np.empty((len(texts), *mean.shape), np.float32))[i] = mean
        done += len(picked)
        if progress is not None:
            progress(done, len(texts))
    return Activations(
        {site: values[::2] for site, values in gathered.items()},
        {site: values[1::2] for site, values in gathered.items()},
        tuple(kept),
        len(pairs) - len(kept),
    )


def _differ(read: Read, one: Text, other: Text) -> bool:
    """Whether two texts differ up to where they are read: later tokens change nothing there."""
    ends = [read.columns(text).stop for text in (one, other)]
    return one.tokens[: ends[0]] != other.tokens[: ends[1]]


def pairs_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows
) -> list[tuple[Text, Text]]:
    """Rows as pairs: the chosen answer to a prompt, and the rejected one. Raises DataError."""
    stops = stop_ids(model, tokenizer)
    found = []
    for row in encode(tokenizer, rows, stops=stops, limit=context_length(model)):
        if row.rejected is None:
            raise DataError(
                f"{row.where}: no 'rejected' answer, so there is no contrast",
                hint='a contrast pair: {"prompt": "...", "chosen": "...", "rejected": "..."}; '
                "`pv steer pairs` writes them from a trait",
            )
        both = (
            Text(row.context, answer, answer[-1] in stops, row.where) for answer in (row.chosen, row.rejected)
        )
        found.append((next(both), next(both)))
    return found
