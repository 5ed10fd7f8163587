"""apply: try a steering term out. Replies with it beside those without it; nothing is committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.registry.steering import SteeringTerm
from pv.vecstore.models.generate import Reply, written
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.chat import Chat
from pv.vecstore.repo.steer.applied import applied
from pv.vecstore.repo.steer.one_term import at_layer, one_term
from pv.vecstore.vectors.steering import open_steering

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["Applied", "apply", "steered_chat"]


@dataclass(frozen=True, slots=True)
class Applied:
    """`plain`: replies of the same model with no steering. The term is as it was applied here."""

    commit: str
    name: str
    term: SteeringTerm
    prompts: tuple[str, ...]
    plain: tuple[Reply, ...]
    replies: tuple[Reply, ...]

    def to_json(self) -> dict[str, Any]:
        both = zip(self.prompts, self.plain, self.replies, strict=True)
        return {
            "commit": self.commit,
            "name": self.name,
            "term": self.term.to_json(),
            "replies": [
                {"prompt": prompt, "without": _reply(a), "steered": _reply(b)} for prompt, a, b in both
            ],
        }


def apply(
    repo: Repo,
    name: str,
    prompts: Sequence[str],
    coefficient: float | None = None,
    *,
    layer: int | None = None,
    sites: Sequence[str] | None = None,
    positions: str | None = None,
    max_tokens: int,
    threads: int,
    progress: Report | None = None,
) -> Applied:
    """Greedy replies, without the term and with it. Raises NotFoundError, UsageError, DataError, MissingBase."""
    if not prompts:
        raise UsageError("nothing to ask", hint="give at least one prompt: -p TEXT")
    registry, commit, persona = _chosen(repo, name, coefficient, layer, sites, positions)
    with _loaded(registry, commit, persona, threads, progress) as chat:
        both = []
        for what, one in (("without the term", persona.unsteered), (f"with {name}", persona)):
            update = stage(progress, f"asking {what}", "prompts", len(prompts))
            with applied(chat.model, one, registry.packs):
                both.append(tuple(written(chat.model, chat.tokenizer, prompts, max_tokens, progress=update)))
    return Applied(commit, name, persona.steering_term(name), tuple(prompts), *both)


@contextmanager
def steered_chat(
    repo: Repo,
    name: str,
    coefficient: float | None = None,
    *,
    layer: int | None = None,
    sites: Sequence[str] | None = None,
    positions: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Iterator[Chat]:
    """The model with one term alone. Raises NotFoundError, UsageError, MissingBase."""
    registry, commit, persona = _chosen(repo, name, coefficient, layer, sites, positions)
    with (
        _loaded(registry, commit, persona, threads, progress) as chat,
        applied(chat.model, persona, registry.packs),
    ):
        yield chat


def _chosen(
    repo: Repo,
    name: str,
    coefficient: float | None,
    layer: int | None,
    sites: Sequence[str] | None,
    positions: str | None,
) -> tuple[Registry, str, Persona]:
    """HEAD's persona with this one term. Everything is refused before a model is loaded."""
    registry = repo.registry
    commit = registry.resolve("HEAD")
    persona = registry.persona(commit)
    term = persona.steering_term(name)
    if layer is not None and sites is not None:
        raise UsageError("a layer and sites exclude each other", hint="give --layer N, or --site SITE")
    known = open_steering(term.vector, persona.base, registry.packs)
    if layer is not None:
        sites = at_layer(known, layer, name)
    for site in sites or ():
        if site not in known:
            raise UsageError(
                f"the vector of steering term {name} has no direction at {site[:80]!r}",
                hint=f"it has {', '.join(sorted(known)[:3])}{' and more' if len(known) > 3 else ''}",
            )
    return registry, commit, one_term(persona, name, coefficient, sites, positions)


@contextmanager
def _loaded(
    registry: Registry, commit: str, persona: Persona, threads: int, progress: Report | None
) -> Iterator[Chat]:
    with torch_threads(threads):
        with temporary_checkpoint(
            registry, commit, persona.unsteered, threads=threads, progress=progress
        ) as folder:
            said(progress, "loading the model")
            loaded = load(folder)
        yield Chat(*loaded)


def _reply(one: Reply) -> dict[str, str]:
    return {"text": one.text, "finish": one.finish}
