"""forecast: will these behaviours compose? Answered from sketches: no rows, no packs, no model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry import ids
from pv.registry.errors import FormatError, MissingBase, NotFoundError, RemoteError, StorageError, UsageError
from pv.registry.provenance import Provenance, Trained
from pv.registry.provenance_ways import as_behaviour, trained
from pv.vecstore.forecast.calibration import Calibration, read_calibration, standard
from pv.vecstore.forecast.features import Sketches
from pv.vecstore.forecast.forecast import Forecast, Subject, forecast
from pv.vecstore.forecast.of_vector import sketch_of
from pv.vecstore.forecast.sketch import Sketch
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.revision import Revision

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["forecast_of"]

DENSE = ("int8", "float")  # encodings in which a vector is what was trained, or all but


def forecast_of(
    repo: Reading,
    names: Sequence[str],
    *,
    calibration: str | PathLike[str] | None = None,
    progress: Report | None = None,
) -> Forecast:
    """Every two of the behaviours, NAME or REV:NAME, added up at weight 1. Raises UsageError, UnknownBehaviour."""
    if len(names) < 2:
        raise UsageError(
            "a forecast is of two behaviours or more", hint="for example: pv forecast pirate style:formal"
        )
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UsageError(f"{twice!r} is named twice", hint="name each behaviour once")
    table = standard() if calibration is None else _read(Path(calibration).expanduser())
    return forecast([_subject(repo, name, progress) for name in names], table)


def _read(path: Path) -> Calibration:
    try:
        return read_calibration(path)
    except OSError as error:
        raise NotFoundError(
            f"cannot read the calibration {path}: {error.strerror}",
            hint="give a file that `python -m benchmarks forecast` has written",
        ) from error


def _subject(repo: Reading, said: str, progress: Report | None) -> Subject:
    revision, _, name = said.rpartition(":")
    at = repo.at(revision or "HEAD")
    behaviour, base = at.behaviour(name), at.base
    known = Subject(said, base.id, ids.shapes_id((n, row.shape) for n, row in base.tensors.items()), None)
    if len(behaviour.terms) > 1:
        return replace(
            known,
            unknown=f"it is a sum of {len(behaviour.terms)} vectors, and single ones were calibrated on",
        )
    (term,) = behaviour.terms
    weight = behaviour.weight * term.coefficient
    origin = as_behaviour(at.registry.provenance(at.commit, term.vector), name)
    run = trained(origin)
    sketches = Sketches(_delta(at, name, term.vector, origin, progress), _gradient(run))
    learn = None if run is None else str(run.settings.get("learn", "all"))  # before there was a choice: all
    return replace(
        known, vector=term.vector, sketches=sketches, learn=learn,
        unknown=_unknown(at, term.vector, origin, weight, behaviour.modules),
    )  # fmt: skip


def _unknown(at: Revision, vector: str, origin: Provenance, weight: float, modules: object) -> str | None:
    run = trained(origin)
    if run is None:
        return "it was not trained by pv, so the gradient that it began with is not known"
    if run.adapter is not None:
        return "it was trained as an adapter, and whole vectors were calibrated on"
    if run.on is not None:
        return "it was trained from a persona (--on), not from the base"
    encoding = at.registry.vector(at.commit, vector).encoding
    if encoding not in DENSE:
        return f"it is compressed ({encoding}), and whole vectors were calibrated on"
    if weight != 1 or modules:
        return (
            f"its weight is {weight:g}, and 1 was calibrated on"
            if weight != 1
            else "it has factors by module"
        )
    return None


def _gradient(run: Trained | None) -> Sketch | None:
    return None if run is None or run.on is not None else Sketches.of_json(run.sketches).gradient


def _delta(
    at: Revision, name: str, vector: str, origin: Provenance, progress: Report | None
) -> Sketch | None:
    """As its training noted it; as it was computed here before; or from its pack, if that is here and its base is."""
    if isinstance(origin, Trained) and (kept := Sketches.of_json(origin.sketches).delta) is not None:
        return kept
    registry, key = at.registry, ids.sketches_id(vector)
    with suppress(FormatError):
        if (noted := Sketches.of_json(registry.record(key).get("sketches")).delta) is not None:
            return noted
    if not registry.packs.has(vector):
        return None
    try:
        with opened(registry, at.commit, [at.alone(name)]) as there:
            found = sketch_of(there.vectors[vector], stage(progress, f"sketching {vector[:12]}", "tensors"))
    except (MissingBase, RemoteError):
        return None
    document = Sketches(found).to_json()
    with suppress(StorageError, FormatError):  # a registry that cannot be written to
        registry.update_record(key, {"sketches": document})
    return Sketches.of_json(document).delta  # the same as the next time
