"""diff of two probes of one kind: what was asked differently, and each figure that both have, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from pv.registry.errors import NotFoundError, UnknownRevision, UsageError
from pv.vecstore.repo.probe.known import KnownProbe, known_probe

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["Figure", "ProbeDiff", "diff_probes", "two_probes"]

DEEPEST = 7
NAMES = (
    "name",
    "encoding",
    "k",
    "components",
    "method",
    "strength",
    "noise",
    "layer",
    "claim",
    "kind",
    "what",
    "arm",
)
COUNTED = ("k", "components", "layer", "strength", "noise")  # numbers, which say little without their name
_ID = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number or word of both. An interval is a mapping with mean, low and high; None is nothing said."""

    name: str
    a: Any
    b: Any

    @property
    def apart(self) -> bool:
        """Two intervals that do not overlap."""
        if not (_is_interval(self.a) and _is_interval(self.b)):
            return False
        return bool(self.a["high"] < self.b["low"] or self.b["high"] < self.a["low"])

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "a": self.a, "b": self.b, "apart": self.apart}


@dataclass(frozen=True, slots=True)
class ProbeDiff:
    """`asked` says what differs of the questions; `figures` are those of both whose values differ. Falsy if none do."""

    a: KnownProbe
    b: KnownProbe
    asked: tuple[Figure, ...]
    figures: tuple[Figure, ...]
    same: int

    def __bool__(self) -> bool:
        return bool(self.figures)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "probes",
            "probe": self.a.kind,
            "a": self.a.id,
            "b": self.b.id,
            "asked": [one.to_json() for one in self.asked],
            "figures": [one.to_json() for one in self.figures],
            "same": self.same,
        }


def two_probes(repo: Reading, a: str, b: str) -> tuple[KnownProbe, KnownProbe] | None:
    """The probes that two ids are of; None where neither is a probe's. Raises UsageError if only one is."""
    found = [_probe(repo, word) for word in (a, b)]
    if found[0] is None or found[1] is None:
        if found[0] is None and found[1] is None:
            return None
        is_one, is_none = (a, b) if found[0] else (b, a)
        raise UsageError(
            f"{is_one} is a probe and {is_none} is none",
            hint="`pv probe list` shows the probes, with their ids",
        )
    return found[0], found[1]


def diff_probes(a: KnownProbe, b: KnownProbe) -> ProbeDiff:
    """Raises UsageError for two kinds, NotFoundError for one that was stopped."""
    if a.kind != b.kind:
        raise UsageError(
            f"{a.id[:12]} is a probe of {a.kind}, and {b.id[:12]} of {b.kind}",
            hint="two probes of one kind can be compared",
        )
    for one in (a, b):
        if one.found is None:
            raise NotFoundError(
                f"the probe {one.id[:12]} was stopped before its end",
                hint=f"the same `pv probe {one.kind}` goes on with the rest",
            )
    old, new = _named(a.found), _named(b.found)
    both = [name for name in old if name in new]
    figures = tuple(Figure(name, old[name], new[name]) for name in both if old[name] != new[name])
    return ProbeDiff(a, b, tuple(_asked(a, b)), figures, len(both) - len(figures))


def _asked(a: KnownProbe, b: KnownProbe) -> Iterator[Figure]:
    for side in ("a", "b"):
        one, other = getattr(a, side), getattr(b, side)
        if one["build"] != other["build"]:
            yield Figure(f"build {side}", *(f"{x['name']} ({x['build'][:12]})" for x in (one, other)))
    if [one["id"] for one in a.rows] != [one["id"] for one in b.rows]:
        yield Figure("rows", *(", ".join(f"{r['n']} of {r['name']}" for r in one.rows) for one in (a, b)))
    for key in sorted({*a.settings, *b.settings}):
        if a.settings.get(key) != b.settings.get(key):
            yield Figure(key, a.settings.get(key), b.settings.get(key))


def _named(found: Any) -> dict[str, Any]:
    """The leaves by name; what two have in common is numbered, so that none takes another's place."""
    named: dict[str, Any] = {}
    for name, value in _leaves(found):
        free = next(one for at in count(1) if (one := name if at == 1 else f"{name} ({at})") not in named)
        named[free] = value
    return named


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What has a name: numbers, words and intervals. A list of plain numbers is a picture, and left out."""
    if value is None or isinstance(value, str | int | float | bool) or _is_interval(value):
        if path:
            yield " ".join(path), value
    elif len(path) >= DEEPEST:
        return
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not path and key in ("probe", "notes", "settings", "thresholds"):
                continue
            yield from _leaves(inner, (*path, str(key).replace("_", " ")))
    elif isinstance(value, list | tuple):
        for inner in value:
            name = next((key for key in NAMES if isinstance(inner, Mapping) and key in inner), None)
            if name is not None and isinstance(inner[name], str | int | float):
                rest = {key: one for key, one in inner.items() if key != name}
                yield from _leaves(
                    rest, (*path, f"{name} {inner[name]}" if name in COUNTED else str(inner[name]))
                )


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(value.get(key), int | float) for key in ("mean", "low", "high")
    )


def _probe(repo: Reading, word: str) -> KnownProbe | None:
    if not _ID.fullmatch(word) or _is_revision(repo, word):
        return None
    found = [
        probe
        for identity in repo.registry.record_ids()
        if identity.startswith(word) and (probe := known_probe(repo.registry, identity)) is not None
    ]
    if len(found) > 1:
        raise UnknownRevision(
            f"{word!r} is ambiguous: {len(found)} probes begin with it", hint="write more digits"
        )
    return found[0] if found else None


def _is_revision(repo: Reading, word: str) -> bool:
    try:
        repo.registry.resolve(word)
    except UnknownRevision:
        return False
    return True
