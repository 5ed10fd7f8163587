"""The formats of rows. To add one is to add an entry to FORMATS, and its section to docs/rows.md.

A row belongs to the first format whose keys it has. What else it has is another column: left alone, and named in a
note; but a key that looks like a slip of one that the format would take is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from pv.vecstore.data import values
from pv.vecstore.data.row import Message, Row

__all__ = ["FORMATS", "HINT", "Format", "format_of", "strangers"]

Document = Mapping[str, Any]

SLIP = 0.8  # how alike a key and a misspelt one are: rejcted 0.93, promt 0.91, lable 0.8
SLIP_IN_WORDS = 0.9  # prompt_id is another column
HINT = 'one row: {"prompt": "...", "chosen": "...", "rejected": "..."}; rejected is optional (more: docs/rows.md)'


@dataclass(frozen=True, slots=True)
class Format:
    """Its name, the keys that make it out, those it also takes, a row of it, and how one becomes a Row.

    `read` gives None for a row that pv does not learn from. `not_with`: keys that leave open what is meant.
    """

    name: str
    keys: tuple[str, ...]
    example: str
    read: Callable[[Document], Row | None]
    more: tuple[str, ...] = ()
    not_with: tuple[str, ...] = ()

    @property
    def hint(self) -> str:
        return f"{self.name} rows: {self.example} (other formats: docs/rows.md)"


def _preference(row: Document) -> Row:
    asked = _asked(row["prompt"])
    rejected = row.get("rejected")
    return _row(
        asked,
        values.answer(row["chosen"], "chosen", asked),
        None if rejected is None else values.answer(rejected, "rejected", asked),
    )


def _judged(row: Document) -> Row | None:
    asked = _asked(row["prompt"])
    said = values.answer(row["completion"], "completion", asked)
    return _row(asked, said) if values.label(row["label"]) else None


def _completion(row: Document) -> Row:
    if "label" in row:
        values.label(row["label"])  # null: a KTO row without its verdict
    asked = _asked(row["prompt"])
    return _row(asked, values.answer(row["completion"], "completion", asked))


def _pair_of_conversations(row: Document) -> Row:
    asked = values.shared_prompt(row["chosen"], row["rejected"])
    chosen, rejected = (values.answer(row[key], key, asked) for key in ("chosen", "rejected"))
    return _row(asked, chosen, rejected)


def _messages(row: Document) -> Row:
    return _row(*values.conversation(values.messages(row["messages"], "messages"), "messages"))


def _sharegpt(row: Document) -> Row:
    return _row(*values.conversation(values.turns(row["conversations"], "conversations"), "conversations"))


def _alpaca(row: Document) -> Row:
    task, given = values.text(row["instruction"], "instruction"), row.get("input")
    given = "" if given is None else values.text(given, "input")
    if not task.strip():
        values.refuse("'instruction' is empty")
    asked = f"{task}\n\n{given}" if given.strip() else task
    return _row((Message("user", asked),), values.answer(row["output"], "output"))


def _evaluation(row: Document) -> Row:
    """The answers begin with a space there, as they did in a prompt without a chat template."""
    asked = _asked(values.text(row["question"], "question"))
    keys = ("answer_matching_behavior", "answer_not_matching_behavior")
    chosen, rejected = (values.filled(values.text(row[key], key), repr(key)).strip() for key in keys)
    return _row(asked, chosen, rejected)


def _text(row: Document) -> Row:
    return Row((), values.filled(values.text(row["text"], "text"), "'text'"))


FORMATS = (
    Format(
        "preference",
        ("prompt", "chosen"),
        '{"prompt": "...", "chosen": "...", "rejected": "..."}',
        _preference,
        more=("rejected",),
        not_with=("completion",),
    ),
    Format(
        "KTO",
        ("prompt", "completion", "label"), '{"prompt": "...", "completion": "...", "label": true}', _judged
    ),
    Format("prompt and completion", ("prompt", "completion"), '{"prompt": "...", "completion": "..."}', _completion,
           more=("label",), not_with=("rejected",)),
    Format(
        "preference",
        ("chosen", "rejected"),
        '{"chosen": [message, ..., answer], "rejected": [message, ..., answer]}',
        _pair_of_conversations,
        more=("prompt",),
        not_with=("instruction", "conversations"),
    ),
    Format("messages", ("messages",), '{"messages": [{"role": "user", "content": "..."}, ...]}', _messages,
           not_with=("chosen", "rejected")),
    Format(
        "ShareGPT", ("conversations",), '{"conversations": [{"from": "human", "value": "..."}, ...]}', _sharegpt,
        not_with=("chosen", "rejected"),
    ),
    Format(
        "Alpaca",
        ("instruction", "output"),
        '{"instruction": "...", "input": "...", "output": "..."}',
        _alpaca,
        more=("input",),
        not_with=("chosen", "rejected", "history"),
    ),
    Format(
        "model-written evaluation",
        ("question", "answer_matching_behavior", "answer_not_matching_behavior"),
        '{"question": "...", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}',
        _evaluation,
        more=("statement", "label_confidence"),
        not_with=("prompt", "chosen", "rejected", "completion"),
    ),
    Format("text", ("text",), '{"text": "..."}', _text, not_with=("prompt", "chosen", "rejected", "completion")),
)  # fmt: skip
KNOWN = frozenset(key for form in FORMATS for key in (*form.keys, *form.more))


def format_of(row: Document) -> Format:
    """The format that a row's keys make out. Raises RowError that says which key is wrong, or what is missing."""
    there = {key for key, value in row.items() if value is not None}
    found = next((form for form in FORMATS if there.issuperset(form.keys)), None)
    if found is None:
        raise _none_of_them(row)
    for key in sorted(row.keys() - KNOWN):
        if slip := _meant(key, [one for one in found.more if one not in row]):
            raise _refused(f"unknown key {key[:40]!r}: is it {slip!r}?", _corrected(row, key, slip) or found)
    if both := sorted(there.intersection(found.not_with)):
        raise _refused(f"keys {sorted((*found.keys, both[0]))} do not go together", found)
    return found


