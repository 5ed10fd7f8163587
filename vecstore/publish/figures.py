"""Numbers and names out of documents that anybody may have written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["ends", "interval", "last_part", "part"]


def interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    return f"{mean:+z.{digits}f} [{low:+z.{digits}f}, {high:+z.{digits}f}]"  # z: -0 is 0


def last_part(path: object) -> str:
    """`c.jsonl` of `/home/a/c.jsonl`: what is published must not tell where its author keeps things."""
    return re.split(r"[\\/]+", str(path).rstrip("\\/"))[-1]


def part(document: Mapping[str, Any], key: str, name: str) -> float | None:
    """document[key][name] (or document[key], for a mean given as a number) if that is a finite number."""
    value = document.get(key)
    if isinstance(value, Mapping):
        value = value.get(name)
    elif name != "mean":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def ends(document: Mapping[str, Any], key: str) -> tuple[float, float, float] | None:
    """Mean, low and high of document[key], if all are finite numbers."""
    mean, low, high = (part(document, key, end) for end in ("mean", "low", "high"))
    return None if mean is None or low is None or high is None else (mean, low, high)
