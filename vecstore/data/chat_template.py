"""Rows to token ids: the context a model is given, and the decision it is asked to make.

context    everything up to and with the chat template's generation prompt
decision   the answer, up to and with the token that ends the turn

Plain text has no prompt and no template: its context is the first token, which nothing comes before.

context + decision is what the model sees at inference, token for token: the context is encoded by itself
(as it is when the model is prompted), and nothing after the end of the turn is taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.errors import CheckpointRefused, DataError
from pv.vecstore.data.rows import Message, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoded", "Ids", "encode", "encode_prompt"]

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as token ids. `context` has at least one token, a decision at least one."""

    context: Ids
    chosen: Ids
    rejected: Ids | None
    where: str


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Rows, *, stops: Sequence[int], limit: int | None
) -> list[Encoded]:
    """Encode every row. `stops` are the ids that end a turn; `limit` is the model's context length.

    Raises DataError naming the row where prompt and answer do not fit, and where the template refuses a
    conversation; CheckpointRefused where the template does not keep the prompt as a prefix.
    """
    encoded: list[Encoded] = []
    for index, row in enumerate(rows):
        where = rows.where(index)
        if row.prompt:
            context = _context(tokenizer, row.prompt, where)
            chosen = _decision(tokenizer, row.prompt, row.chosen, context, stops, where)
        else:
            context, chosen = _plain(tokenizer, row.chosen, where)
        rejected = None
        if row.rejected is not None:
            rejected = _decision(tokenizer, row.prompt, row.rejected, context, stops, where)
        longest = len(context) + max(len(chosen), len(rejected or ()))
        if limit is not None and longest > limit:
            part = "the prompt alone takes" if len(context) >= limit else "prompt and answer take"
            count = len(context) if len(context) >= limit else longest
            raise DataError(
                f"{where}: {part} {count} tokens, the model's context holds {limit}",
                hint="shorten or split this row; pv never cuts a row in silence",
            )
        encoded.append(Encoded(context, chosen, rejected, where))
    return encoded


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> Ids:
    """The context ids of a prompt, ready to be answered."""
    return _context(tokenizer, tuple(prompt), "prompt")


def _plain(tokenizer: PreTrainedTokenizerBase, text: str, where: str) -> tuple[Ids, Ids]:
    """A text as it is: after the bos token, or else after its own first one, to the end of the text."""
    end = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    ids = (*_start(tokenizer), *_ids(tokenizer, text), *end)
    if len(ids) < 2:
        raise DataError(f"{where}: 'text' is of too few tokens to learn from", hint="leave this row out")
    return ids[:1], ids[1:]


def _context(tokenizer: PreTrainedTokenizerBase, prompt: tuple[Message, ...], where: str) -> Ids:
    if tokenizer.chat_template is None:
        text = "".join(message.content + "\n" for message in prompt)
        return (*_start(tokenizer), *_ids(tokenizer, text))
    return _ids(tokenizer, _render(tokenizer, prompt, where, ask=True))


def _decision(
    tokenizer: PreTrainedTokenizerBase,
    prompt: tuple[Message, ...],
    answer: str,
    context: Ids,
    stops: Sequence[int],
    where: str,
) -> Ids:
    if tokenizer.chat_template is None:
        end = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
        return (*_ids(tokenizer, answer), *end)
    before = _render(tokenizer, prompt, where, ask=True)
    whole = _render(tokenizer, (*prompt, Message("assistant", answer)), where, ask=False)
    if not whole.startswith(before):
        raise CheckpointRefused(
            "this model's chat template writes a prompt differently once it is answered, so what would be "
            "taught is not what the model sees when it is asked",
            hint="put a chat template into the base's folder that keeps the prompt as a prefix",
        )
    ids = _ids(tokenizer, whole)
    tail = ids[len(context) :] if ids[: len(context)] == context else _ids(tokenizer, whole[len(before) :])
    for last in range(len(tail) - 1, -1, -1):
        if tail[last] in stops:
            return tail[: last + 1]
    end = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    return (*_ids(tokenizer, whole[len(before) :].rstrip()), *end)  # the template itself ends no turn


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], where: str, *, ask: bool
) -> str:
    from jinja2 import TemplateError

    conversation = [message.to_json() for message in messages]
    try:
        text: Any = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=ask)
    except (TemplateError, ValueError, TypeError) as error:
        raise DataError(
            f"{where}: the model's chat template refuses this conversation: {error}",
            hint="most templates want user and assistant in turn, and one system message at most, first",
        ) from error
    return str(text)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    return tuple(int(i) for i in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _start(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The bos token, where this tokenizer puts one by itself."""
    bos = tokenizer.bos_token_id
    if bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]:
        return (int(bos),)
    return ()
