from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries import BASE, vector

from pv.registry import canonical
from pv.registry.dtypes import DTYPES
from pv.registry.errors import FormatError
from pv.registry.manifest import (
    ENCODINGS,
    STEERING,
    BaseManifest,
    TensorRow,
    VectorManifest,
    is_plain_file_name,
)

hexes = st.integers(0, (1 << 256) - 1).map(lambda n: f"{n:064x}")
rows = st.builds(
    TensorRow, st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 99), max_size=3).map(tuple), hexes
)
tensor_names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), max_size=9)
base_manifests = st.builds(
    BaseManifest,
    st.dictionaries(tensor_names, rows, max_size=4),
    st.just({"kind": "hub", "repo": "a/b", "revision": "0" * 40}),
    st.sampled_from([(), ("config.json",), ("a b.txt", "tokenizer.json")]),
    st.booleans(),
)
task_manifests = st.builds(
    VectorManifest,
    hexes,
    st.sampled_from([name for name in ENCODINGS if name != STEERING]),
    st.dictionaries(
        tensor_names,
        st.dictionaries(st.sampled_from(["a", "b", "tau"]), rows, min_size=1, max_size=2),
        max_size=3,
    ),
    st.dictionaries(st.text(max_size=4), st.integers(0, 9) | st.text(max_size=3), max_size=2),
)
directions = st.builds(
    TensorRow, st.just("F32"), st.lists(st.integers(1, 99), min_size=1, max_size=3).map(tuple), hexes
)
steering_manifests = st.builds(
    VectorManifest,
    hexes,
    st.just(STEERING),
    st.dictionaries(
        tensor_names.filter(bool), st.fixed_dictionaries({"direction": directions}), min_size=1, max_size=3
    ),
)
vector_manifests = task_manifests | steering_manifests


@given(base_manifests)
def test_base_round_trip(manifest: BaseManifest) -> None:
    again = BaseManifest.from_bytes(manifest.to_bytes())
    assert (again.to_bytes(), again.id, again.files) == (manifest.to_bytes(), manifest.id, manifest.files)


@given(vector_manifests)
def test_vector_round_trip(manifest: VectorManifest) -> None:
    again = VectorManifest.from_bytes(manifest.to_bytes())
    assert (again.to_bytes(), again.id) == (manifest.to_bytes(), manifest.id)


@given(base_manifests, base_manifests)
def test_a_base_id_is_its_tensors_and_nothing_else(a: BaseManifest, b: BaseManifest) -> None:
    assert (a.id == b.id) == (dict(a.tensors) == dict(b.tensors))


ROW = ["F32", [2], "0" * 64]


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *folders, last = path.split("/")
    place: Any = document
    for key in folders:
        place = place[key]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2), ("kind", "vector"), ("kind", None), ("id", "0" * 64), ("id", None), ("more", 1),
        ("origin", []), ("origin", {"path": 1}), ("pinned", 1), ("files", "config.json"),
        ("files", ["../config.json"]), ("files", [".git"]), ("files", ["a/b"]), ("files", ["C:x"]), ("files", [1]),
        ("tensors", []), ("tensors/a.weight", ["F32", [2]]), ("tensors/a.weight", ["F99", [2], "0" * 64]),
        ("tensors/a.weight", ["F32", 2, "0" * 64]), ("tensors/a.weight", ["F32", [-1], "0" * 64]),
        ("tensors/a.weight", ["F32", [True], "0" * 64]), ("tensors/a.weight", ["F32", [1 << 40] * 9, "0" * 64]),
        ("tensors/a.weight", ["F32", [1] * 17, "0" * 64]), ("tensors/a.weight", ["F32", [2], "../x"]),
        ("tensors/a\nb", ROW), ("tensors/" + "n" * 1025, ROW), ("tensors/new", ROW),
    ],
)  # fmt: skip
def test_a_foreign_base_manifest_is_refused(path: str, value: Any) -> None:
    document = put(json.loads(BASE.to_bytes()), path, value)
    with pytest.raises(FormatError, match="theirs"):
        BaseManifest.from_bytes(canonical.dumps(document), "theirs")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 0), ("kind", "base"), ("id", "f" * 64), ("base", "x"), ("encoding", "pickle"), ("encoding", 1),
        ("options", []), ("options", {"rank": 1}), ("tensors/a.weight", {}), ("tensors/a.weight", []),
        ("tensors/a.weight/tau", None), ("tensors/a.weight/other", ROW), ("tensors/x", {"tau": ROW}), ("more", 1),
    ],
)  # fmt: skip
def test_a_foreign_vector_manifest_is_refused(path: str, value: Any) -> None:
    document = put(json.loads(vector(1).to_bytes()), path, value)
    with pytest.raises(FormatError, match="theirs"):
        VectorManifest.from_bytes(canonical.dumps(document), "theirs")


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "a b", "x" * 200, "é"])
def test_plain_file_names(name: str) -> None:
    assert is_plain_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".git",
        "-x",
        "a/b",
        "a\\b",
        "c:d",
        "a\0",
        "a\n",
        "x" * 201,
        "a.",
        "a ",
        "a*",
        "a?",
        'a"',
    ],
)
def test_other_file_names(name: str) -> None:
    assert not is_plain_file_name(name)
