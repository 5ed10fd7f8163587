"""The probes that are noted in a registry, read back. A record may be anybody's: what is not in the form that is
written here, or under another id than its question has, is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pv.registry import ids
from pv.registry.errors import FormatError
from pv.registry.registry import Registry

__all__ = ["KINDS", "KnownProbe", "known_probe", "known_probes", "question_id"]

KINDS = ("heads", "neurons", "concept", "edit", "sparsity")


@dataclass(frozen=True, slots=True)
class KnownProbe:
    """One that is in the registry. `found` is its result as JSON; None of one that was stopped."""

    id: str
    kind: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    time: str | None
    found: Mapping[str, Any] | None

    def listed(self) -> dict[str, Any]:
        """What a list says of it: without what it found."""
        return {key: value for key, value in self.to_json().items() if key != "found"}

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "probe",
            "id": self.id,
            "probe": self.kind,
            "a": dict(self.a),
            "b": dict(self.b),
            "rows": [dict(one) for one in self.rows],
            "settings": dict(self.settings),
            "time": self.time,
            "found": None if self.found is None else dict(self.found),
        }


def known_probes(registry: Registry) -> Iterator[KnownProbe]:
    """All, by id."""
    for identity in registry.record_ids():
        if (found := known_probe(registry, identity)) is not None:
            yield found


def known_probe(registry: Registry, identity: str) -> KnownProbe | None:
    """None for an id that is no probe's, and for a record that cannot be read as one."""
    try:
        record = registry.record(identity)
    except FormatError:
        return None
    match record:
        case {
            "probe": {
                "kind": str(kind),
                "version": int(version),
                "a": {"name": str(), "commit": str(), "build": str()} as a,
                "b": {"name": str(), "commit": str(), "build": str()} as b,
                "rows": list(rows),
                "settings": dict(settings),
            }
        } if (
            kind in KINDS
            and all(_is_rows(one) for one in rows)
            and identity
            == question_id(kind, version, (a["build"], b["build"]), [one["id"] for one in rows], settings)
        ):
            time, found = record.get("time"), record.get("found")
            done = isinstance(time, str) and isinstance(found, dict)
            return KnownProbe(
                identity, kind, a, b, tuple(rows), settings, time if done else None, found if done else None
            )
    return None


def question_id(
    kind: str, version: int, builds: Sequence[str], rows: Sequence[str], settings: Mapping[str, Any]
) -> str:
    question = {
        "kind": kind,
        "version": version,
        "builds": list(builds),
        "rows": list(rows),
        "settings": dict(settings),
    }
    return ids.probe_id(question)


def _is_rows(value: object) -> bool:
    match value:
        case {"name": str(), "id": str(), "n": int()}:
            return True
    return False
