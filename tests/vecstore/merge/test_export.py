"""The folder of an export: what is in it, what it may replace, and that it appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.captured import OWN, TUNED, Pair, like, pair
from support.vectors import array, files_below

from pv.registry.errors import CorruptPack, UsageError
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.merge.build import build
from pv.vecstore.merge.export import export
from pv.vecstore.vectors.vector import open_vector


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path, OWN, TUNED) as made:
        yield made


CONFIG = {"architectures": ["Tiny"], "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ({"a": "F32", "c": "F32"}, "float32"),
        ({"a": "F16"}, "float16"),
        ({"b": "F32"}, "bfloat16"),
        ({}, "bfloat16"),
    ],
)
def test_the_config_says_which_dtype_most_weights_have(
    tmp_path: Path, target: Mapping[str, str], word: str
) -> None:
    own = {"a": array("a", "BF16", 50), "b": array("b", "BF16", 3), "c": array("c", "BF16", 40)}
    tuned = {n: array(n, target.get(n, "BF16"), *t.shape, seed=2) for n, t in own.items()}
    with pair(tmp_path, own, tuned) as made:
        files = {"config.json": json.dumps(CONFIG).encode(), "merges.txt": b"a b\n"}
        found = made.exported(side_files=files)
        assert like(found, tuned)
        assert json.loads((made.out / "0" / "config.json").read_bytes()) == {**CONFIG, "dtype": word}
        assert (made.out / "0" / "merges.txt").read_bytes() == b"a b\n"


def test_an_export_is_no_build_and_says_what_it_is(far: Pair) -> None:
    out = far.out / "e"
    made = export(far.vectors[far.exact], far.base, out, side_files={"config.json": b"{}"})
    assert files_below(out) == {"config.json", "export.json", "model.safetensors"}
    assert json.loads((out / "export.json").read_bytes()) == {
        "schema": 1, "base": far.base.manifest.id, "vector": far.exact, "weights": made.weights,
    }  # fmt: skip
    build(far.alone(), far.base, far.vectors, far.out / "b", side_files={"config.json": b"{}"})
    for folder in (out, far.out / "b"):
        assert set(side_files(folder)) == {"config.json"}  # as a base of its own it has nothing of ours


def test_only_what_pv_wrote_is_replaced(far: Pair) -> None:
    out, vector = far.out / "e", far.vectors[far.exact]
    export(vector, far.base, out, side_files={})
    with pytest.raises(UsageError, match="not empty"):
        export(vector, far.base, out, side_files={})
    export(vector, far.base, out, side_files={"merges.txt": b""}, force=True)
    build(far.alone(), far.base, far.vectors, out, side_files={}, force=True)
    export(vector, far.base, out, side_files={}, force=True)
    assert files_below(out) == {"export.json", "model.safetensors"}
    (out / "notes").mkdir()
    with pytest.raises(UsageError, match="not empty"):
        export(vector, far.base, out, side_files={}, force=True)
    (out / "notes").rmdir()
    for text in ("", "{}", "[]", '{"vector": 3}', '{"vector": "../x"}'):
        (out / "export.json").write_text(text)
        with pytest.raises(UsageError, match="not empty"):
            export(vector, far.base, out, side_files={}, force=True)
    assert files_below(out) == {"export.json", "model.safetensors"}


def test_a_damaged_pack_leaves_no_folder(far: Pair) -> None:
    path = far.packs.path(far.exact)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with open_vector(far.exact, far.base, far.packs) as damaged:
        with pytest.raises(CorruptPack):
            export(damaged, far.base, far.out / "e", side_files={})
        with pytest.raises(CorruptPack):
            build(far.alone(), far.base, {far.exact: damaged}, far.out / "b", side_files={})
    assert files_below(far.out) == set()


def test_progress_counts_what_is_written(far: Pair) -> None:
    seen: list[tuple[int, int]] = []
    made = export(
        far.vectors[far.exact],
        far.base,
        far.out / "e",
        side_files={},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (made.nbytes, made.nbytes)
    assert len(seen) - 1 == made.tensors == len(OWN)
    assert made.nbytes == sum(t.raw.nbytes for t in TUNED.values())
