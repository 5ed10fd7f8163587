"""export --lora: a persona, or a behaviour, as one PEFT adapter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.registry.provenance import Captured, Merged, Provenance, Trained
from pv.registry.provenance_ways import origin
from pv.registry.registry import Registry
from pv.vecstore.merge.adapter import Adapted, ModuleLoss, write_adapter
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.build import usable
from pv.vecstore.repo.export import without_steering
from pv.vecstore.repo.opening import opened
from pv.vecstore.vectors.adapters.write import Layout

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["LoraExport", "adapter_facts", "export_lora"]

MAX_RANK = 1 << 16


@dataclass(frozen=True, slots=True)
class LoraExport:
    """An adapter that was written: of a behaviour at weight 1 (`name`), or of the persona as it is."""

    output: Path
    commit: str
    name: str | None
    rank: int | None
    made: Adapted
    notes: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return self.rank is None

    @property
    def worst(self) -> ModuleLoss | None:
        """The module that lost most of itself."""
        return max(self.made.losses, key=lambda loss: (loss.relative, loss.module), default=None)

    def to_json(self) -> dict[str, Any]:
        made, worst = self.made, self.worst
        return {
            "output": str(self.output),
            "commit": self.commit,
            "name": self.name,
            "exact": self.exact,
            "rank": self.rank,
            "ranks": dict(made.ranks),
            "residual": None if worst is None else {
                "total": made.residual,
                "worst": {"tensor": worst.module, "relative": worst.relative},
                "left_out": [part.module for part in made.left_out],
            },
            "weights": made.written.weights,
            "files": dict(made.written.files),
            "bytes": made.written.nbytes,
            "notes": list(self.notes),
        }  # fmt: skip


def export_lora(
    revision: Revision,
    name: str | None,
    output: Path,
    *,
    rank: int | None = None,
    force: bool = False,
    threads: int,
    progress: Report | None = None,
) -> LoraExport:
    """Write the persona, or one behaviour of it alone at weight 1, as one PEFT adapter.

    Exact, with the ranks of all that it is made of; with `rank`, the best of that, and what is lost is measured.
    Raises UsageError for what has no factors where no rank is given, UnknownBehaviour, MissingBase, IntegrityError.
    """
    if rank is not None and not 1 <= rank <= MAX_RANK:
        raise UsageError(f"a rank is a whole number from 1 to {MAX_RANK}, not {rank}", hint="for example 64")
    folder = usable(output)
    persona = revision.persona if name is None else revision.persona.alone(name)
    with opened(revision.registry, revision.commit, [persona]) as at:
        made = write_adapter(
            persona, at.base, at.vectors, folder, _layout(revision, persona.task_vectors),
            rank=rank, threads=threads, force=force, progress=stage(progress, "exporting", "tensors"),
        )  # fmt: skip
    return LoraExport(folder, revision.commit, name, rank, made, without_steering(revision))


def _layout(revision: Revision, vectors: Iterable[str]) -> Layout:
    """What the adapters that were committed say of names and orientation, and the base of itself."""
    config = _json(revision.registry.base_files(revision.commit).get("config.json", b"{}"))
    source = revision.base.origin
    fact = adapter_facts(revision.registry, revision.commit, vectors)
    causal = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())
    return Layout(
        _pair(fact.get("renamed")) or ("", ""),
        frozenset(fact["transposed"]),
        fact["config"].get("task_type") or ("CAUSAL_LM" if causal else None),
        str(config.get("model_type")),
        source.get("repo") if source.get("kind") == "hub" else None,
    )


def adapter_facts(registry: Registry, commit: str | None, vectors: Iterable[str]) -> dict[str, Any]:
    """What adapters say together, as the provenance of one that is made of them: names, orientation, task."""
    facts = [_facts(registry.provenance(commit, vector)) for vector in vectors]
    renamed = [pair for fact in facts if (pair := _pair(fact.get("renamed")))]
    tasks = {str(task) for fact in facts if (task := _config(fact).get("task_type"))}
    return {
        "config": {"task_type": tasks.pop()} if len(tasks) == 1 else {},
        "transposed": sorted({str(tensor) for fact in facts for tensor in fact.get("transposed") or ()}),
        **({"renamed": list(renamed[0])} if renamed else {}),
    }


def _facts(known: Provenance) -> dict[str, Any]:
    first = origin(known)
    return dict(first.adapter or {}) if isinstance(first, Captured | Merged | Trained) else {}


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    found = facts.get("config")
    return found if isinstance(found, dict) else {}


def _pair(value: Any) -> tuple[str, str] | None:
    return (str(value[0]), str(value[1])) if isinstance(value, list) and len(value) == 2 else None


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
