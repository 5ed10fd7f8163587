"""What was measured of one build: read from its record, or measured and noted there, so that nothing is measured twice.

The model is loaded when something is not known yet, and once. Records may be anybody's: what is not in the form that
is written here was not measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from pv.registry import canonical
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.data.chat_template import Encoded, encode_prompt
from pv.vecstore.data.questions import Questions
from pv.vecstore.data.row import Message
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import OPENING, Distributions, Neutral, forced, neutral
from pv.vecstore.evaluate.margins import Margins, margins, need_pairs
from pv.vecstore.evaluate.orders import both_orders
from pv.vecstore.evaluate.tasks import Answers, answers
from pv.vecstore.merge.build import build_id
from pv.vecstore.models.generate import Reply, written
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Progress, Report, said, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.steer.applied import applied
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

__all__ = ["Measurements", "as_noisy"]

MOST = 1e12  # nats or tokens: what is more was never measured
TOGETHER = 24  # replies that are written at a time
Table = TypeVar("Table", Margins, Neutral, Answers)


class Measurements:
    """Of a persona's build. `packs` holds vectors that are not in the registry yet; `what` is measured, in words.

    `random`: of noise in the place of the persona's change of its base, as large in every tensor and direction; the
    number is the draw. `loaded` is a model that has the persona's weights, or gives one when it is needed: steering
    terms are set on it.
    """

    def __init__(
        self,
        registry: Registry,
        commit: str,
        persona: Persona,
        *,
        what: str = "",
        threads: int | None = None,
        progress: Report | None = None,
        packs: PackStore | None = None,
        random: int = 0,
        loaded: Loaded | Callable[[], Loaded] | None = None,
    ) -> None:
        self.build = build_id(persona)
        self.what = what or ", ".join(sorted(persona.behaviours)) or "the base"
        self._registry, self._commit, self._persona = registry, commit, persona
        self._threads, self._progress, self._packs = threads, progress, packs
        self._random = random
        self._known = registry.record(self.build)
        self._held = ExitStack()
        self._model: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._given = loaded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = None
        self._held.close()

    def margins(self, rows: Rows, label: str = "") -> Margins:
        """Raises DataError for rows without rejected answers."""
        need_pairs(rows)
        turned = len(both_orders(rows)[0]) > len(rows)
        key = f"{rows.id}:both orders" if turned else rows.id
        if (known := _table(Margins, self._noted("margins", key), len(rows))) is not None:
            return known
        update = self._stage(label or f"measuring {self.what} on {Path(rows.source).name}", len(rows))
        found = margins(*self._loaded(), rows, progress=update)
        self._note("margins", key, _document(found))
        return found

    def knows_neutral(self, rows: Rows) -> bool:
        return _table(Neutral, self._noted("neutral", _neutral_id(rows)), len(rows)) is not None

    def neutral(
        self, rows: Rows, *, keep: Distributions | None = None, against: Distributions | None = None
    ) -> Neutral:
        """On a neutral set. With `keep` the base is run again: its distributions are too large to be noted."""
        key = _neutral_id(rows)
        if keep is None and (known := _table(Neutral, self._noted("neutral", key), len(rows))) is not None:
            return known
        update = self._stage(f"measuring {self.what} on {Path(rows.source).name}", len(rows))
        found = neutral(*self._loaded(), rows, keep=keep, against=against, progress=update)
        self._note("neutral", key, _document(found))
        return found

    def answers(self, questions: Questions) -> Answers:
        """To questions with choices, by likelihood."""
        if (known := _table(Answers, self._noted("answers", questions.id), len(questions))) is not None:
            return known
        update = self._stage(
            f"measuring {self.what} on {Path(questions.source).name}", len(questions), "questions"
        )
        found = answers(*self._loaded(), questions, progress=update)
        self._note("answers", questions.id, _document(found))
        return found

    def replies(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[Reply]:
        """Greedy."""
        key = _prompts_id(prompts, max_tokens)
        if (known := _replies(self._noted("replies", key), len(prompts), max_tokens)) is not None:
            return known
        update = self._stage(f"asking {self.what}", len(prompts), "prompts")
        model, tokenizer = self._loaded()
        found = written(model, tokenizer, prompts, max_tokens, batch=TOGETHER, progress=update)
        noted = [{"text": one.text, "tokens": list(one.tokens), "finish": one.finish} for one in found]
        self._note("replies", key, noted)
        return found

    def forced(self, prompts: Sequence[Sequence[Message]], replies: Sequence[Reply]) -> Neutral:
        """The base's replies, token by token, whatever this one would have said."""
        key = _replies_id(prompts, replies)
        if (known := _table(Neutral, self._noted("base_replies", key), len(prompts))) is not None:
            return known
        update = self._stage(f"measuring {self.what} on the base's replies", len(prompts))
        model, tokenizer = self._loaded()
        said_ = [
            (i, Encoded(encode_prompt(tokenizer, prompt), reply.tokens, None, f"prompt {i + 1}"))
            for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True))
            if reply.tokens
        ]
        some = forced(model, tokenizer, [one for _, one in said_], progress=update)
        found = Neutral(**{one.name: np.zeros(len(prompts)) for one in fields(Neutral)})
        for one in fields(Neutral):
            getattr(found, one.name)[[i for i, _ in said_]] = getattr(some, one.name)
        self._note("base_replies", key, _document(found))
        return found

    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._model is None:
            if self._random and not self._persona.is_base:
                base = self._load(self._persona.without_behaviours())
                key = self.build if self._random == 1 else f"{self.build}:{self._random}"
                self._model = as_noisy(base, self._load(self._persona.unsteered), key)
            else:
                given = self._given() if callable(self._given) else self._given
                self._model = given or self._load(self._persona.unsteered)
            steer = applied(
                self._model[0], self._persona, self._registry.packs, self._packs, random=self._random
            )
            self._held.enter_context(steer)
        return self._model

    def _load(self, persona: Persona) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        checkpoint = temporary_checkpoint(
            self._registry, self._commit, persona, what=self.what,
            threads=thread_count(self._threads), progress=self._progress, packs=self._packs,
        )  # fmt: skip
        folder = self._held.enter_context(checkpoint)
        self._held.enter_context(torch_threads(self._threads))
        said(self._progress, "loading the model")
        return load(folder)

    def _stage(self, name: str, total: int, unit: str = "rows") -> Progress | None:
        self._loaded()  # what that says comes before
        return stage(self._progress, name, unit, total)

    def _noted(self, kind: str, key: str) -> object:
        known = self._known.get(self._kind(kind))
        return known.get(key) if isinstance(known, dict) else None

    def _note(self, kind: str, key: str, document: object) -> None:
        self._known = self._registry.update_record(self.build, {self._kind(kind): {key: document}})

    def _kind(self, kind: str) -> str:
        return (
            kind
            if not self._random
            else f"random {kind}"
            if self._random == 1
            else f"random {self._random} {kind}"
        )


