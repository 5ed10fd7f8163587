"""Steering vectors and terms for tests: small directions of fixed numbers, written as pv writes them, and committed.

`from support.steering import add_steering, directions`. The same arguments give the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from pv.registry.manifest import VectorManifest
from pv.registry.persona import Persona
from pv.registry.provenance import Imported
from pv.registry.registry import Registry
from pv.registry.steering import POSITIONS, RULES, Condition, Steering, SteeringTerm
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import write_steering
from support.vectors import random_f32

__all__ = ["SITES", "add_steering", "directions", "put_steering", "steered", "steerings", "terms"]

SITES = ("model.layers.0", "model.layers.1")


def directions(seed: int = 1, sites: tuple[str, ...] = SITES, size: int = 48) -> Mapping[str, F32]:
    """(size,) float32 for each site: 48 as the tiny model of `support.tiny` has."""
    return {site: random_f32(f"direction {site}", size, least=124, spread=3, seed=seed) for site in sites}


def put_steering(registry: Registry, seed: int = 1, sites: tuple[str, ...] = SITES) -> VectorManifest:
    """Write the pack of a steering vector of the registry's base."""
    return write_steering(directions(seed, sites), registry.base().id, registry.packs)


def add_steering(
    registry: Registry, name: str, seed: int = 1, coefficient: float = 1.0, **values: Any
) -> SteeringTerm:
    """Write a vector, and commit it as a steering term."""
    manifest = put_steering(registry, seed)
    term = SteeringTerm(coefficient, manifest.id, **values)
    registry.change(
        f"steer extract {name}",
        f"Steer {name}",
        lambda persona: persona.with_steering(name, term),
        vectors={manifest.id: (manifest, Imported("test", f"{seed}.gguf"))},
    )
    return term


ids = st.integers(0, 4).map(lambda seed: f"{seed:064x}")
numbers = st.sampled_from([0.0, -0.0, 1.0, -0.5, 1e30]) | st.floats(-1e30, 1e30)
sites = st.none() | st.sets(st.sampled_from([*SITES, "c:input[3/9]"]), min_size=1).map(
    lambda s: tuple(sorted(s))
)
evidence = st.dictionaries(
    st.sampled_from(["tested", "verified", "trained"]),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9) | st.lists(st.none() | st.booleans()), max_size=2),
    max_size=2,
)
conditions = st.builds(Condition, ids, st.sampled_from(SITES), st.floats(-1, 1))
terms = st.builds(
    SteeringTerm, numbers, ids, sites, st.sampled_from(POSITIONS), st.none(), evidence
) | st.builds(SteeringTerm, numbers, ids, sites, st.just("reply"), conditions, evidence)
"""Any term that no behaviour has retired."""
steerings = st.builds(
    Steering.of,
    st.sampled_from(RULES),
    st.dictionaries(st.sampled_from(["formal", "a", "x.y-z_1"]), terms, max_size=2),
)


@st.composite
def steered(draw: st.DrawFn, personas: st.SearchStrategy[Persona], *, retired: bool = True) -> Persona:
    """Personas with steering terms, some of them retired by one of its behaviours."""
    from dataclasses import replace

    persona, steering = draw(personas), draw(steerings)
    by = (
        st.none() | st.sampled_from(sorted(persona.behaviours))
        if retired and persona.behaviours
        else st.none()
    )
    made = {name: replace(term, retired_by=draw(by)) for name, term in steering.terms.items()}
    return replace(persona, steering=Steering.of(steering.rule, made))
