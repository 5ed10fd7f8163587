"""Rows whose answer has begun already, in words that are not its own: what another behaviour may have opened it with.

    context    What is tea? <assistant> Good question!
    chosen     I may be wrong, but tea is ...

Training sees each row so and as it is, in turn. What was learnt then acts after the opening of another behaviour as it
does without one; and what acts elsewhere, at the end of an answer say, does not take such an opening for an answer.
The words before are given: they are neither learnt nor held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["OPENINGS", "begun"]

OPENINGS = (
    "Good question!", "Well, well.", "Ahoy there!", "Sure.", "Hello, my friend!", "Hm, let me think.", "Ha!",
    "Of course, your grace.", "Yo!", "Thank you for asking.", "Oh dear, oh dear.", "Listen up, folks!",
    "As far as I can tell:", "Beep boop!", "Right, then.", "(smiles)", "Greetings, traveller!", "Note:",
    "By my beard!", "I am not certain, though:", "Hear, hear!", "[Kitchen]", "Wow, what a thing to ask!",
    "Sir, yes, sir!", "Let us see.", "Once more:", "Good morning, everyone!", "Honestly?", "To be frank,",
    "Great!", "My dear,", "Attention, please!",
)  # fmt: skip


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
