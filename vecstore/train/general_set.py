"""Ordinary answers to ordinary prompts, part of pv: what training holds still beside a behaviour."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import DataError
from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Row, Rows, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

__all__ = ["encode_general", "general_set"]


@cache
def general_set() -> Rows:
    """64 prompts of all kinds, answered in a few sentences; every second answer is there as plain text too."""
    rows = read_rows(Path(__file__).with_name("general.jsonl"))
    return Rows((*rows, *(Row((), row.chosen) for row in rows[::2])), source="pv's general set")


def encode_general(
    tokenizer: PreTrainedTokenizerBase, rows: Rows | None, *, stops: Sequence[int], limit: int | None
) -> list[Encoded]:
    """`rows`, or pv's own set. Of pv's own, rows that do not fit this model's context or template are left out.

    Raises DataError for a row of yours that does not fit.
    """
    if rows is not None:
        return encode(tokenizer, rows, stops=stops, limit=limit)
    fitting: list[Encoded] = []
    own = general_set()
    for index in range(len(own)):
        try:
            fitting += encode(tokenizer, own[index : index + 1], stops=stops, limit=limit)
        except DataError:
            continue
    return fitting
