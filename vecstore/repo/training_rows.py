"""Rows that a persona is measured on, compared with those that its behaviours were trained on."""

from __future__ import annotations

from collections.abc import Mapping

from pv.registry.errors import PvError
from pv.registry.persona import Behaviour
from pv.registry.provenance import Trained
from pv.registry.provenance_ways import origins
from pv.registry.registry import Registry
from pv.vecstore.data.kept_rows import load_rows
from pv.vecstore.data.overlap import Overlap, overlap
from pv.vecstore.data.rows import Rows

__all__ = ["compared"]


def compared(registry: Registry, commit: str, behaviours: Mapping[str, Behaviour], rows: Rows) -> Overlap:
    """Which of the rows were trained on, as far as the registry keeps training rows; a weight of 0 is left out."""
    kept: dict[str, Rows | None] = {}
    unknown: set[str] = set()
    for name, behaviour in behaviours.items():
        for vector in {term.vector for term in behaviour.terms} if behaviour.weight else ():
            for data_id in _data_ids(registry, commit, vector):
                if data_id not in kept:
                    kept[data_id] = rows if data_id == rows.id else _kept(registry, data_id)
                if kept[data_id] is None:
                    unknown.add(name)
    return overlap(rows, [found for found in kept.values() if found]).without_knowing(unknown)


def _data_ids(registry: Registry, commit: str, vector: str) -> set[str]:
    """The ids of the rows that a vector was trained on; one that is empty if that is not known."""
    try:
        known = registry.provenance(commit, vector)
    except PvError:
        return {""}
    return {run.data.id for run in origins(known) if isinstance(run, Trained)} or {""}


def _kept(registry: Registry, data_id: str) -> Rows | None:
    """The rows, if the registry has them still, and whole. Not to know is no reason not to measure."""
    if not data_id:
        return None
    try:
        return load_rows(data_id, registry.packs)
    except (PvError, OSError):
        return None
