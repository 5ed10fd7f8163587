"""import_file: a steering vector out of another tool's file, committed as a term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import BaseMismatch, UsageError
from pv.registry.provenance import Imported
from pv.registry.steering import SteeringTerm
from pv.vecstore.activations.fits import check_fits
from pv.vecstore.activations.formats.table import Format, format_of, named
from pv.vecstore.activations.formats.values import Model, Read
from pv.vecstore.activations.sites import sites_of
from pv.vecstore.repo.long_work import long_work
from pv.vecstore.repo.steer.extract import land_term
from pv.vecstore.repo.steer.file_model import in_order, model_of, skeleton_of
from pv.vecstore.vectors.steering import write_steering

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pv.vecstore.repo.repo import Repo

__all__ = ["Import", "import_file"]

UNCHECKED = "whether it fits the base was not checked: transformers knows no model of the base's config"
UNRUN = "whether directions at other places than blocks have the right length was not checked"
SAID_OF = ("model_hint", "model_type")


@dataclass(frozen=True, slots=True)
class Import:
    """A steering vector that was read from a file: its commit, the term, and the sites that the file has."""

    commit: str
    branch: str
    name: str
    vector: str
    term: SteeringTerm
    format: str
    convention: str | None
    file: str
    sites: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "branch": self.branch,
            "name": self.name,
            "vector": self.vector,
            "term": self.term.to_json(),
            "format": self.format,
            "convention": self.convention,
            "file": self.file,
            "sites": list(self.sites),
            "notes": list(self.notes),
        }


def import_file(
    repo: Repo,
    path: Path,
    *,
    name: str,
    format: str | None = None,
    convention: str | None = None,
    coefficient: float | None = None,
    layers: Sequence[int] | None = None,
    sites: Sequence[str] = (),
    positions: str | None = None,
    message: str | None = None,
) -> Import:
    """The format is seen in the file. Raises FormatError, BaseMismatch, NotFoundError, UsageError."""
    kind = named(format) if format is not None else None
    told = _told(coefficient, positions)
    with long_work(repo) as work:
        # Refused before any work: a name or positions that no term can have.
        work.persona.with_steering(
            name, SteeringTerm(**{"coefficient": 1.0, "vector": "0" * 64, **told})
        ).checked()
        if path.is_dir():
            raise UsageError(f"{path} is a folder", hint="name the file of the steering vector")
        kind = kind or format_of(path)
        modules = skeleton_of(work.registry, work.commit)
        model = model_of(work.persona.base, modules)
        read = kind.read(path, model, convention=convention)
        notes = (*read.notes, *_fitting(read, modules, model, path))
        applied = _chosen(read, modules, layers, sites)
        if read.coefficient is not None:
            told = {"coefficient": read.coefficient, **told}
        manifest = write_steering(read.directions, work.persona.base, work.registry.packs)
        term = SteeringTerm(**{"coefficient": 1.0, "vector": manifest.id, "sites": applied, **told})
        used = convention or next(iter(kind.conventions), None)
        command = repo.command(f"steer import {path.name} --as {name}")
        commit, landed = land_term(
            work, command, message or f"Import {name}", name, term, manifest, _origin(kind, used, path), told
        )  # fmt: skip
    return Import(
        commit, work.branch, name, manifest.id, landed, kind.name, used, path.name,
        in_order(read.directions), notes,
    )  # fmt: skip


def _told(coefficient: float | None, positions: str | None) -> dict[str, Any]:
    given = {"coefficient": None if coefficient is None else float(coefficient), "positions": positions}
    return {key: value for key, value in given.items() if value is not None}


def _origin(kind: Format, convention: str | None, path: Path) -> Imported:
    """A convention that is not the format's first is said with it: `gguf, cvector-generator`."""
    told = f", {convention}" if convention and convention != kind.conventions[0] else ""
    return Imported(kind.name + told, path.name)


def _fitting(read: Read, modules: PreTrainedModel | None, model: Model, path: Path) -> list[str]:
    """What to know of how the directions fit. Raises BaseMismatch."""
    if modules is None:
        return [UNCHECKED]
    notes = []
    try:
        if not check_fits(modules, read.directions):
            notes = _by_width(read, model)
    except BaseMismatch as error:
        raise BaseMismatch(f"{path}: {error}", hint=error.hint) from error
    said = next((str(read.facts[key]) for key in SAID_OF if read.facts.get(key)), "")
    if said and model.model_type and said.lower() != model.model_type.lower():
        notes.append(
            f"the file says that it is of a model of the type {said[:40]}, and the base is {model.model_type}"
        )
    return notes


def _by_width(read: Read, model: Model) -> list[str]:
    """The check of what blocks put out alone. Raises BaseMismatch."""
    for site in read.directions.keys() & set(model.blocks):
        if model.width is not None and read.directions[site].shape != (model.width,):
            raise BaseMismatch(
                f"a direction of shape {read.directions[site].shape} does not fit {site}, which puts out {model.width}",
                hint="it was made for another model",
            )
    return [UNRUN] if read.directions.keys() - set(model.blocks) else []


def _chosen(
    read: Read, modules: PreTrainedModel | None, layers: Sequence[int] | None, sites: Sequence[str]
) -> tuple[str, ...] | None:
    """Where the term is applied: None for all of the file's sites. Raises UsageError for one that it does not have."""
    if layers is None and not sites:
        return None
    if modules is None and layers is not None:
        raise UsageError(
            "the base's layers have no numbers: transformers knows no model of its config", hint="use --site"
        )
    chosen: list[str] = list(sites) if modules is None else sites_of(modules, sites, layers)
    for site in chosen:
        if site not in read.directions:
            raise UsageError(
                f"the file has no direction at {site[:80]}", hint=f"it has {_some(read.directions)}"
            )
    return tuple(sorted(set(chosen)))


def _some(directions: Mapping[str, Any], most: int = 4) -> str:
    names = in_order(directions)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
