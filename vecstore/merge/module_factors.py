"""How much of a behaviour a tensor gets: its weight, times the factors of the module patterns that match.

A pattern is matched as a file name is in a shell, case and all: `*.mlp.*`, `model.layers.[0-7].*`.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

from pv.registry.persona import Behaviour

__all__ = ["factor", "matches"]


def matches(pattern: str, tensor: str) -> bool:
    return fnmatchcase(tensor, pattern)


def factor(behaviour: Behaviour, tensor: str) -> float:
    """The behaviour's weight on a tensor."""
    modules = sorted((behaviour.modules or {}).items())
    return behaviour.weight * math.prod(f for pattern, f in modules if matches(pattern, tensor))
