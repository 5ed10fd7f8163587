"""A subset of TypeScript's types, read from text, and whether a JSON value has such a type.

    types = parse("type Point = { x: number, y?: number | null }")
    check({"x": "1", "z": 2}, types["Point"], types)     # ['$.x: "1" is no number', '$.z: unknown key']

Read are `type NAME = ...`, objects, `?`, index signatures, `T[]`, `[T, T]`, `A | B`, names, literals, string, number,
boolean, unknown, comments. Strict: an unknown key is a problem, and so is a number that is not finite.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Type", "check", "parse"]

_TOKEN = re.compile(r'\s+|//[^\n]*|("[^"\\\n]*"|-?\d+|[A-Za-z_]\w*|[][{}:?|,=])')
_KNOWN = {"string", "number", "boolean", "unknown", "null", "true", "false"}


@dataclass(frozen=True)
class Type:
    """`kind` is `|`, `[]`, `[`, `{`, or a word: a name, a literal, or `/.../` for text that a pattern describes."""

    kind: str
    parts: tuple[Type, ...] = ()
    keys: tuple[str, ...] = ()  # of an object: `key`, `key?`, or `*` for any other

    def words(self) -> set[str]:
        return {self.kind}.union(*(part.words() for part in self.parts))


def check(value: Any, type: Type, types: dict[str, Type], where: str = "$") -> list[str]:
    """What keeps a value, as json.loads gives it, from having the type: of a union, from having the nearest."""
    match type.kind, value:
        case "|", _:
            return min((check(value, part, types, where) for part in type.parts), key=len)
        case "[" | "[]", list():
            parts = type.parts * len(value) if type.kind == "[]" else type.parts
            if len(parts) != len(value):
                return [f"{where}: {len(value)} items, not {len(parts)}"]
            pairs = enumerate(zip(value, parts, strict=True))
            return [line for i, (one, part) in pairs for line in check(one, part, types, f"{where}[{i}]")]
        case "{", dict():
            known = dict(zip((key.rstrip("?") for key in type.keys), type.parts, strict=True))
            lines = [
                f"{where}.{key}: missing" for key in type.keys if key[-1] not in "?*" and key not in value
            ]
            for key, one in value.items():
                part = known.get(key, known.get("*"))
                lines += (
                    check(one, part, types, f"{where}.{key}") if part else [f"{where}.{key}: unknown key"]
                )
            return lines
        case name, _ if name in types:
            return check(value, types[name], types, where)
    return [] if _is(value, type.kind) else [f"{where}: {json.dumps(value)[:80]} is no {type.kind}"]


def _is(value: Any, word: str) -> bool:
    if word == "number":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if word[0] == "/":
        return isinstance(value, str) and re.fullmatch(word[1:-1], value) is not None
    if word in ("string", "boolean", "unknown"):
        return isinstance(value, {"string": str, "boolean": bool, "unknown": object}[word])
    return not isinstance(value, list | dict) and json.dumps(value) == word


def parse(text: str) -> dict[str, Type]:
    """The declared types. Raises ValueError for what is not in the subset, or is declared twice or never."""
    if rest := _TOKEN.sub("", text):
        raise ValueError(f"cannot be read: {rest[:20]!r}")
    tokens = [token for token in _TOKEN.findall(text) if token]
    types: dict[str, Type] = {}
    while tokens:
        _take(tokens, "type")
        name = _take(tokens)
        if name in types:
            raise ValueError(f"type {name} is declared twice")
        _take(tokens, "=")
        types[name] = _union(tokens)
    words = set[str]().union(*(type.words() for type in types.values())) - types.keys() - _KNOWN
    if missing := sorted(word for word in words if word.isidentifier()):
        raise ValueError(f"not declared: {', '.join(missing)}")
    return types


def _take(tokens: list[str], *wanted: str) -> str:
    """The next token, which must be one of those wanted; if none are, a word."""
    token = tokens.pop(0) if tokens else ""
    if token not in wanted and (wanted or token[:1] in "[]{}:?|,="):
        raise ValueError(f"{' or '.join(wanted) or 'a word'} expected, not {token or 'the end'}")
    return token


def _skip(tokens: list[str], *wanted: str) -> bool:
    """Take these tokens if they come next."""
    found = tokens[: len(wanted)] == list(wanted)
    del tokens[: len(wanted) if found else 0]
    return found


def _union(tokens: list[str]) -> Type:
    options = [_one(tokens)]
    while _skip(tokens, "|"):
        options.append(_one(tokens))
    return options[0] if len(options) == 1 else Type("|", tuple(options))


def _one(tokens: list[str]) -> Type:
    if _skip(tokens, "{"):
        found = _object(tokens)
    elif _skip(tokens, "["):
        items = [_union(tokens)]
        while _take(tokens, ",", "]") == ",":
            items.append(_union(tokens))
        found = Type("[", tuple(items))
    else:
        found = Type(_take(tokens))
    while _skip(tokens, "[", "]"):
        found = Type("[]", (found,))
    return found


def _object(tokens: list[str]) -> Type:
    members: dict[str, Type] = {}
    while not _skip(tokens, "}"):
        if _skip(tokens, "["):
            _take(tokens)
            for token in (":", "string", "]"):
                _take(tokens, token)
            key = "*"
        else:
            key = _take(tokens) + ("?" if _skip(tokens, "?") else "")
        _take(tokens, ":")
        if key in members:
            raise ValueError(f"key {key} is there twice")
        members[key] = _union(tokens)
        _skip(tokens, ",")
    return Type("{", tuple(members.values()), tuple(members))
