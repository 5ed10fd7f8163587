"""What is built of a persona with steering terms: biases for those that can be baked in, a list of the others.

    steering.json         which terms, with what and why: docs/FORMAT.md
    steering.safetensors  directions times their coefficient, fp32: "NAME/SITE"; and "NAME when SITE", of a condition

They lie beside the weights if a term is listed; `activations.listed` applies them. What pv builds for itself, to apply
all terms as hooks, and what `--no-bake` writes, has the id of the persona without steering: those are its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry import canonical
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.safetensors import header_bytes
from pv.registry.errors import FormatError, UsageError
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.registry.words import listed
from pv.vecstore.activations.bake import BakePlan, plan_bake
from pv.vecstore.activations.listed import SCHEMA, USE
from pv.vecstore.activations.steering import Term
from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.side_files import RECIPE, STEERING, STEERING_WEIGHTS
from pv.vecstore.merge.baked import Baked
from pv.vecstore.merge.shards import Shard, index_bytes, plan_shards
from pv.vecstore.repo.steer.applied import terms_of
from pv.vecstore.tensors.array import F32

__all__ = ["ToBuild", "says_baked", "to_build"]

MOST = 3


@dataclass(frozen=True, slots=True, eq=False)
class ToBuild:
    """`persona` is whose weights and id the build has, `baked` what is added to them.

    `terms` are the names of the steering terms that are in the weights, `unbaked` says of the others why they are not.
    """

    persona: Persona
    baked: Baked = field(default_factory=Baked)
    terms: tuple[str, ...] = ()
    unbaked: Mapping[str, str] = field(default_factory=dict)

    def shards(self, base: BaseManifest, **how: Any) -> tuple[Shard, ...]:
        """The weight files: see `plan_shards`."""
        return plan_shards(self.persona, base, baked=self.baked, **how)

    def beside(self, shards: tuple[Shard, ...]) -> Baked:
        """With an index also of one weight file: some loaders take every *.safetensors of a folder without one."""
        if STEERING_WEIGHTS not in self.baked.files or len(shards) > 1:
            return self.baked
        return replace(self.baked, files={**self.baked.files, INDEX: index_bytes(shards)})

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the weights."""
        found = []
        if self.terms:
            found.append(f"{_terms(self.terms)}: in the weights, as biases")
        for why in dict.fromkeys(self.unbaked.values()):
            names = [name for name, one in self.unbaked.items() if one == why]
            found.append(f"{_terms(names)}: not in the weights, listed in {STEERING}: {why}")
        return tuple(found)


def _terms(names: Any) -> str:
    return f"steering term{'' if len(names) == 1 else 's'} {listed(list(names), MOST)}"


def says_baked(folder: Path) -> bool:
    """Whether terms that can be baked are, in a folder that was built; `--no-bake` leaves them out."""
    try:
        document = canonical.loads(read_bounded(folder / STEERING), what=STEERING)
    except (OSError, FormatError):
        return True
    return not (isinstance(document, dict) and document.get("bake") is False)


def to_build(registry: Registry, commit: str, persona: Persona, *, bake: bool = True) -> ToBuild:
    """How the persona of a commit is built. Raises UsageError for a term that the base has no place for, NotFoundError,
    CorruptPack."""
    active = persona.steering.active
    if not active:
        return ToBuild(persona)
    base = registry.base(commit)
    terms = dict(zip(active, terms_of(persona, registry.packs), strict=True))
    plan = _plan(registry, commit, base, terms, persona.steering.rule)
    if not bake:
        plan = BakePlan(unbaked=dict.fromkeys(terms, "as was asked for"))
    files = _files(persona, terms, plan, bake) if plan.unbaked else {}
    of = persona if bake else persona.unsteered
    if not bake:
        files[RECIPE] = persona.recipe.to_bytes()
    return ToBuild(of, Baked(plan.biases, plan.config, files), plan.baked, plan.unbaked)


def _plan(
    registry: Registry, commit: str, base: BaseManifest, terms: Mapping[str, Term], rule: str
) -> BakePlan:
    try:
        config = json.loads(registry.base_files(commit)["config.json"])
    except (KeyError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        return BakePlan(unbaked=dict.fromkeys(terms, "the base has no config.json"))
    return plan_bake(config, base.tensors, terms, rule)


def _files(persona: Persona, terms: Mapping[str, Term], plan: BakePlan, bake: bool) -> dict[str, bytes]:
    """steering.json and steering.safetensors."""
    tensors: dict[str, F32] = {}
    said: dict[str, Any] = {}
    for name, why in sorted(plan.unbaked.items()):
        term, own = terms[name], persona.steering.terms[name]
        scaled = term.scaled
        if not all(np.isfinite(one).all() for one in scaled.values()):
            raise UsageError(
                f"steering term {name}: coefficient {term.coefficient:g} takes it out of the range of fp32",
                hint="give a smaller one",
            )
        tensors.update({f"{name}/{site}": one for site, one in sorted(scaled.items())})
        if term.when is not None:
            tensors[f"{name} when {term.when.site}"] = term.when.direction
        when = (
            None if term.when is None else {"site": term.when.site, "above": own.to_json()["when"]["above"]}
        )
        said[name] = {
            "coefficient": own.to_json()["coefficient"],
            "vector": own.vector,
            "sites": sorted(term.directions),
            "positions": term.positions,
            "when": when,
            "why": why,
        }
    document = {
        "schema": SCHEMA,
        "bake": bake,
        "rule": persona.steering.rule,
        "baked": list(plan.baked),
        "terms": said,
        "use": list(USE),
    }
    return {STEERING: canonical.dumps(document) + b"\n", STEERING_WEIGHTS: _safetensors(tensors)}


def _safetensors(tensors: Mapping[str, F32]) -> bytes:
    head = header_bytes(
        {name: ("F32", one.shape, one.nbytes) for name, one in tensors.items()}, {"format": "pt"}
    )
    return head + b"".join(np.ascontiguousarray(one, "<f4").tobytes() for one in tensors.values())