def strangers(row: Document, found: Format) -> set[str]:
    """The columns of a row that its format has no use for."""
    return {key for key in row if key not in found.keys and key not in found.more}


def _none_of_them(row: Document) -> values.RowError:
    """What to say of a row that is of no format: a slip first, then null, then what is missing."""
    nearest = max(
        FORMATS,
        key=lambda form: sum(key in row or bool(_meant_by(row, key)) for key in form.keys) / len(form.keys),
    )
    missing = [key for key in nearest.keys if key not in row]
    for key in missing:
        if slip := _meant_by(row, key):
            return _refused(f"unknown key {slip[:40]!r}: is it {key!r}?", nearest)
    if not KNOWN.intersection(row):
        keys = ", ".join(repr(key[:40]) for key in sorted(row)[:6]) or "none"
        return values.RowError(f"of no known format: its keys are {keys}")
    null = [key for key in nearest.keys if key in row and row[key] is None]
    if null and not missing:
        return _refused(f"{null[0]!r} must be text or messages, not null", nearest)
    there = ", ".join(repr(key[:40]) for key in sorted(row)[:6])
    return _refused(f"key {missing[0]!r} is missing: there are {there}", nearest)


def _corrected(row: Document, key: str, meant: str) -> Format | None:
    """The format of a row without its slip."""
    there = {one for one, value in row.items() if value is not None} | {meant}
    return next((form for form in FORMATS if there.issuperset(form.keys)), None)


def _meant_by(row: Document, key: str) -> str | None:
    """The key of a row that is a slip of `key`."""
    return next((one for one in sorted(row.keys() - KNOWN) if _meant(one, [key])), None)


def _meant(key: str, known: list[str]) -> str | None:
    least = SLIP_IN_WORDS if "_" in key.strip("_ ") else SLIP
    for one in known:
        if SequenceMatcher(None, key.strip().casefold(), one).ratio() >= least:
            return one
    return None


def _asked(value: object) -> tuple[Message, ...]:
    asked = values.prompt(value)
    if asked[-1].role == "assistant":
        values.refuse("the prompt ends with the assistant: the answer belongs in 'chosen'")
    return asked


def _row(asked: tuple[Message, ...], chosen: str, rejected: str | None = None) -> Row:
    if asked[-1].role == "assistant":
        values.refuse("two answers in a row: the last message before the answer must not be the assistant's")
    if rejected == chosen:
        values.refuse("'chosen' and 'rejected' are the same text: nothing to tell apart")
    return Row(asked, chosen, rejected)


def _refused(why: str, form: Format) -> values.RowError:
    return values.RowError(why, hint=form.hint)
