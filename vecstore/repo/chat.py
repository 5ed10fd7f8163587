"""chat: a revision as a model that answers. Loaded once, for as long as the block runs."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.persona import Persona
from pv.vecstore.data.rows import Message
from pv.vecstore.models.generate import Finish, Prompt, replies, stream
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.steer.applied import applied

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pv.vecstore.repo.revision import Revision

__all__ = ["Chat", "Message", "chat", "chat_with"]


@dataclass(frozen=True, slots=True)
class Chat:
    """A loaded model and its tokenizer. Greedy unless a temperature is given, and then seeded."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def stream(
        self, conversation: Sequence[Message], max_tokens: int = 256, **sampling: Any
    ) -> Generator[str, None, Finish]:
        """The answer to a conversation, piece by piece; it returns what ended it. Raises DataError if none fits."""
        return stream(self.model, self.tokenizer, tuple(conversation), max_tokens, **sampling)

    def replies(self, prompts: Sequence[Prompt], max_tokens: int = 256, **sampling: Any) -> list[str]:
        """The answer to each prompt, asked by itself."""
        return replies(self.model, self.tokenizer, prompts, max_tokens, **sampling)


@contextmanager
def chat(
    revision: Revision, *, base: bool = False, threads: int, progress: Report | None = None
) -> Iterator[Chat]:
    """The revision, or (`base`) its bare base, built and loaded. Raises MissingBase, CheckpointRefused."""
    persona = revision.persona.without_behaviours() if base else revision.persona
    with chat_with(revision, persona, threads=threads, progress=progress) as found:
        yield found


@contextmanager
def chat_with(
    revision: Revision, persona: Persona, *, threads: int, progress: Report | None = None
) -> Iterator[Chat]:
    """Any persona of the revision's base, whose vectors are at hand."""
    with torch_threads(threads):
        with temporary_checkpoint(
            revision.registry, revision.commit, persona.unsteered, threads=threads, progress=progress
        ) as folder:
            said(progress, "loading the model")
            model, tokenizer = load(folder)
        with applied(model, persona, revision.registry.packs):
            yield Chat(model, tokenizer)