def as_noisy(
    base: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    own: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    key: str,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base plus noise, in each tensor of the norm by which `own` differs from it. The same key, the same noise."""
    import torch

    model = base[0]
    changed = dict(own[0].named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = (changed[name] - weight).norm()
            if norm > 0:
                seed = int.from_bytes(hashlib.sha256(f"pv:noise:1\n{key}\n{name}".encode()).digest()[:8])
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed >> 1))
                weight += noise * (norm / noise.norm())
    return base


def _prompts_id(prompts: Sequence[Sequence[Message]], max_tokens: int) -> str:
    """Names greedy replies of a length to these prompts."""
    document: list[Any] = [max_tokens, [[message.to_json() for message in prompt] for prompt in prompts]]
    return hashlib.sha256(b"pv:prompts:1\n" + canonical.dumps(document)).hexdigest()


def _replies_id(prompts: Sequence[Sequence[Message]], replies: Sequence[Reply]) -> str:
    """Names these replies to these prompts."""
    document: list[Any] = [[list(reply.tokens) for reply in replies], _prompts_id(prompts, OPENING)]
    return hashlib.sha256(b"pv:replies:1\n" + canonical.dumps(document)).hexdigest()


def _neutral_id(rows: Rows) -> str:
    """What is noted of a neutral set belongs to the opening that is left out."""
    return f"{rows.id}:{OPENING}"


def _document(table: Margins | Neutral | Answers) -> dict[str, list[float]]:
    return {one.name: [float(x) for x in getattr(table, one.name)] for one in fields(table)}


def _table(of: type[Table], document: object, rows: int) -> Table | None:
    if not isinstance(document, dict):
        return None
    found: dict[str, NDArray[np.float64]] = {}
    for one in fields(of):
        numbers = document.get(one.name)
        if not _are_numbers(numbers, rows):
            return None
        found[one.name] = np.asarray(numbers, np.float64)
        if one.name.endswith("_tokens") and rows and found[one.name].min() < (of is Margins):
            return None
    return of(**found)


def _are_numbers(value: object, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(type(x) in (int, float) and abs(x) < MOST for x in value)
    )


def _replies(noted: object, prompts: int, max_tokens: int) -> list[Reply] | None:
    if not isinstance(noted, list) or len(noted) != prompts:
        return None
    found = []
    for one in noted:
        match one:
            case {
                "text": str(text),
                "tokens": list(tokens),
                "finish": "stop" | "length" | "context" as finish,
            } if len(tokens) <= max_tokens and all(type(token) is int for token in tokens):
                found.append(Reply(text, tuple(tokens), finish))
            case _:
                return None
    return found
