"""Questions with choices: what a persona should answer as well as its base does.

    {"question": "What is frozen water called?", "choices": ["Sand", "Ice", "Oil"], "answer": 1, "task": "knowledge"}

`answer` counts from 0, as MMLU's rows do. `task` groups them, and is the file's name where it is left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

from pv.registry import canonical
from pv.registry.errors import DataError
from pv.vecstore.data import values
from pv.vecstore.data.containers import unpack
from pv.vecstore.data.row import Message
from pv.vecstore.data.rows import ignored, read_file
from pv.vecstore.data.values import RowError, kind, refuse

__all__ = ["Question", "Questions", "parse_questions", "read_questions"]

KEYS = ("question", "choices", "answer")
HINT = 'one row: {"question": "...", "choices": ["...", "..."], "answer": 0, "task": "..."}; answer counts from 0'
MOST = 40  # characters of a task's name
CHOICES = 26


@dataclass(frozen=True, slots=True)
class Question:
    """`answer` is the place of the right one of `choices`."""

    prompt: tuple[Message, ...]
    choices: tuple[str, ...]
    answer: int
    task: str

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": [message.to_json() for message in self.prompt],
            "choices": list(self.choices),
            "answer": self.answer,
            "task": self.task,
        }


@dataclass(frozen=True, slots=True)
class Questions(Sequence[Question]):
    """In file order. `source` and `lines` say where each came from; the id does not depend on them."""

    questions: tuple[Question, ...]
    source: str = "questions"
    lines: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """SHA-256 over "pv:questions:1\\n" and the canonical JSON of the questions."""
        document = canonical.dumps([one.to_json() for one in self.questions])
        return hashlib.sha256(b"pv:questions:1\n" + document).hexdigest()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, as they come first."""
        return tuple(dict.fromkeys(one.task for one in self.questions))

    def where(self, index: int) -> str:
        return f"{self.source}:{self.lines[index] if index < len(self.lines) else index + 1}"

    def __len__(self) -> int:
        return len(self.questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, index: int | slice) -> Question | tuple[Question, ...]:
        return self.questions[index]


def read_questions(path: str | PathLike[str]) -> Questions:
    """Read a file of questions, in any container that rows may come in. Raises DataError naming file and line."""
    return parse_questions(read_file(path), source=str(Path(path).expanduser()))


def parse_questions(data: bytes, *, source: str = "questions") -> Questions:
    """From the bytes of a file. Raises DataError naming source and line."""
    counted, found = unpack(data, source)
    questions: list[Question] = []
    numbers: list[int] = []
    unused: set[str] = set()
    for number, document in found:
        try:
            questions.append(_question(document, Path(source).stem))
        except RowError as error:
            where = f"{source}:{number}" if counted == "line" else f"{source}: row {number}"
            raise DataError(f"{where}: {error}", hint=error.hint or HINT) from error
        numbers.append(number)
        unused |= document.keys() - {*KEYS, "task"}
    if not questions:
        raise DataError(f"{source}:1: no questions: the file is empty", hint=HINT)
    alone = [task for task, count in Counter(one.task for one in questions).items() if count < 2]
    if alone:
        raise DataError(
            f"{source}: task {alone[0]!r} has a single question, and an interval needs at least 2",
            hint="60 of a task are a good start",
        )
    return Questions(tuple(questions), source, tuple(numbers), ignored(unused, source))


def _question(document: object, name: str) -> Question:
    if not isinstance(document, dict):
        raise RowError(f"a question is a JSON object, not {kind(document)}")
    for key in KEYS:
        if key not in document:
            there = ", ".join(repr(one[:MOST]) for one in sorted(document)[:6]) or "none"
            refuse(f"key {key!r} is missing: there are {there}")
    asked = values.filled(values.text(document["question"], "question"), "'question'")
    choices, answer, task = document["choices"], document["answer"], document.get("task")
    if not isinstance(choices, list) or not 2 <= len(choices) <= CHOICES:
        what = f"a list of {len(choices)}" if isinstance(choices, list) else kind(choices)
        refuse(f"'choices' must be a list of 2 to {CHOICES} texts, not {what}")
    texts = tuple(values.filled(values.text(one, "choices"), "a choice").strip() for one in choices)
    if len(set(texts)) < len(texts):
        refuse("two of the choices are the same text: nothing to tell apart")
    if type(answer) is not int or not 0 <= answer < len(texts):
        said = answer if type(answer) is int else kind(answer)
        refuse(f"'answer' must be the place of the right choice, 0 to {len(texts) - 1}, not {said}")
    if task is None:
        task = name
    task = values.filled(values.text(task, "task"), "'task'").strip()
    if len(task) > MOST or not task.isprintable():
        refuse(f"'task' must be a name of at most {MOST} characters")
    return Question((Message("user", asked),), texts, answer, task)
