"""export: a steering term as a file that another tool reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.errors import StorageError, UsageError
from pv.registry.persona import Persona
from pv.registry.steering import SteeringTerm
from pv.vecstore.activations.formats.table import FORMATS, Format, named
from pv.vecstore.activations.formats.values import Model
from pv.vecstore.repo.steer.applied import at_site
from pv.vecstore.repo.steer.file_model import in_order, model_of, skeleton_of
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import open_steering

if TYPE_CHECKING:
    from pv.registry.registry import Registry
    from pv.vecstore.repo.repo import Repo

__all__ = ["ExportedTerm", "export"]


@dataclass(frozen=True, slots=True)
class ExportedTerm:
    """A file of a steering term. `coefficient` is what it steers by: `kept` in the file, or in the directions."""

    commit: str
    name: str
    vector: str
    format: str
    convention: str | None
    file: Path
    sites: tuple[str, ...]
    coefficient: float
    kept: bool
    unit: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "name": self.name,
            "vector": self.vector,
            "format": self.format,
            "convention": self.convention,
            "file": str(self.file),
            "sites": list(self.sites),
            "coefficient": self.coefficient,
            "kept": self.kept,
            "unit": self.unit,
            "notes": list(self.notes),
        }


def export(
    repo: Repo,
    name: str,
    output: Path,
    *,
    revision: str = "HEAD",
    format: str | None = None,
    convention: str | None = None,
    coefficient: float | None = None,
    unit: bool = False,
    sites: Sequence[str] | str | None = None,
    force: bool = False,
) -> ExportedTerm:
    """Write it, whole or not at all. Raises NotFoundError, UsageError for what no file has room for, StorageError."""
    kind = named(format) if format is not None else _by_suffix(output)
    kind.check_convention(convention)
    if unit and coefficient is not None:
        raise UsageError("a unit vector has the coefficient 1", hint="give one of coefficient and unit")
    with _refusals(output):
        _check_output(output, force)
    registry, commit = repo.registry, repo.registry.resolve(revision)
    persona = registry.persona(commit)
    term = persona.steering_term(name, of=revision)
    by = 1.0 if unit else term.coefficient if coefficient is None else float(coefficient)
    _check_room(name, term, by)
    directions = open_steering(term.vector, persona.base, registry.packs)
    chosen = {site: at_site(directions, site, name) for site in _sites(term, sites, directions)}
    given = {site: _of_length_1(one) for site, one in chosen.items()} if unit else chosen
    model = _model(registry, commit, kind)
    with _refusals(output):
        kind.write(output, given, model, coefficient=by, convention=convention)
    used = convention or next(iter(kind.conventions), None)
    return ExportedTerm(
        commit, name, term.vector, kind.name, used, output, in_order(chosen), by, kind.coefficient, unit,
        tuple(_notes(name, term, persona, kind, output)),
    )  # fmt: skip


@contextmanager
def _refusals(output: Path) -> Iterator[None]:
    """What the file system refuses is a StorageError: a name that is too long, a folder that went away."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {output}: {error.strerror}", hint="name another file with -o"
        ) from error


def _by_suffix(output: Path) -> Format:
    """Raises UsageError for an ending of no format, or of several."""
    found = [one for one in FORMATS if output.suffix.lower() in one.suffixes]
    if len(found) == 1:
        return found[0]
    names = [one.name for one in found or FORMATS]
    said = (
        f"which format is {output.name}?" if not found else f"{output.suffix} is of {' and of '.join(names)}"
    )
    raise UsageError(said, hint=f"give --format: one of {', '.join(names)}")


def _check_output(output: Path, force: bool) -> None:
    if not output.parent.is_dir():
        raise UsageError(f"no folder {output.parent}", hint="make it, or name another file with -o")
    if output.is_dir():
        raise UsageError(f"{output} is a folder", hint="name a file in it")
    if output.exists() and not force:
        raise UsageError(f"{output} exists", hint="--force replaces it")


def _check_room(name: str, term: SteeringTerm, coefficient: float) -> None:
    """What a file would do that the term does not is refused. Raises UsageError."""
    if term.when is not None:
        raise UsageError(
            f"{name} steers for some prompts alone, and a file has no room for the condition",
            hint=f"`pv steer set {name} --always --positions all` takes it away, `pv undo` brings it back",
        )
    if term.positions != "all":
        raise UsageError(
            f"{name} steers {term.positions} positions, and a file steers every one",
            hint=f"`pv steer set {name} --positions all` steers every one here too, `pv undo` takes that back",
        )
    if not coefficient:
        raise UsageError(
            f"{name} has the coefficient 0: the file would steer nothing",
            hint="--coefficient 1 writes it as it is",
        )


def _sites(
    term: SteeringTerm, sites: Sequence[str] | str | None, directions: Mapping[str, F32]
) -> Sequence[str]:
    if isinstance(sites, str):
        if sites != "all":
            raise UsageError("sites are a list of names, or 'all'", hint="`pv steer list` shows them")
        return list(directions)
    return list(sites or term.sites or directions)


def _of_length_1(one: F32) -> F32:
    length = float(np.linalg.norm(one.astype(np.float64)))
    return one if not length else (one.astype(np.float64) / length).astype(np.float32)


def _model(registry: Registry, commit: str, kind: Format) -> Model:
    """Of a format that names sites as they are, nothing but the base's id is asked for."""
    base = registry.persona(commit).base
    return Model((), base=base) if kind.by_name else model_of(base, skeleton_of(registry, commit))


def _notes(name: str, term: SteeringTerm, persona: Persona, kind: Format, output: Path) -> list[str]:
    notes = []
    if persona.steering.rule != "add":
        notes.append(
            f"the persona's rule is {persona.steering.rule}; whoever reads the file adds the vector as it is"
        )
    if term.retired_by is not None:
        notes.append(f"{name} is retired by {term.retired_by}: the persona itself does not apply it")
    if output.suffix.lower() not in kind.suffixes:
        notes.append(f"files of {kind.name} end in {' or '.join(kind.suffixes)}; tools may ask for that")
    return notes
