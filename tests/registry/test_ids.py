"""Ids are frozen: these values were computed once, and by hand in docs/FORMAT.md."""

from __future__ import annotations

import hashlib

import pytest

from pv.registry import ids
from pv.registry.combine import Combine
from pv.registry.errors import FormatError
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.persona import ENGINES, Behaviour, Persona, Term

RAW = bytes.fromhex("0000803f000000c0")  # 1.0, -2.0 in fp32
TENSOR = "a7778b5daa00fb7b8cd44b356afa854a09b3172866505c53f22a6de9fdb30d69"
BASE = "a03bc93e3333dae4942ae926b1e31b79b7eb4115abe9fbe437ceb470fafd6e6d"
VECTOR = "a5743f47a3ed544cad44351099437621888167d6682402ccdbc541c26c7be2e8"
VECTOR_OPTIONS = "417b0c68312ebcb8b22394790af04eb5d6166d0ed2b765cbd5b0dc8f54d219dc"
PERSONA: dict[int, str] = {}  # by engine
BUILD: dict[int, str] = {}
PERSONA[1] = "e75b6363df93fddb1b6b22cd290fb63c38471e96aaf5171c8388616c5a4908f7"
BUILD[1] = "ff3239b4c513e1ee9da57f182bd1d7373d9694ddde036f4c4265ca789c11ae2e"
PERSONA[2] = "fab326082a089856fb5eb629f18e739d0f380d2dbdfa940dc2bdc3de81f33137"
BUILD[2] = "f6201211d8d9a2a6c189123b24b635a6c688fdd699051ea481c9d266317b2d9b"


def test_tensor_id() -> None:
    assert ids.tensor_id("F32", (2,), RAW) == TENSOR
    assert hashlib.sha256(b'pv:tensor:1\n["F32",[2]]\n' + RAW).hexdigest() == TENSOR


def test_tensor_hash_takes_pieces() -> None:
    running = ids.tensor_hash("F32", [2])
    running.update(RAW[:3])
    running.update(RAW[3:])
    assert running.hexdigest() == TENSOR


def test_base_id() -> None:
    rows = [("w", "F32", (2,), TENSOR), ("b", "F32", (2,), TENSOR)]
    text = f'pv:base:1\n[["b","F32",[2],"{TENSOR}"],["w","F32",[2],"{TENSOR}"]]'
    assert ids.base_id(rows) == ids.base_id(reversed(rows)) == BASE
    assert hashlib.sha256(text.encode()).hexdigest() == BASE
    tensors = {"w": TensorRow("F32", (2,), TENSOR), "b": TensorRow("F32", (2,), TENSOR)}
    here = BaseManifest(tensors, {"kind": "path", "path": "/one"})
    there = BaseManifest(
        tensors, {"kind": "hub", "repo": "a/b", "revision": "0" * 40}, ("config.json",), True
    )
    assert here.id == there.id == BASE


def test_vector_id() -> None:
    text = f'pv:vector:1\n{{"base":"{BASE}","encoding":"float","tensors":[["w","tau","{TENSOR}"]]}}'
    tensors = {"w": {"tau": TensorRow("F32", (2,), TENSOR)}}
    assert VectorManifest(BASE, "float", tensors).id == VECTOR
    assert hashlib.sha256(text.encode()).hexdigest() == VECTOR
    assert VectorManifest(BASE, "lowrank", tensors, {"rank": 8}).id == VECTOR_OPTIONS


@pytest.mark.parametrize("engine", ENGINES)
def test_persona_id(engine: int) -> None:
    listening = Behaviour(0.5, (Term(1.0, VECTOR),))
    persona = Persona(BASE, {"listening": listening}, Combine.of("add"), engine=engine)
    text = (
        f'{{"base":"{BASE}","behaviours":{{"listening":{{"modules":null,"terms":[[1,"{VECTOR}"]],"weight":0.5}}}},'
        f'"combine":{{"method":"add"}},"engine":{engine},'
        '"output":{"dtype":"base","rounding":"stochastic","seed":0},"schema":1}'
    )
    assert persona.to_bytes() == text.encode()
    assert persona.id == PERSONA[engine]
    assert hashlib.sha256(b"pv:persona:1\n" + text.encode()).hexdigest() == PERSONA[engine]


@pytest.mark.parametrize("engine", ENGINES)
def test_build_id(engine: int) -> None:
    persona = PERSONA[engine]
    assert ids.build_id(persona, engine) == BUILD[engine]
    assert hashlib.sha256(f'pv:build:1\n["{persona}",{engine}]'.encode()).hexdigest() == BUILD[engine]


def test_kinds_never_meet() -> None:
    assert len({TENSOR, BASE, VECTOR, VECTOR_OPTIONS, *PERSONA.values(), *BUILD.values()}) == 8


@pytest.mark.parametrize(
    "text",
    ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "../" + "a" * 61, None, 5, b"a" * 64],
)
def test_only_64_hex_digits_are_an_id(text: object) -> None:
    assert not ids.is_id(text)
    with pytest.raises(FormatError):
        ids.check_id(text, "it")
