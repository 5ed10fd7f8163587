"""Scores as text: effect, damage and replies, each with its interval and beside the base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pv.cli.render import counted, interval, table
from pv.cli.say import plain
from pv.vecstore.evaluate.damage import OPENING

if TYPE_CHECKING:
    from pv.vecstore.evaluate.damage import Damage
    from pv.vecstore.evaluate.replies import ReplyScore
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.evaluate.tasks import TaskScore
    from pv.vecstore.repo.score import Score
    from pv.vecstore.repo.score_controls import Controlled

__all__ = [
    "NATS",
    "control_lines",
    "damage_of_all",
    "damage_rows",
    "damage_table",
    "nats",
    "reply_lines",
    "task_lines",
    "tasks_of_all",
    "won_rows",
]

NATS = "nats, 95 % interval"
PER_TOKEN = "nats a token, 95 % interval"


def nats(i: Interval, digits: int = 2) -> str:
    return interval(i.mean, i.low, i.high, digits)


def damage_rows(found: Damage) -> Iterator[list[str]]:
    """What was lost, where it is no behaviour's business; then where it is."""
    for label, one, of in (
        (f"plain answers after token {OPENING}", found.answers, "answers"),
        ("plain text", found.text, "texts"),
        (f"KL(base || persona), answers after token {OPENING}", found.kl_answers, "answers"),
        ("KL(base || persona), plain text", found.kl_text, "texts"),
        (f"not damage: the first {OPENING} tokens of the answers", found.opening, "answers"),
        ("not damage: the token that ends an answer", found.end, "answers"),
    ):
        if one is not None:
            yield [label, nats(one, 3), f"{one.n} {of}"]


def won_rows(found: Score) -> list[list[str]]:
    """How many rows have a margin above 0: the accuracy, of questions with two answers."""
    both = [("margin above 0, base", found.base_wins), ("margin above 0", found.wins)]
    return [[label, _share(one), str(one.n)] for label, one in both if one is not None]


def damage_table(score: Score, name: str = "") -> list[str]:
    if score.damage is None:
        return []
    header = [f"damage{f' of {name}' if name else ''}, on {score.neutral}", PER_TOKEN, "of"]
    said = "damage: log-likelihood lost against the base; below 0 it gained"
    return ["", table(header, damage_rows(score.damage)), said]


def damage_of_all(lines: Iterable[tuple[str, Sequence[Score]]]) -> list[str]:
    """Of several builds, each measured once on the neutral set."""
    found = [(name, scores[0]) for name, scores in lines if scores and scores[0].damage]
    if not found:
        return []
    rows = [[name, *_damages(score.damage)] for name, score in found if score.damage]
    header = ["", f"damage, plain answers after token {OPENING}", "damage, plain text"]
    return ["", f"damage on {found[0][1].neutral}, in {PER_TOKEN}", table(header, rows)]


def task_lines(score: Score, name: str = "persona") -> list[str]:
    """Right answers, the base beside."""
    if score.tasks is None:
        return []
    rows = [
        [
            plain(one.task),
            _share(one.base_accuracy),
            _share(one.accuracy),
            f"{100 * one.accuracy_change.mean:+.0f} [{100 * one.accuracy_change.low:+.0f}, "
            f"{100 * one.accuracy_change.high:+.0f}] points",
            nats(one.margin_change),
        ]
        for one in score.tasks.parts
    ]
    header = [
        f"right answers, {plain(score.tasks.questions)}",
        "base",
        name,
        "change",
        "change of the margin, nats",
    ]
    worse = [plain(one.task) for one in score.tasks.parts if one.worse]
    said = f"fewer right answers than the base, for certain: {', '.join(worse)}"
    return ["", table(header, rows), *([said] if worse else [])]


def tasks_of_all(lines: Iterable[tuple[str, Sequence[Score]]]) -> list[str]:
    """Of several builds, each asked once."""
    found = [(name, scores[0].tasks) for name, scores in lines if scores and scores[0].tasks]
    if not found:
        return []
    first = found[0][1]
    assert first is not None
    base = ["the base", *(_share(one.base_accuracy) for one in first.parts)]
    rows = [base, *([name, *map(_right, tasks.parts)] for name, tasks in found if tasks)]
    names = [plain(one.task) for one in first.parts]
    return ["", f"right answers to {plain(first.questions)}", table(["", *names], rows)]


def _right(one: TaskScore) -> str:
    return f"{_share(one.accuracy)}{': worse' if one.worse else ''}"


def control_lines(found: Controlled) -> list[str]:
    """The persona, and what else was put in its place."""
    named = [("the persona", found.score)]
    for one in found.controls:
        what = (
            "the base + noise of the same norm in each tensor"
            if one.kind == "random"
            else "the base, asked to"
        )
        named.append((what, one.score))
    rows = [
        [
            name,
            nats(score.effect),
            *(_damages(score.damage) if score.damage else ("-", "-")),
            _share(score.replies.shown) if score.replies and score.replies.shown else "-",
            _share(score.replies.loops) if score.replies else "-",
        ]
        for name, score in named
    ]
    header = [
        "controls", "effect, nats", f"damage after token {OPENING}", "damage, plain text", "shown in replies", "loops"
    ]  # fmt: skip
    asked = [
        f"the base, asked to: with the system prompt {one.prompt!r}" for one in found.controls if one.prompt
    ]
    return ["", table(header, rows), *map(plain, asked), *tasks_of_all((name, [one]) for name, one in named)]


def _damages(found: Damage) -> list[str]:
    return [nats(one, 3) if one else "-" for one in (found.answers, found.text)]


def reply_lines(found: ReplyScore | None, name: str = "persona") -> list[str]:
    """The base beside."""
    if found is None:
        return []
    rows = []
    if found.shown and found.base_shown and found.rule:
        rows.append(["show the behaviour", _share(found.base_shown), _share(found.shown)])
    rows.append(["fall into a loop", _share(found.base_loops), _share(found.loops)])
    rows.append([f"cut at {found.max_tokens} tokens", str(found.base_cut), str(found.cut)])
    if found.short:
        rows.append(["less than a quarter of the base's words", "-", str(found.short)])
    if found.length:
        rows.append(["length over the base's, in tokens", "1", _plain(found.length)])
    if found.content:
        label = f"lost on the base's own replies after token {OPENING}, nats a token"
        rows.append([label, "0", nats(found.content, 3)])
    header = [f"greedy replies to {counted(found.n, 'prompt')}", "base", name]
    lines = ["", table(header, rows)]
    if found.rule:
        lines.append(f"the behaviour shows in a reply: {found.rule.words()}")
    return lines


def _share(one: Interval) -> str:
    found = round(one.mean * one.n)
    return f"{found} of {one.n}, {100 * one.low:.0f} to {100 * one.high:.0f} %"


def _plain(one: Interval) -> str:
    return f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]"
