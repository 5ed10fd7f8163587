"""Tasks: whether questions with a right answer are answered as well as the base answers them.

The model is asked the question, its reply is begun for it, and each choice is what might come next:

    user: What is frozen water called?   assistant: Thank you ... The right answer to it is| Sand    | Ice    | Oil
                                                                               log p          -7.1     -1.9    -8.0
                                                                               margin         +5.2: right

margin     log p(right choice) - log p(likeliest wrong one), each summed over the choice's tokens; above 0 is right

By likelihood, since a small model writes hardly any right solution, and so could lose none; likelihood tells more of
each question than right or wrong, too. Behind a sentence and the beginning of the next one, since a behaviour may open
a reply as it likes, and behind "Answer:" it still did; without the token that ends the reply, since it may end as it
likes. Summed, since that is the odds of one answer against another; the mean over tokens is beside it, but rewards
names of many tokens, of which all but the first are certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import encode_prompt
from pv.vecstore.data.questions import Question, Questions, parse_questions
from pv.vecstore.evaluate.statistics import Interval, bootstrap, share
from pv.vecstore.models.load import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LEAD", "Answers", "TaskScore", "Tasks", "answers", "own_questions", "tasks"]

F64 = NDArray[np.float64]
FILE = Path(__file__).with_name("tasks.jsonl")
LEAD = "Thank you for the question. The right answer to it is"


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Per question, in their order: by how many nats the right choice leads the likeliest wrong one, (n,) float64."""

    margin: F64
    margin_per_token: F64
    """The same with the mean over each choice's tokens."""

    def __len__(self) -> int:
        return len(self.margin)


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Of one task's questions: share answered right (Wilson's interval) and margin in nats, beside the base.

    Changes are this one's minus the base's, question by question, with the paired bootstrap's interval: one of no
    width says that no question changed.
    """

    task: str
    accuracy: Interval
    base_accuracy: Interval
    accuracy_change: Interval
    margin: Interval
    base_margin: Interval
    margin_change: Interval
    margin_change_per_token: Interval

    @property
    def worse(self) -> bool:
        """Whether fewer are right, for certain."""
        return self.accuracy_change.verdict == "down"

    def to_json(self) -> dict[str, Any]:
        intervals = {one.name: getattr(self, one.name).ends() for one in fields(self) if one.name != "task"}
        return {"task": self.task, "n": self.accuracy.n, **intervals}


@dataclass(frozen=True, slots=True)
class Tasks:
    """On the questions `questions_id`, which came from `questions`: task by task."""

    questions: str
    questions_id: str
    parts: tuple[TaskScore, ...]

    def to_json(self) -> dict[str, Any]:
        parts = [one.to_json() for one in self.parts]
        return {"questions": self.questions, "questions_id": self.questions_id, "parts": parts}


@cache
def own_questions() -> Questions:
    """Those that are part of pv: 60 of general knowledge, 60 of arithmetic, of four choices each, in English."""
    return parse_questions(FILE.read_bytes(), source="pv's questions")


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """Ask every question; `progress(done, total)` counts them. The model runs in eval mode and is left as it was.

    Raises DataError for a question that does not fit the model's context.
    """
    import torch

    from pv.vecstore.models.logprobs import answer_logps, collate

    limit = context_length(model)
    data = [_encode(tokenizer, one, questions.where(i), limit) for i, one in enumerate(questions)]
    order = sorted(range(len(data)), key=lambda i: (len(data[i][1]), len(data[i][0]), i))
    found = np.zeros((len(data), 2))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            while order:
                choices = len(data[order[0]][1])
                picked = [i for i in order[:batch] if len(data[i][1]) == choices]
                order = order[len(picked) :]
                padded = collate([data[i][0] for i in picked], [data[i][1] for i in picked])
                sums = answer_logps(model, padded).double().sum(1).view(-1, choices).numpy()
                counts = padded.counts.view(-1, choices).numpy()
                for i, row, each in zip(picked, sums, sums / counts, strict=True):
                    found[i] = [_lead(one, questions[i].answer) for one in (row, each)]
                if progress is not None:
                    progress(len(data) - len(order), len(data))
    finally:
        model.train(training)
    return Answers(*found.T.copy())


def tasks(questions: Questions, after: Answers, before: Answers) -> Tasks:
    """What a persona's answers are worth against its base's. Raises UsageError for other questions, and for NaN."""
    if not len(questions) == len(after) == len(before):
        raise UsageError("tasks are compared on the same questions before and after")
    names = np.array([one.task for one in questions])
    parts = tuple(_part(task, after, before, names == task) for task in questions.tasks)
    return Tasks(Path(questions.source).name, questions.id, parts)


def _part(task: str, after: Answers, before: Answers, of: NDArray[np.bool_]) -> TaskScore:
    new, old = after.margin[of], before.margin[of]
    margin, base_margin = bootstrap(new), bootstrap(old)  # NaN is refused here
    right, base_right = new > 0, old > 0
    return TaskScore(
        task,
        accuracy=share(int(right.sum()), len(right)),
        base_accuracy=share(int(base_right.sum()), len(right)),
        accuracy_change=bootstrap(right.astype(np.float64) - base_right),
        margin=margin,
        base_margin=base_margin,
        margin_change=bootstrap(new - old),
        margin_change_per_token=bootstrap(after.margin_per_token[of] - before.margin_per_token[of]),
    )


def _lead(logps: F64, right: int) -> float:
    return float(logps[right] - np.delete(logps, right).max())


def _encode(
    tokenizer: PreTrainedTokenizerBase, question: Question, where: str, limit: int | None
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The context, up to and with the lead, and the choices, without the token that ends a reply."""
    lead = _ids(tokenizer, LEAD)
    context = (*encode_prompt(tokenizer, question.prompt), *lead)
    choices = []
    for choice in question.choices:
        whole = _ids(tokenizer, f"{LEAD} {choice}")
        choices.append(whole[len(lead) :] if whole[: len(lead)] == lead else _ids(tokenizer, f" {choice}"))
    longest = len(context) + max(map(len, choices))
    if limit is not None and longest > limit:
        raise DataError(
            f"{where}: question and choice take {longest} tokens, the model's context holds {limit}",
            hint="shorten this question, or leave it out",
        )
    return context, choices


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
