"""The promises on the real model: reproducible builds, exact reverts, checkpoints that stock tools load.

The vectors come from the engine's own generator, so that their ids, and the builds', are known beforehand.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SUPPORT
from support.golden import report

from pv.registry.disk.safetensors import TensorFile
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Unknown
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.tensors.philox import bits16
from pv.vecstore.vectors.base import base_manifest
from pv.vecstore.vectors.encode import encode_vector

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "personavec"
BASE = Path(os.environ.get("PV_TEST_BASE", CACHE / "SmolLM2-135M-Instruct"))
SCRIPT = SUPPORT / "build_smollm2.py"
TOUCHED = ("layers.0.", "layers.17.", "layers.29.", "model.norm")

KNOWN_BASE = "1fa69c1ae151415df111feed5e9ec6e9c87a3ae52ffc036fd110464b6ea02ed8"
KNOWN_WEIGHTS = {
    "first": "1e329bd9fd466360b6a05e4ea6780e61492428703e8bea07903d7e8a797067ed",
    "both": "24194e7e3ed18d26b6712e81a833cc6f17e87033d774da392ae3fe1a43e13bf3",
}

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not (BASE / "model.safetensors").is_file(), reason=f"no model at {BASE}: `make base`"),
]


def adding(name: str, behaviour: Behaviour) -> Callable[[Persona], Persona]:
    return lambda persona: persona.with_behaviour(name, behaviour)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Path, dict[str, str]]]:
    """A registry on the real base with two behaviours: tag `first` has one of them, `both` has both."""
    folder = tmp_path_factory.mktemp("smollm2")
    with Checkpoint(BASE) as checkpoint, Registry.init(folder) as registry:
        files = side_files(BASE)
        manifest = base_manifest(
            checkpoint, {"kind": "path", "path": str(BASE)}, tuple(sorted(files)), pinned=False
        )
        registry.start(Persona(manifest.id), manifest, files, "Begin")
        for number, name in enumerate(("first", "second")):
            deltas = {
                tensor: (bits16(number, tensor, 0, row.numel).astype(np.int32) % 31 - 15).astype(np.float32)
                * np.float32(2.0**-15)
                for tensor, row in manifest.tensors.items()
                if any(place in tensor for place in TOUCHED)
            }
            vector = encode_vector(
                deltas, manifest, registry.packs, encoding="float", options={"dtype": "F32"}
            )
            behaviour = Behaviour(0.75, (Term(1.0, vector.id),))
            registry.change(
                name,
                f"Add {name}",
                adding(name, behaviour),
                vectors={vector.id: (vector, Unknown({"kind": "synthetic"}))},
            )
            registry.tag("first" if number == 0 else "both")
        yield registry, folder, {"base": manifest.id}
    shutil.rmtree(folder)


def built(
    folder: Path, out: Path, *, threads: int = 2, shard_bytes: int = 10**10, plain: bool = False
) -> Any:
    return report(SCRIPT, folder, out, threads, shard_bytes, threads=threads, without_vectors=plain)


def test_the_same_bytes_everywhere_and_after_a_revert(
    world: tuple[Registry, Path, dict[str, str]], tmp_path: Path
) -> None:
    registry, folder, ids = world
    both = built(folder, tmp_path / "a")
    assert not both["torch"]
    assert built(folder, tmp_path / "b", threads=1)["files"] == both["files"]
    sharded = built(folder, tmp_path / "c", shard_bytes=60_000_000)
    assert len(sharded["files"]) > 3
    assert sharded["weights"] == both["weights"]
    scalar = built(folder, tmp_path / "d", plain=True)
    assert scalar["files"] == both["files"]

    registry.revert("both")
    reverted = built(folder, tmp_path / "e")
    registry.undo()
    registry.create_branch("earlier", "first", switch=True)
    first = built(folder, tmp_path / "f")
    assert reverted["files"] == first["files"]
    assert first["weights"] != both["weights"]
    if ids["base"] == KNOWN_BASE:
        assert {"first": first["weights"], "both": both["weights"]} == KNOWN_WEIGHTS

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.config.tie_word_embeddings
    with (
        TensorFile(tmp_path / "a" / "model.safetensors") as ours,
        TensorFile(BASE / "model.safetensors") as base,
    ):
        assert ours.entries.keys() == base.entries.keys()
        for name in ("model.layers.5.mlp.up_proj.weight", "model.embed_tokens.weight"):
            assert ours.read(name) == base.read(name)  # touched by no vector
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
