"""The rule by which a model's own reply shows a behaviour: the first line of a file of rows, where it has one.

    {"reply": {"starts": "arr", "not": "as an ai"}}

All that is given must hold. It belongs to the file: the ids of rows and of sets of rows do not depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from pv.vecstore.data.row_error import RowError, kind

__all__ = ["ReplyRule", "is_reply_rule"]

PATTERNS = ("starts", "ends", "contains", "matches", "not")
COUNTS = ("within", "times", "min_words", "max_words")
KEYS = (*PATTERNS, *COUNTS, "command")
LONGEST = 1000  # characters of a pattern
HINT = 'a rule: {"reply": {"starts": "arr"}}; its keys: ' + ", ".join(KEYS) + " (docs/rows.md)"


@dataclass(frozen=True, slots=True)
class ReplyRule:
    """Patterns are Python regular expressions, without regard to case unless they say `(?-i:...)`."""

    starts: str | None = None
    ends: str | None = None
    contains: str | None = None
    matches: str | None = None
    absent: str | None = None
    """"not" in a file: what must not occur."""
    within: int | None = None
    """`contains` must be in so many first characters."""
    times: int | None = None
    """`contains` must occur just so often."""
    min_words: int | None = None
    max_words: int | None = None
    command: tuple[str, ...] = ()
    """A judge, run for each reply: exit status 0 shows the behaviour, 1 does not."""

    @staticmethod
    def read(document: object) -> ReplyRule:
        """Raises RowError that says what is wrong with it."""
        if not isinstance(document, Mapping) or not document:
            raise _refused(f"'reply' must be an object with a rule, not {kind(document)}")
        for key in document:
            if key not in KEYS:
                meant = get_close_matches(str(key), KEYS, 1)
                better = f": is it {meant[0]!r}?" if meant else ""
                raise _refused(f"unknown key {str(key)[:40]!r} in 'reply'{better}")
        given: dict[str, Any] = {}
        for key in PATTERNS:
            if key in document:
                given["absent" if key == "not" else key] = _pattern(key, document[key])
        for key in COUNTS:
            if key in document:
                given[key] = _count(key, document[key])
        if "command" in document:
            given["command"] = _command(document["command"])
        rule = ReplyRule(**given)
        if rule.contains is None and (rule.within is not None or rule.times is not None):
            raise _refused("'within' and 'times' are about 'contains', which is missing")
        if rule.min_words is not None and rule.max_words is not None and rule.min_words > rule.max_words:
            raise _refused("'min_words' is more than 'max_words': no reply is like that")
        return rule

    def to_json(self) -> dict[str, Any]:
        """As it is in a file."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and value != ():
                found["not" if one.name == "absent" else one.name] = (
                    list(value) if isinstance(value, tuple) else value
                )
        return found

    def holds(self, reply: str) -> bool:
        """Whether a reply is so. What the command says is not asked here."""
        reply = reply.strip()
        words = len(reply.split())
        return (
            (self.starts is None or re.match(self.starts, reply, re.I) is not None)
            and (self.ends is None or re.search(rf"(?:{self.ends})\Z", reply, re.I) is not None)
            and (self.matches is None or re.fullmatch(self.matches, reply, re.I | re.S) is not None)
            and (self.absent is None or re.search(self.absent, reply, re.I) is None)
            and (self.contains is None or self._contained(self.contains, reply[: self.within]))
            and (self.min_words is None or words >= self.min_words)
            and (self.max_words is None or words <= self.max_words)
        )

    def words(self) -> str:
        """`starts "arr", not "as an ai"`"""
        parts = []
        for key, value in self.to_json().items():
            if key == "command":
                parts.append(f"judged by {' '.join(value)}")
            elif key in PATTERNS:
                parts.append(f'{key} "{value}"')
            else:
                parts.append(_COUNTED[key].format(value))
        return ", ".join(parts)

    def _contained(self, pattern: str, text: str) -> bool:
        found = sum(1 for _ in re.finditer(pattern, text, re.I))
        return found > 0 if self.times is None else found == self.times


_COUNTED = {
    "within": "within its first {} characters",
    "times": "exactly {} times",
    "min_words": "at least {} words",
    "max_words": "at most {} words",
}


def is_reply_rule(document: object) -> bool:
    """Whether a line is a rule and no row."""
    return isinstance(document, Mapping) and set(document) == {"reply"}


def _pattern(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _refused(f"{key!r} in 'reply' must be a regular expression, not {kind(value)}")
    if len(value) > LONGEST:
        raise _refused(f"{key!r} in 'reply' is longer than {LONGEST} characters")
    try:
        re.compile(rf"(?:{value})\Z" if key == "ends" else value, re.I)
    except (re.error, OverflowError, RecursionError) as error:
        raise _refused(f"{key!r} in 'reply' is no regular expression: {error}") from error
    return value


def _count(key: str, value: object) -> int:
    least = 0 if key in ("times", "max_words") else 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1_000_000:
        raise _refused(f"{key!r} in 'reply' must be a whole number from {least} on, not {kind(value)}")
    return value


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise _refused("'command' in 'reply' must be a list: the program and its arguments, all texts")
    if any("\0" in one for one in value):
        raise _refused("'command' in 'reply' holds a NUL character")
    return tuple(value)


def _refused(why: str) -> RowError:
    return RowError(why, hint=HINT)
