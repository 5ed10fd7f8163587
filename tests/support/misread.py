"""Documents of another form than a reader expects: one value of each changed for one of another type."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator
from typing import Any

__all__ = ["misread"]

WRONG: dict[type, tuple[Any, ...]] = {
    str: (3, None, ["held"], {}),
    int: ("1", True, [], None, 10**400),
    float: ("1", True, {}, float("nan"), float("inf"), 10**400),
    list: ("ab", {}, None, 3),
    dict: ([], "ab", None, 3),
    type(None): ("x", [1], True),
}

OPTIONAL = {
    "alone", "alone_fewer", "difference", "fewer", "heads", "high", "k", "kept", "lost", "low", "opening",
    "paraphrases", "random", "ratio", "transfer",
}  # fmt: skip
"""What a probe may leave out."""


def misread(document: dict[str, Any], derived: Container[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it is changed, and the document with it. What is `derived` from the rest is not read."""
    for path in _paths(document, ()):
        if path[-1] in derived:
            continue
        at = _at(document, path)
        for wrong in WRONG[type(at)]:
            if wrong is not None or path[-1] not in OPTIONAL:
                changed = copy.deepcopy(document)
                _at(changed, path[:-1])[path[-1]] = wrong
                yield f"{path}: {wrong!r:.20}", changed


def _paths(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[key], (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value
