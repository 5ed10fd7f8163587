"""Where a lost pack comes from: what an earlier pv derived is derived again as that pv did it."""

from __future__ import annotations

from pathlib import Path

from support.vectors import array, base_at, random_f32, save

from pv.registry.check import fsck
from pv.registry.manifest import VectorManifest
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Derived, Provenance, Trained, TrainingData
from pv.registry.registry import Registry
from pv.vecstore.check import decode
from pv.vecstore.check.repair import repair
from pv.vecstore.vectors.derive import EncodingSpec, derive
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.vector import open_vector

SPEC = EncodingSpec.parse("lowrank:2")
TENSOR = "model.layers.0.mlp.up_proj.weight"


def test_factors_that_an_earlier_pv_made_are_made_again(tmp_path: Path) -> None:
    folder = save(tmp_path / "base", {TENSOR: array("up", "BF16", 80, 70)})
    with base_at(folder) as base, Registry.creating(tmp_path / "home") as registry:
        registry.start(Persona(base.manifest.id), base.manifest, {}, "Begin")
    with base_at(folder) as base, Registry.find(tmp_path / "home") as registry:
        packs = registry.packs
        dense = encode_vector({TENSOR: random_f32("tau", 80 * 70)}, base.manifest, packs, encoding="float")
        with open_vector(dense.id, base, packs) as vector:
            old = derive(vector, SPEC.as_before(), packs).manifest
            new = derive(vector, SPEC, packs).manifest
        trained = Trained(TrainingData("rows.jsonl", "", 1), {}, {}, None, 0)
        for name, made, origin in (
            ("dense", dense, trained),
            ("old", old, Derived(dense.id, SPEC.text, 0.1, 0.1)),
            ("new", new, Derived(dense.id, SPEC.text, 0.1, 0.1)),
        ):
            _commit(registry, name, made, origin)
        root = registry.root
    assert old.id != new.id
    wholes = {}
    for made in (old, new):
        path = packs.path(made.id)
        wholes[path] = path.read_bytes()
        path.unlink()
    assert [one.done for one in repair(root, deeply=True).mended] == [True, True]
    assert {path: path.read_bytes() for path in wholes} == wholes
    assert decode.deep(root, fsck.check(root)).clean


def _commit(registry: Registry, name: str, manifest: VectorManifest, origin: Provenance) -> None:
    behaviour = Behaviour(1.0, (Term(1.0, manifest.id),))
    registry.change(
        "commit", name, lambda p: p.with_behaviour(name, behaviour), vectors={manifest.id: (manifest, origin)}
    )
