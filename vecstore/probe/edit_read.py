"""What a record notes, read strictly: each raises KeyError, TypeError or ValueError for what is of another form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from pv.vecstore.evaluate.statistics import Interval

__all__ = ["interval", "items", "mapping", "maybe", "number", "rows", "text", "verdict", "whole"]

T = TypeVar("T")


def number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number, not {type(value).__name__}")
    if isinstance(value, int) and value.bit_length() > 1000:
        raise ValueError("a number that no float holds")
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return float(value)


def whole(value: object) -> int:
    """0 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a whole number, not {type(value).__name__}")
    if not 0 <= value < 1 << 63:
        raise ValueError("a whole number from 0")
    return value


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text, not {type(value).__name__}")
    return value


def items(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list, not {type(value).__name__}")
    return value


def mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object, not {type(value).__name__}")
    return value


def maybe(read: Callable[[Any], T], value: object) -> T | None:
    """None stays None."""
    return None if value is None else read(value)


def interval(value: object) -> Interval:
    found = mapping(value)
    mean, low, high = (number(found[key]) for key in ("mean", "low", "high"))
    return Interval(mean, low, high, whole(found["n"]), number(found["level"]))


def verdict(value: object) -> Literal["held", "did not hold", "inconclusive"]:
    if value == "held" or value == "did not hold" or value == "inconclusive":
        return value
    raise ValueError("no verdict")


def rows(value: object) -> dict[str, dict[str, Any]]:
    """Which rows there were: name, id and n of each, and of how many held-out rows."""
    found = {}
    for key, one in mapping(value).items():
        given = mapping(one)
        found[text(key)] = {
            "name": text(given["name"]),
            "id": text(given["id"]),
            "n": whole(given["n"]),
            **({"of": whole(given["of"])} if "of" in given else {}),
        }
    if missing := {"rows", "training", "neighbours"} - found.keys():
        raise KeyError(*missing)
    return found
