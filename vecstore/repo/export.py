"""export: a behaviour's own checkpoint to a folder: the captured one, or else its build alone at weight 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import IntegrityError, NotFoundError
from pv.registry.persona import Persona, Term
from pv.registry.provenance import Captured
from pv.registry.provenance_ways import as_behaviour, ways
from pv.vecstore.merge.build import Built
from pv.vecstore.merge.build import build as write_build
from pv.vecstore.merge.delta import holdings, touched
from pv.vecstore.merge.export import export as write_export
from pv.vecstore.merge.export import plan_export as plan_captured
from pv.vecstore.merge.folder import Written, check_free
from pv.vecstore.merge.plan import plan, sole
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, plan_shards
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.build import record_build, usable
from pv.vecstore.repo.opening import opened
from pv.vecstore.vectors.vector import Vector

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Export", "ExportPlan", "export", "plan_export", "without_steering"]


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The weight files that an export would write. `captured`: see `Export`."""

    output: Path
    commit: str
    name: str
    captured: bool
    shards: tuple[Shard, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "output": str(self.output),
            "commit": self.commit,
            "name": self.name,
            "captured": self.captured,
            "sizes": {shard.file: shard.nbytes for shard in self.shards},
        }


@dataclass(frozen=True, slots=True)
class Export:
    """A checkpoint that was written. `captured`: the very one that was committed; else a build, of that `build` id.

    `encodings` are those of the behaviour's vectors, `notes` what the persona has and is not in it. `recorded` is False
    where the registry cannot be written to.
    """

    output: Path
    commit: str
    name: str
    captured: bool
    encodings: tuple[str, ...]
    written: Written
    notes: tuple[str, ...] = ()
    build: str | None = None
    recorded: bool = True

    def to_json(self) -> dict[str, Any]:
        made = self.written
        return {
            "output": str(self.output),
            "commit": self.commit,
            "name": self.name,
            "captured": self.captured,
            "encodings": list(self.encodings),
            "build": self.build,
            "weights": made.weights,
            "files": dict(made.files),
            "tensors": made.tensors,
            "touched": made.touched,
            "bytes": made.nbytes,
            "notes": list(self.notes),
        }


def plan_export(
    revision: Revision, name: str, output: Path, *, shard_bytes: int = SHARD_BYTES, force: bool = False
) -> ExportPlan:
    """What `export` would write. Reads no weights; raises what can be known without them."""
    alone, folder = revision.alone(name), usable(output)
    check_free(folder.resolve(), force=force)
    with opened(revision.registry, revision.commit, [alone]) as at:
        whole = _captured(revision, alone, at.vectors)
        shards = (
            plan_shards(alone, revision.base, shard_bytes=shard_bytes)
            if whole is None
            else plan_captured(whole, revision.base, shard_bytes=shard_bytes)
        )
    return ExportPlan(folder, revision.commit, name, whole is not None, shards)


def export(
    revision: Revision,
    name: str,
    output: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    threads: int,
    progress: Report | None = None,
) -> Export:
    """Write a behaviour's checkpoint to a new folder, whatever weight, rule and output the persona has.

    One captured checkpoint comes back bit for bit, also one that was trained on a build (`--on`); any other behaviour
    is built alone at weight 1, as the persona writes. Raises UnknownBehaviour, UsageError, MissingBase, IntegrityError.
    """
    alone, folder = revision.alone(name), usable(output)
    files, update = revision.registry.base_files(revision.commit), stage(progress, "exporting")
    options: dict[str, Any] = {
        "side_files": files, "shard_bytes": shard_bytes, "threads": threads, "force": force, "progress": update,
    }  # fmt: skip
    with opened(revision.registry, revision.commit, [alone]) as at:
        whole = _captured(revision, alone, at.vectors)
        made: Written
        if whole is None:
            made = write_build(alone, at.base, at.vectors, folder, **options)
        else:
            made = write_export(whole, at.base, folder, **options)
        encodings = tuple(vector.manifest.encoding for vector in at.vectors.values())
    notes = without_steering(revision)
    export = Export(folder, revision.commit, name, whole is not None, encodings, made, notes)
    if not isinstance(made, Built):
        return export
    return replace(export, build=made.build, recorded=record_build(revision.registry, made))


def without_steering(revision: Revision) -> tuple[str, ...]:
    """A note where the persona steers: what is exported are weights alone."""
    terms = ", ".join(revision.persona.steering.active)
    return (f"steering terms are left out: {terms}",) if terms else ()


def _captured(revision: Revision, alone: Persona, vectors: Mapping[str, Vector]) -> Vector | None:
    """The one captured checkpoint that the behaviour is, if it is one."""
    held = holdings(vectors)
    found = {sole(plan(alone, held, tensor)) for tensor in touched(vectors.values())}
    name = found.pop() if len(found) == 1 else None
    only = vectors.get(name or _trained_on_a_build(revision, alone) or "")
    return only if only is not None and only.manifest.encoding == "exact" else None


def _trained_on_a_build(revision: Revision, alone: Persona) -> str | None:
    """The whole difference to the base, of which the other terms take away what the build had that it was trained on.

    Where that build's commit is not here (on a branch that was not pulled), the provenance is believed.
    """
    ((name, behaviour),) = alone.behaviours.items()
    whole = behaviour.terms[0]
    if whole.coefficient != 1.0:
        return None
    for way in ways(as_behaviour(revision.registry.provenance(revision.commit, whole.vector), name)):
        if isinstance(way, Captured) and way.on is not None:
            subtracted = _negated(revision, way.on.commit)
            if subtracted is None or set(behaviour.terms[1:]) <= subtracted:
                return whole.vector
    return None


def _negated(revision: Revision, commit: str) -> set[Term] | None:
    """What `pv commit --on` subtracts of a commit's behaviours; None if it is not here."""
    try:
        held = revision.registry.persona(commit).behaviours.values()
    except (NotFoundError, IntegrityError):
        return None
    return {Term(0.0 - b.weight * term.coefficient, term.vector) for b in held for term in b.terms}
