"""train: a behaviour that does in the weights what a steering term does in the activations.

    distil   the model learns the steered model's own distribution on the steered model's own replies (KL), while
             ordinary answers are held to the base: nothing but the term says what is right
    rows     it learns the rows that the term was extracted from, as `pv train` does

What it makes is a behaviour like any other. The term stays until it is retired.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pv.registry.errors import DataError, UsageError
from pv.registry.persona import Persona, check_name
from pv.registry.steering import SteeringTerm
from pv.vecstore.activations.steering import Term, steering
from pv.vecstore.data.row import Row, Rows
from pv.vecstore.data.rows import as_rows
from pv.vecstore.models.generate import written
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.steer.applied import terms_of
from pv.vecstore.repo.steer.gates import extracted_from, steered_alone, trial
from pv.vecstore.repo.train import Taught, Training
from pv.vecstore.repo.train import train as run
from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    from torch import nn

    from pv.vecstore.repo.repo import Repo

__all__ = ["ROUTES", "Route", "TrainedIn", "train_in"]

Route = Literal["distil", "rows"]
ROUTES: tuple[Route, ...] = ("distil", "rows")
TOGETHER = 20  # replies that are written at a time
EPOCHS = 6


@dataclass(frozen=True, slots=True)
class TrainedIn:
    """The behaviour, and the term that it was trained from, by a route."""

    term: str
    route: Route
    training: Training

    def to_json(self) -> dict[str, Any]:
        return {"term": self.term, "route": self.route, **self.training.to_json()}


def train_in(
    repo: Repo,
    term: str,
    rows: Rows | str | PathLike[str] | None = None,
    *,
    name: str,
    route: Route = "distil",
    held_out: Rows | str | PathLike[str] | None = None,
    max_tokens: int = 64,
    weight: float | None = None,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
    **options: Any,
) -> TrainedIn:
    """`rows` are those of the extraction where none are given; of them `distil` takes the prompts alone.

    Raises UsageError for a term that is not verified, DataError for one whose rows are not kept.
    """
    if route not in ROUTES:
        raise UsageError(f"no route {route!r} into the weights", hint=f"there are: {', '.join(ROUTES)}")
    check_name(name)
    with trial(repo, term) as of:
        of.needs("verified")
        head, found = Revision(of.registry, of.commit, "HEAD"), of.term
    data = _rows(repo, head, term, found) if rows is None else as_rows(rows)
    held = None if held_out is None else as_rows(held_out)
    common: dict[str, Any] = {
        "name": name, "held_out": held, "weight": weight, "message": message or f"Train {name} from steering {term}",
        "threads": threads, "progress": progress,
    }  # fmt: skip
    if route == "rows":
        return TrainedIn(term, route, run(repo, data, options=TrainOptions.of(**options), **common))
    alone = steered_alone(head.persona, term)
    said = _replies(repo, head, alone, term, data, max_tokens, threads, progress)
    chosen = TrainOptions.of(**{"epochs": EPOCHS, **options, "learn": "teacher"})
    taught = Taught(
        partial(_steered, terms_of(alone, repo.registry.packs), alone.steering.rule),
        {"steering": alone.steering.to_json(), "prompts": data.id},
    )
    return TrainedIn(term, route, run(repo, said, options=chosen, taught=taught, **common))


def _rows(repo: Repo, head: Revision, name: str, term: SteeringTerm) -> Rows:
    found = extracted_from(repo.registry, head.commit, term.vector)
    if not found:
        raise DataError(
            f"the rows that {name} was extracted from are not kept here",
            hint=f"give some: pv steer train {name} ROWS",
        )
    return found[0][1]


def _steered(terms: list[Term], rule: str, model: nn.Module) -> AbstractContextManager[None]:
    return steering(model, terms, rule)  # type: ignore[arg-type]  # which was checked as it was read


def _replies(
    repo: Repo,
    head: Revision,
    alone: Persona,
    name: str,
    data: Rows,
    max_tokens: int,
    threads: int,
    progress: Report | None,
) -> Rows:
    """What the steered model answers to the prompts of the rows. Raises DataError where it answers nothing."""
    from pv.vecstore.repo.chat import chat_with

    prompts = list(dict.fromkeys(row.prompt for row in data if row.prompt))
    if not prompts:
        raise DataError(
            f"{data.source}: rows without a prompt: there is nothing to ask", hint="rows need prompts"
        )
    with chat_with(head, alone, threads=threads, progress=progress) as chat:
        update = stage(progress, f"asking the model that {name} steers", "replies", len(prompts))
        said = written(chat.model, chat.tokenizer, prompts, max_tokens, batch=TOGETHER, progress=update)
    rows = tuple(Row(prompt, one.text) for prompt, one in zip(prompts, said, strict=True) if one.text)
    if not rows:
        raise DataError(
            f"the model that {name} steers answers nothing",
            hint=f"steer less: pv steer set {name} COEFFICIENT",
        )
    return Rows(rows, f"{Path(data.source).stem}.steered.jsonl")
