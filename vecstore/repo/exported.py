"""Is a folder what `pv export` wrote? What it says it is, found in the history, to be held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import canonical
from pv.registry.errors import FormatError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.side_files import EXPORT
from pv.vecstore.merge.export import expected_export
from pv.vecstore.repo.commits import named_history
from pv.vecstore.repo.known_builds import KnownBuild, same_recipe

__all__ = ["Captured", "Exported", "alone", "captured"]


@dataclass(frozen=True, slots=True)
class Exported:
    """The behaviours whose export a folder says it is, their vectors, and whether it is a captured checkpoint."""

    behaviours: tuple[str, ...]
    vectors: tuple[str, ...]
    captured: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "behaviours": list(self.behaviours),
            "vectors": list(self.vectors),
            "captured": self.captured,
        }


@dataclass(frozen=True, slots=True)
class Captured:
    """The export of a captured checkpoint: a commit that has it, its tensors, and the files beside them."""

    at: KnownBuild
    export: Exported
    tensors: Mapping[str, TensorRow]
    files: Mapping[str, bytes]


def captured(registry: Registry, checkpoint: Path) -> Captured | None:
    """By the export.json beside the weights, if it names a captured vector of this registry."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    try:
        said = canonical.loads((folder / EXPORT).read_bytes(), what=EXPORT)
    except (OSError, FormatError):
        return None
    vector = said.get("vector") if isinstance(said, dict) else None
    if not isinstance(vector, str):
        return None
    for commit, name, persona in named_history(registry):
        owners = sorted(n for n, b in persona.behaviours.items() if any(t.vector == vector for t in b.terms))
        if not owners:
            continue
        manifest = registry.vector(commit, vector)
        if manifest.encoding != "exact":
            return None
        found = expected_export(manifest, registry.base(commit), registry.base_files(commit))
        at = KnownBuild(commit, name, persona, persona.output)
        return Captured(at, Exported(tuple(owners), (vector,), True), *found)
    return None


def alone(registry: Registry, recipe: Persona) -> tuple[KnownBuild, Exported] | None:
    """A behaviour of the history whose build alone, at weight 1, this is the recipe of."""
    if len(recipe.behaviours) != 1:
        return None
    for commit, name, persona in named_history(registry):
        for behaviour in sorted(persona.behaviours):
            if same_recipe(persona.alone(behaviour), recipe):
                vectors = tuple(term.vector for term in persona.behaviour(behaviour).terms)
                return KnownBuild(commit, name, recipe, persona.output), Exported(
                    (behaviour,), vectors, False
                )
    return None
