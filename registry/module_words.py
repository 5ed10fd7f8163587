"""Module factors in words. Factors of layers that follow each other in a straight line are one item:
`model.layers.{0..29}.* × 0.5 to 1`, as a shell writes the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from pv.registry.combine import json_number

__all__ = ["module_words"]

MOST = 4  # in a line; the JSON of every command has all
_CLOSE = 1e-9  # what the rounding of a line's points may come to
_LAYER = re.compile(r"((?:[^.0-9*?\[][^.*?\[]*\.)+)([0-9]{1,6})(\..*)", re.DOTALL)


def module_words(
    modules: Mapping[str, float] | None, quote: Callable[[str], str] = str, *, most: int | None = MOST
) -> str:
    """`*.mlp.* × 0.5`; `model.layers.{0..29}.* × 0.5 to 1`; of many the first, and `… 28 module factors`."""
    modules = modules or {}
    parts = [f"{quote(pattern)} × {factor}" for pattern, factor in _items(modules)]
    if most is not None and len(parts) > most:
        parts = [*parts[:most], f"… {len(modules)} module factors"]
    return ", ".join(parts) or "none"


def _items(modules: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """(pattern, factor) in words, in order of the patterns; a stack's layers stand where its first does."""
    stacks: dict[tuple[str, str], dict[int, float]] = {}
    items: list[tuple[str, str, str]] = []
    for pattern, factor in sorted(modules.items()):
        found = _LAYER.fullmatch(pattern)
        if found is None or str(int(found[2])) != found[2]:
            items.append((pattern, pattern, _number(factor)))
        else:
            stacks.setdefault((found[1], found[3]), {})[int(found[2])] = factor
    for (prefix, rest), layers in stacks.items():
        runs = list(_runs(layers))
        for first, last in runs:
            low, high = _number(layers[first]), _number(layers[last])
            if first == last:
                items.append((f"{prefix}{first:06}", f"{prefix}{first}{rest}", low))
            else:
                name = f"{prefix}{{{first}..{last}}}{rest}"
                items.append((f"{prefix}{first:06}", name, low if low == high else f"{low} to {high}"))
    yield from ((name, factor) for _, name, factor in sorted(items))


def _runs(layers: Mapping[int, float]) -> Iterator[tuple[int, int]]:
    """(first, last) of layers that follow each other and lie on one line: three at least, or two alike."""
    numbers = sorted(layers)
    at = 0
    while at < len(numbers):
        end = at + 1
        if end < len(numbers) and numbers[end] == numbers[at] + 1:
            step = layers[numbers[end]] - layers[numbers[at]]
            while end + 1 < len(numbers) and numbers[end + 1] == numbers[end] + 1:
                expected = layers[numbers[at]] + step * (end + 1 - at)
                near = _CLOSE * max(1.0, abs(expected))
                if abs(layers[numbers[end + 1]] - expected) > near:
                    break
                end += 1
            if end - at == 1 and step:
                end = at
        else:
            end = at
        yield numbers[at], numbers[end]
        at = end + 1


def _number(value: float) -> str:
    return str(json_number(value))  # every digit: what differs never looks alike
