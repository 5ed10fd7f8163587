"""What was noted beside an effect, in words: the damage elsewhere, and what the replies showed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pv.vecstore.publish.figures import ends, interval, last_part

__all__ = ["NotedDamage", "NotedReplies", "NotedTasks"]

Ends = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class NotedDamage:
    """Nats a token lost against the base: mean, low and high; None where there were no such rows."""

    answers: Ends | None
    text: Ends | None
    neutral: str

    @staticmethod
    def read(score: Mapping[str, Any]) -> NotedDamage | None:
        """None for what is noted in another form: anybody may have written it."""
        found, name = score.get("damage"), ""
        if not isinstance(found, Mapping):
            return None
        if isinstance(said := found.get("neutral"), str):
            name = said
        answers, text = ends(found, "answers"), ends(found, "text")
        return None if answers is None and text is None else NotedDamage(answers, text, name)

    def to_json(self) -> dict[str, Any]:
        def estimate(one: Ends | None) -> dict[str, float] | None:
            return None if one is None else dict(zip(("mean", "low", "high"), one, strict=True))

        return {"neutral": self.neutral, "answers": estimate(self.answers), "text": estimate(self.text)}

    def figures(self, quote: Callable[[str], str] = str) -> str:
        """`damage +0.026 [...] nats a token on plain answers after token 16, +0.018 [...] on plain text (FILE)`"""
        parts = []
        if self.answers:
            parts.append(f"{interval(*self.answers, 3)} nats a token on plain answers after token 16")
        if self.text:
            parts.append(f"{interval(*self.text, 3)}{'' if parts else ' nats a token'} on plain text")
        return f"damage {', '.join(parts)} ({quote(last_part(self.neutral))})"

    def brief(self) -> str:
        """`damage +0.026 answers, +0.018 text`"""
        parts = [(self.answers, "answers"), (self.text, "text")]
        return "damage " + ", ".join(f"{one[0]:+.3f} {of}" for one, of in parts if one)


@dataclass(frozen=True, slots=True)
class NotedReplies:
    """Of `n` greedy replies: how many show the behaviour, and how many fall into a loop; of the persona and the base.

    `shown` is None where nothing said how the behaviour shows.
    """

    n: int
    shown: tuple[int, int] | None
    loops: tuple[int, int]

    @staticmethod
    def read(score: Mapping[str, Any]) -> NotedReplies | None:
        found = score.get("replies")
        if not isinstance(found, Mapping):
            return None
        n = found.get("n")
        if not isinstance(n, int) or isinstance(n, bool) or not 0 < n < 1 << 32:
            return None

        def both(key: str) -> tuple[int, int] | None:
            shares = [ends(found, name) for name in (key, f"base_{key}")]
            counts = [round(share[0] * n) for share in shares if share and 0 <= share[0] <= 1]
            return (counts[0], counts[1]) if len(counts) == 2 else None

        loops = both("loops")
        return None if loops is None else NotedReplies(n, both("shown"), loops)

    def to_json(self) -> dict[str, Any]:
        def counts(one: tuple[int, int] | None) -> dict[str, int] | None:
            return None if one is None else {"persona": one[0], "base": one[1]}

        return {"n": self.n, "shown": counts(self.shown), "loops": counts(self.loops)}

    def words(self) -> str:
        """`of 24 greedy replies, 23 show it (base: 0), 0 fall into a loop (base: 1)`"""
        parts = []
        if self.shown:
            parts.append(f"{self.shown[0]} show it (base: {self.shown[1]})")
        parts.append(f"{self.loops[0]} fall into a loop (base: {self.loops[1]})")
        return f"of {self.n} greedy repl{'y' if self.n == 1 else 'ies'}, {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class NotedTask:
    """Of `n` questions: how many are answered right, of the persona and of the base; `change` is that of the share."""

    task: str
    n: int
    right: tuple[int, int]
    change: Ends

    def to_json(self) -> dict[str, Any]:
        change = dict(zip(("mean", "low", "high"), self.change, strict=True))
        right = {"persona": self.right[0], "base": self.right[1]}
        return {"task": self.task, "n": self.n, "right": right, "accuracy_change": change}


@dataclass(frozen=True, slots=True)
class NotedTasks:
    questions: str
    parts: tuple[NotedTask, ...]

    @staticmethod
    def read(score: Mapping[str, Any]) -> NotedTasks | None:
        """None for what is noted in another form."""
        match score.get("tasks"):
            case {"questions": str(questions), "parts": [_, *_] as parts}:
                found = [_task(one) for one in parts]
                if all(found):
                    return NotedTasks(questions, tuple(one for one in found if one))
        return None

    def to_json(self) -> dict[str, Any]:
        return {"questions": self.questions, "parts": [one.to_json() for one in self.parts]}

    def words(self, quote: Callable[[str], str] = str) -> str:
        """`right answers to knowledge 47 of 60 (base: 48), to arithmetic 39 of 60 (base: 38) (FILE)`"""
        parts = [f"to {quote(p.task)} {p.right[0]} of {p.n} (base: {p.right[1]})" for p in self.parts]
        return f"right answers {', '.join(parts)} ({quote(last_part(self.questions))})"

    def brief(self, quote: Callable[[str], str] = str) -> str:
        """`right answers -1 of 60 knowledge, +1 of 60 arithmetic`"""
        parts = [f"{p.right[0] - p.right[1]:+d} of {p.n} {quote(p.task)}" for p in self.parts]
        return f"right answers {', '.join(parts)}"


def _task(document: object) -> NotedTask | None:
    if not isinstance(document, Mapping):
        return None
    task, n, change = document.get("task"), document.get("n"), ends(document, "accuracy_change")
    shares = [ends(document, key) for key in ("accuracy", "base_accuracy")]
    if not isinstance(task, str) or not isinstance(n, int) or isinstance(n, bool) or not 0 < n < 1 << 32:
        return None
    right = [round(one[0] * n) for one in shares if one and 0 <= one[0] <= 1]
    return NotedTask(task, n, (right[0], right[1]), change) if change and len(right) == 2 else None
