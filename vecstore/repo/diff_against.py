"""diff against steering terms: did the activations move along them, from one model to another?

Both models run over the same texts with the same answers, one after the other. Where a term's vector has a direction,
the shift of the mean activation is held against it: see `evaluate.moved`. Steering itself is left out: what is compared
is what the weights do.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import BaseMismatch, UsageError
from pv.vecstore.activations.shift import Means, means, shift, texts_of
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.moved import DRAWS, NO_MORE, Movement, check_fit, moved
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.running import check_folder, running_folder, running_persona
from pv.vecstore.repo.steer.term_at import TermAt, term_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pv.vecstore.activations.reading import Text
    from pv.vecstore.repo.reading import Reading

__all__ = ["Against", "Trait", "chosen_texts", "diff_against"]

Side = Revision | Path | str


@dataclass(frozen=True, slots=True)
class Trait:
    """How far one term's direction was gone. `applied`: the sites where the term steers."""

    name: str
    vector: str
    applied: tuple[str, ...]
    movement: Movement

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "vector": self.vector,
            "applied": list(self.applied),
            **self.movement.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Against:
    """From a to b, on `n` texts. Falsy if it moved along no term."""

    a: str
    b: str
    texts: str
    texts_id: str
    n: int
    traits: tuple[Trait, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(one.movement.verdict != NO_MORE for one in self.traits)

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "texts": self.texts,
            "texts_id": self.texts_id,
            "n": self.n,
            "moved": bool(self),
            "against": [one.to_json() for one in self.traits],
            "notes": list(self.notes),
        }


def diff_against(
    repo: Reading,
    a: Side,
    b: Side,
    terms: Sequence[str],
    *,
    texts: Rows | None = None,
    threads: int | None = None,
    progress: Report | None = None,
) -> Against:
    """Two revisions, or two checkpoints, of which a Revision stands for its base; along TERMs or REV:TERMs.

    Raises NotFoundError, UnknownRevision, MissingBase, CheckpointRefused; BaseMismatch for a term of another base;
    UsageError for models of different shapes, or a direction that does not fit.
    """
    rows = chosen_texts(texts)
    traits = _terms(repo, terms)
    both = isinstance(a, Revision) and isinstance(b, Revision)
    for side in (a, b):  # before any of them runs
        _check(side, traits)
    sites = list(dict.fromkeys(site for one in traits for site in one.directions))
    with _running(a, both, threads, progress) as (model, tokenizer):
        ran = texts_of(model, tokenizer, rows)
        before = _means(model, ran, sites, _called(a, both), DRAWS, progress)
        for one in traits:
            check_fit(before, one.directions)
        del model, tokenizer
    with _running(b, both, threads, progress) as (model, tokenizer):
        after = _means(model, ran, sites, _called(b, both), 0, progress)
        del model, tokenizer
    step = shift(before, after)
    found = tuple(
        Trait(one.name, one.term.vector, one.applied, moved(step, one.directions, before.drawn))
        for one in traits
    )
    names = _called(a, both), _called(b, both)
    return Against(*names, Path(rows.source).name, rows.id, len(rows), found, tuple(_notes(a, b, both)))


def chosen_texts(texts: Rows | None) -> Rows:
    """The texts that were given, or pv's neutral set. Raises UsageError if they are too few for an interval."""
    rows = neutral_set() if texts is None else texts
    if len(rows) < 2:
        raise UsageError(
            f"{rows.source} holds {len(rows)} text: an interval needs at least 2", hint="24 are a good start"
        )
    return rows


def _terms(repo: Reading, terms: Sequence[str]) -> list[TermAt]:
    twice = next((name for at, name in enumerate(terms) if name in terms[:at]), None)
    if twice is not None or not terms:
        what = "no steering term is named" if twice is None else f"{twice!r} is named twice"
        raise UsageError(what, hint="name each term once: `pv steer list` shows them")
    return [term_at(repo, name) for name in terms]


def _check(side: Side, traits: Sequence[TermAt]) -> None:
    if not isinstance(side, Revision):
        check_folder(side)
        return
    for one in traits:
        if one.base != side.persona.base:
            raise BaseMismatch(
                f"{one.name} is a direction in base {one.base[:12]}, and {side.name} is of base "
                f"{side.persona.base[:12]}",
                hint="a steering vector means nothing in another model: extract it again in this one",
            )


def _running(
    side: Side, both: bool, threads: int | None, progress: Report | None
) -> AbstractContextManager[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    if not isinstance(side, Revision):
        return running_folder(side, threads=threads, progress=progress)
    persona = side.persona if both else side.persona.without_behaviours()
    return running_persona(
        side.registry, side.commit, persona, what=_called(side, both), threads=threads, progress=progress
    )


def _means(
    model: PreTrainedModel,
    texts: Sequence[Text],
    sites: Sequence[str],
    what: str,
    draws: int,
    progress: Report | None,
) -> Means:
    return means(
        model, texts, sites, draws=draws, progress=stage(progress, f"reading {what}", "texts", len(texts))
    )


def _called(side: Side, both: bool) -> str:
    if isinstance(side, Revision):
        return side.name if both else f"the base of {side.name}"
    return str(side)


def _notes(a: Side, b: Side, both: bool) -> list[str]:
    if isinstance(a, Revision) and isinstance(b, Revision):
        steered = sorted({*a.persona.steering.active, *b.persona.steering.active})
        if steered:
            return [f"weights alone were compared; steering was left out: {', '.join(steered[:3])}"]
    whole = [one for one in (a, b) if isinstance(one, Revision) and not both and not one.persona.is_plain]
    if whole:
        return [
            f"beside a checkpoint, {whole[0].name} stands for its base; `pv build` makes a checkpoint of it to compare"
        ]
    return ["both are the same checkpoint"] if _called(a, both) == _called(b, both) else []
