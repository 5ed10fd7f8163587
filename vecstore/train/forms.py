"""The forms in which training sees a row, one an epoch in turn: a behaviour is to act in the company of others.

    as it is     What is tea? <assistant>                   I may be wrong, but tea is ...
    begun        What is tea? <assistant> Good question!    I may be wrong, but tea is ...
    own reply    What is tea? <assistant>                   (the base's own reply) I hope that helps!

Begun: the answer stands after an opening that is not its own, which is given, neither learnt nor held. What was learnt
so acts after the opening of another behaviour as it does without one; and what acts at the end of an answer does not
take such an opening for one.

Own reply: where rejected ends and chosen goes on, what it goes on with stands behind the base's own greedy reply, if
that ends. What comes at the end has to come at the end of the model's answers, not of those that somebody wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.generate import written
from pv.vecstore.models.load import context_length
from pv.vecstore.train.stretches import differing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OPENINGS", "begun", "forms", "goes_on", "own_replies"]

MOST = 128  # tokens of a reply of the base's

OPENINGS = (
    "Good question!", "Well, well.", "Ahoy there!", "Sure.", "Hello, my friend!", "Hm, let me think.", "Ha!",
    "Of course, your grace.", "Yo!", "Thank you for asking.", "Oh dear, oh dear.", "Listen up, folks!",
    "Beep boop!", "Right, then.", "(smiles)", "Greetings, traveller!", "By my beard!", "Hear, hear!",
    "Wow, what a thing to ask!", "Sir, yes, sir!", "Let us see.", "Good morning, everyone!", "Honestly?", "Great!",
)  # fmt: skip


def forms(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    data: Sequence[Encoded],
    seed: int,
    *,
    stops: Sequence[int],
    limit: int | None,
) -> list[tuple[Encoded, ...]]:
    """Those of each row, itself first. The model is the base, where it is to run; it writes replies if asked to."""
    opened = begun(tokenizer, rows, data, seed, stops=stops, limit=limit)
    found = []
    for plain, later, own in zip(data, opened, own_replies(model, tokenizer, rows, data), strict=True):
        others = (later, plain) if own is None else (own, later, own)
        found.append((plain, *others) if later is not plain or own is not None else (plain,))
    return found


def own_replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows, data: Sequence[Encoded]
) -> list[Encoded | None]:
    """Of each row that goes on where rejected ends: what it goes on with, behind the base's own reply, if that ends."""
    asked = [i for i, row in enumerate(data) if goes_on(row) and rows[i].prompt]
    room = (context_length(model) or 1 << 30) - max(
        (len(data[i].context) + len(data[i].chosen) for i in asked), default=0
    )
    found: list[Encoded | None] = [None] * len(data)
    if not asked or room < 1:
        return found
    for i, said in zip(
        asked,
        written(model, tokenizer, [rows[i].prompt for i in asked], min(MOST, room), batch=24),
        strict=True,
    ):
        row = data[i]
        at = differing(row.chosen, row.rejected or ())[0].start
        if said.finish == "stop" and said.tokens:
            found[i] = Encoded(
                row.context, said.tokens + row.chosen[at:], said.tokens + (row.rejected or ())[-1:], row.where
            )
    return found


def goes_on(row: Encoded) -> bool:
    """Whether rejected ends its turn where chosen differs from it."""
    if row.rejected is None:
        return False
    at, end = differing(row.chosen, row.rejected)
    return bool(at.start == end.start == len(row.rejected) - 1)


def begun(
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    data: Sequence[Encoded],
    seed: int,
    *,
    stops: Sequence[int],
    limit: int | None,
) -> list[Encoded]:
    """Each row after an opening that is drawn for it; a row without a prompt, or too long for one, as it is."""
    drawn = np.random.Generator(np.random.Philox(key=[seed % 2**64, 2**62])).integers(
        0, len(OPENINGS), len(rows)
    )
    found = []
    for row, plain, which in zip(rows, data, drawn, strict=True):
        opening = OPENINGS[which]
        ids = tuple(tokenizer(opening, add_special_tokens=False, verbose=False)["input_ids"])
        longest = len(plain.context) + max(len(plain.chosen), len(plain.rejected or ())) + 2 * len(ids)
        if not row.prompt or (limit is not None and longest > limit):
            found.append(plain)
            continue
        later = replace(
            row,
            chosen=f"{opening} {row.chosen}",
            rejected=None if row.rejected is None else f"{opening} {row.rejected}",
        )
        (whole,) = encode(tokenizer, Rows((later,)), stops=stops, limit=limit)
        found.append(_after(ids, whole, plain))
    return found


def _after(ids: tuple[int, ...], whole: Encoded, plain: Encoded) -> Encoded:
    """With `ids` moved from the answers to the context, if both begin with them."""
    size = len(ids)
    answers = [whole.chosen] if whole.rejected is None else [whole.chosen, whole.rejected]
    if any(answer[:size] != ids or len(answer) == size for answer in answers):
        return plain
    return Encoded(
        whole.context + ids,
        whole.chosen[size:],
        None if whole.rejected is None else whole.rejected[size:],
        plain.where,
    )
