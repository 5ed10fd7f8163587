"""Damage: what a vector does where it has no business, on a neutral set of plain answers and plain text.

A behaviour makes plain answers unlikely by design, where it shows: it may open an answer, or sign it off. So the first
16 tokens of an answer and the token that ends it are kept apart, and what is called damage is the rest:

    damage    log-likelihood of the base minus that of the persona, nats a token: above 0, something was lost
    KL        of the persona's next-token distribution from the base's, KL(base || persona), at the same tokens

Behaviours that show everywhere (upper case, another language) make plain answers unlikely everywhere: for them the
plain text says more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.statistics import Interval, ratio
from pv.vecstore.models.load import context_length, stop_ids
from pv.vecstore.models.reply_columns import reply_from

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OPENING", "Damage", "Distributions", "Neutral", "damage", "forced", "neutral"]

F64 = NDArray[np.float64]

OPENING = 16
"""Tokens at the beginning of an answer that are not counted: a behaviour may open it as it likes."""
LOGITS = 1 << 26  # computed at a time


@dataclass(frozen=True, slots=True, eq=False)
class Neutral:
    """Per row, in the rows' order: sums of log-probability in nats, numbers of tokens, and KL: all (n,) float64.

    `rest` is an answer after its opening, or all of a plain text; `end` the token that ends either. `kl` is the sum
    over the tokens of `rest`; 0 for the base itself. `text` is 1 for plain text, 0 for an answer.
    """

    opening: F64
    rest: F64
    end: F64
    opening_tokens: F64
    rest_tokens: F64
    end_tokens: F64
    kl: F64
    text: F64

    def __len__(self) -> int:
        return len(self.rest)


@dataclass(frozen=True, slots=True)
class Damage:
    """Nats a token that the persona lost against its base, on plain answers and on plain text; below 0 it gained.

    What the set has fewer than 2 rows of is None.
    """

    answers: Interval | None
    """After an answer's opening, without the token that ends it."""
    text: Interval | None
    kl_answers: Interval | None
    kl_text: Interval | None
    opening: Interval | None
    """The first 16 tokens of the answers: mostly the behaviours themselves."""
    end: Interval | None
    """The token that ends an answer: a behaviour that signs off puts it elsewhere."""

    def to_json(self) -> dict[str, Any]:
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: {**value.ends(), "n": value.n} if value else None for name, value in found.items()}


