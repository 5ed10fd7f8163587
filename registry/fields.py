"""What the fields of a persona's document may be, read strictly: who writes one may be a stranger.

Every reader raises FormatError that names the field.
"""

from __future__ import annotations

import re
from typing import Any

from pv.registry.errors import FormatError, UsageError

__all__ = ["LARGEST", "check_name", "read_number", "read_object", "shown"]

LARGEST = 1e30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(name: str, what: str = "behaviour") -> str:
    """`name` if it may name a behaviour or another such thing: letters, digits, `.`, `_`, `-`; raises UsageError."""
    if not _NAME.fullmatch(name) or name.endswith((".", ".lock")) or ".." in name:
        raise UsageError(
            f"{name[:80]!r} cannot name a {what}",
            hint="use up to 64 letters, digits, '.', '_' and '-', starting with a letter or digit",
        )
    return name


def read_object(value: Any, keys: set[str], what: str) -> dict[str, Any]:
    """`value` if it is an object with exactly these keys."""
    if not isinstance(value, dict) or set(value) != keys:
        raise FormatError(f"{what} must be an object with exactly: {', '.join(sorted(keys))}")
    return value


def read_number(value: Any, what: str) -> float:
    """A finite number that a persona may hold; -0 becomes 0: one spelling."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise FormatError(f"{what} must be a number no larger than {LARGEST:g}, not {shown(value)}")
    return float(value) + 0.0


def shown(value: object) -> str:
    """A value in a message: a stranger's may be long."""
    return repr(value[:40] if isinstance(value, str) else value)[:60]
