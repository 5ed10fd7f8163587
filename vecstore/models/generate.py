"""Replies: what a model says. Greedy unless a temperature is given, and then seeded.

A loop of our own, not `generate`: no defaults taken from a checkpoint's generation_config, no warnings, and
the same words for a prompt whether it is asked alone or in a batch (up to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import encode_prompt
from pv.vecstore.data.rows import Message
from pv.vecstore.models.load import context_length, stop_ids
from pv.vecstore.models.reply_columns import reply_from

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Finish", "Prompt", "Reply", "replies", "stream", "written"]

Prompt = str | Sequence[Message]
Finish = Literal["stop", "length", "context"]
"""What ended a reply: the model, `max_new_tokens`, or the model's context, which is full."""
UNFINISHED = "\ufffd"  # what a decoder writes for half of a character


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text, its tokens without the one that ended it, and what ended it."""

    text: str
    tokens: tuple[int, ...]
    finish: Finish


def replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Answer every prompt, each ended by the model's end of turn or by `max_new_tokens`.

    Raises DataError for a prompt that leaves no room in the model's context, UsageError for bad settings.
    """
    found = written(
        model, tokenizer, prompts, max_new_tokens,
        temperature=temperature, seed=seed, batch=batch, progress=progress,
    )  # fmt: skip
    return [reply.text for reply in found]


def written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """The same, with tokens and what ended each."""
    contexts = [_encode(model, tokenizer, prompt, number) for number, prompt in enumerate(prompts, start=1)]
    order = sorted(range(len(contexts)), key=lambda i: (len(contexts[i]), i))
    found: dict[int, Reply] = {}
    for start in range(0, len(order), batch):
        picked = order[start : start + batch]
        answers: list[list[int]] = [[] for _ in picked]
        room = _room(model, [contexts[i] for i in picked], max_new_tokens)
        for new in _generate(
            model, tokenizer, [contexts[i] for i in picked], max_new_tokens, temperature, seed
        ):
            for tokens, token in zip(answers, new, strict=True):
                if token is not None:
                    tokens.append(token)
        for i, tokens in zip(picked, answers, strict=True):
            found[i] = Reply(
                _decode(tokenizer, tokens).strip(), tuple(tokens), _ended(len(tokens), room, max_new_tokens)
            )
        if progress is not None:
            progress(len(found), len(order))
    return [found[i] for i in range(len(contexts))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    max_new_tokens: int = 512,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> Generator[str, None, Finish]:
    """One answer, piece by piece as it is written; the pieces joined are the answer. Returns what ended it."""
    tokens: list[int] = []
    shown = ""
    text = ""
    context = _encode(model, tokenizer, prompt, 1)
    for (token,) in _generate(model, tokenizer, [context], max_new_tokens, temperature, seed):
        if token is None:
            break
        tokens.append(token)
        text = _decode(tokenizer, tokens)
        if text.startswith(shown) and len(text) > len(shown) and not text.endswith(UNFINISHED):
            yield text[len(shown) :]
            shown = text
    if text.startswith(shown) and len(text) > len(shown):
        yield text[len(shown) :]
    return _ended(len(tokens), _room(model, [context], max_new_tokens), max_new_tokens)


def _ended(tokens: int, room: int, max_new_tokens: int) -> Finish:
    if tokens < room:
        return "stop"
    return "length" if tokens == max_new_tokens else "context"


def _room(model: PreTrainedModel, contexts: Sequence[Sequence[int]], max_new_tokens: int) -> int:
    """How many tokens can be written."""
    limit = context_length(model)
    return max_new_tokens if limit is None else min(max_new_tokens, limit - max(map(len, contexts)))


def _encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, number: int
) -> tuple[int, ...]:
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    ids = encode_prompt(tokenizer, messages)
    limit = context_length(model)
    if limit is not None and len(ids) >= limit:
        raise DataError(
            f"prompt {number} takes {len(ids)} tokens, the model's context holds {limit}", hint="shorten it"
        )
    return ids


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[list[int | None]]:
    """Yield the next token of every context, None for those that have ended, until all have."""
    import torch

    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise UsageError("max_new_tokens must be at least 1, and temperature 0 or more")
    stops = set(stop_ids(model, tokenizer))
    generator = torch.Generator().manual_seed(seed)
    width = max(map(len, contexts))
    ids = torch.zeros(len(contexts), width, dtype=torch.int64)
    mask, positions = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, context in enumerate(contexts):  # left-padded
        ids[i, width - len(context) :] = torch.tensor(context)
        mask[i, width - len(context) :] = 1
        positions[i, width - len(context) :] = torch.arange(len(context))
    alive = [True] * len(contexts)
    cache = None
    training = model.training
    model.eval()
    try:
        for _ in range(_room(model, contexts, max_new_tokens)):
            with torch.no_grad(), reply_from([ids.shape[1] - 1], lambda: contexts):
                output = model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
            cache = output.past_key_values
            chosen = _pick(output.logits[:, -1].float(), temperature, generator)  # (B,)
            picked: list[int | None] = []
            for i, token in enumerate(chosen.tolist()):
                alive[i] = alive[i] and token not in stops
                picked.append(token if alive[i] else None)
            if not any(alive):
                return
            yield picked
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    finally:
        model.train(training)


def _pick(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """(B, V) logits to (B,) tokens."""
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)[:, 0]


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