class Distributions:
    """The base's next-token distributions, in a file that is gone afterwards: 4 bytes a token of the vocabulary.

    So base and persona are never in memory together, and the base runs once for many personas.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._places: dict[int, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, row: int, logps: torch.Tensor) -> None:
        """(tokens, V) log-probabilities of one row."""
        start = self._file.seek(0, 2)
        self._file.write(logps.float().contiguous().numpy().tobytes())
        self._places[row] = (start, *logps.shape)

    def read(self, row: int) -> torch.Tensor:
        import torch

        start, tokens, vocabulary = self._places[row]
        self._file.seek(start)
        data = bytearray(self._file.read(4 * tokens * vocabulary))
        return torch.frombuffer(data, dtype=torch.float32).view(tokens, vocabulary)


def neutral(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    *,
    keep: Distributions | None = None,
    against: Distributions | None = None,
    opening: int = OPENING,
    progress: Callable[[int, int], None] | None = None,
) -> Neutral:
    """Run a model over a neutral set: the base with `keep`, then personas `against` what was kept.

    A row that is longer than the model's context is measured as far as that goes. `progress(done, total)` counts rows.
    Raises DataError for a prompt that leaves no room.
    """
    limit = context_length(model)
    data = [_cut(row, limit) for row in encode(tokenizer, rows, stops=stop_ids(model, tokenizer), limit=None)]
    return forced(
        model, tokenizer, data, [not row.prompt for row in rows],
        keep=keep, against=against, opening=opening, progress=progress,
    )  # fmt: skip


def forced(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Sequence[Encoded],
    text: Sequence[bool] | None = None,
    *,
    keep: Distributions | None = None,
    against: Distributions | None = None,
    opening: int = OPENING,
    progress: Callable[[int, int], None] | None = None,
) -> Neutral:
    """The same of decisions that are token ids already; `text` says which of them are no answers."""
    import torch

    stops = stop_ids(model, tokenizer)
    found = {one.name: np.zeros(len(data)) for one in fields(Neutral)}
    found["text"][:] = text if text is not None else 0
    for done, (index, logps) in enumerate(_each(model, data), start=1):
        decision = data[index].chosen
        each = logps.gather(1, torch.tensor(decision)[:, None])[:, 0].double().numpy()
        last = len(decision) - (decision[-1] in stops)
        first = 0 if found["text"][index] else min(opening, last)
        for part, at in (
            ("opening", slice(0, first)),
            ("rest", slice(first, last)),
            ("end", slice(last, None)),
        ):
            found[part][index] = each[at].sum()
            found[f"{part}_tokens"][index] = len(each[at])
        if last > first and keep is not None:
            keep.write(index, logps[first:last])
        if last > first and against is not None:
            found["kl"][index] = _kl(against.read(index), logps[first:last])
        if progress is not None:
            progress(done, len(data))
    return Neutral(**found)


def damage(after: Neutral, before: Neutral) -> Damage:
    """What a persona lost against its base. Raises UsageError for different sets, or one that is too small."""
    if len(after) != len(before) or not np.array_equal(after.rest_tokens, before.rest_tokens):
        raise UsageError("damage is measured on the same rows before and after")
    text = before.text > 0

    def lost(part: str, where: NDArray[np.bool_]) -> Interval | None:
        sums = getattr(before, part) - getattr(after, part)
        return _of(sums, getattr(before, f"{part}_tokens"), where)

    found = Damage(
        answers=lost("rest", ~text),
        text=lost("rest", text),
        kl_answers=_of(after.kl, before.rest_tokens, ~text),
        kl_text=_of(after.kl, before.rest_tokens, text),
        opening=lost("opening", ~text),
        end=lost("end", ~text),
    )
    if found.answers is None and found.text is None:
        raise DataError(
            f"a neutral set of {len(before)} rows without 2 answers of more than {OPENING} tokens, and without 2 texts",
            hint='a row of it: {"prompt": "...", "completion": "..."} or {"text": "..."}',
        )
    return found


def _of(sums: F64, counts: F64, where: NDArray[np.bool_]) -> Interval | None:
    sums, counts = sums[where], counts[where]
    return ratio(sums, counts) if np.count_nonzero(counts) > 1 else None


def _cut(row: Encoded, limit: int | None) -> Encoded:
    if limit is None or len(row.context) + len(row.chosen) <= limit:
        return row
    if len(row.context) >= limit:
        raise DataError(
            f"{row.where}: the prompt alone takes {len(row.context)} tokens, the model's context holds {limit}",
            hint="shorten this row, or leave it out",
        )
    return replace(row, chosen=row.chosen[: limit - len(row.context)])


def _kl(base: torch.Tensor, own: torch.Tensor) -> float:
    """Of two (tokens, V) tables of log-probabilities, summed over tokens."""
    return float((base.exp() * (base - own)).double().sum())


def _each(model: PreTrainedModel, data: Sequence[Encoded]) -> Iterator[tuple[int, torch.Tensor]]:
    """(row, (tokens, V) float32 log-probabilities before each token of its decision), by length, padded at the right.

    The same rows in the same batches for every model: identical weights give identical numbers.
    """
    import torch

    sequences = [[*row.context, *row.chosen[:-1]] for row in data]
    order = sorted(range(len(data)), key=lambda i: (len(sequences[i]), i))
    vocabulary = int(model.config.get_text_config().vocab_size)
    training = model.training
    model.eval()
    try:
        while order:
            count = 1
            while count < len(order) and (count + 1) * len(sequences[order[count]]) * vocabulary <= LOGITS:
                count += 1
            picked, order = order[:count], order[count:]
            width = len(sequences[picked[-1]])
            ids = torch.zeros(count, width, dtype=torch.int64)
            real = torch.zeros_like(ids)
            for at, i in enumerate(picked):
                ids[at, : len(sequences[i])] = torch.tensor(sequences[i])
                real[at, : len(sequences[i])] = 1
            contexts = [data[i].context for i in picked]
            with torch.no_grad(), reply_from([len(one) - 1 for one in contexts], partial(list, contexts)):
                logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits
            for at, i in enumerate(picked):
                start = len(data[i].context) - 1
                yield i, torch.log_softmax(logits[at, start : start + len(data[i].chosen)].float(), -1)
    finally:
        model.train(training)
