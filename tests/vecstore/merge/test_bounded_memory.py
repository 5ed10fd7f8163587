"""What a build holds at a time: pieces, whatever the method, the number of vectors and the size of a tensor."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import array, base_at, behaviour, nudged, persona, random_f32, save, store

from pv.registry.combine import METHODS, Combine
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.align import align
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.merge.columns import Columns
from pv.vecstore.merge.compute import compute
from pv.vecstore.merge.delta import delta, place
from pv.vecstore.merge.methods import KERNELS
from pv.vecstore.merge.plan import plan
from pv.vecstore.merge.room import SHARED
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.mergekit.folders import BaseItself, FolderBase, FolderVector, Trimmed, unread
from pv.vecstore.native.library import numpy_only
from pv.vecstore.tensors.arithmetic import apply
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.derive import EncodingSpec
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.pieces import PIECE
from pv.vecstore.vectors.vector import open_vector

NAME = "model.layers.0.mlp.up_proj.weight"
SHAPE = (1400, 1531)  # 2 million: several pieces, and rows that no piece ends with
SIZE = SHAPE[0] * SHAPE[1]
LONG = (3000, 1531)  # 18 MB in fp32, of which a decoder holds a chunk of a million elements
MOST = 32 << 20  # one tensor in fp32 is 9 MB, eight and the base 77, and 39 as they are read
OTHERS = SHARED.left - (10 << 20)  # room that other threads have
OPTIONS: Mapping[str, dict[str, Any]] = {
    "sce": {"select_topk": 0.3}, "ties": {"density": 0.3}, "nuslerp": {"of": "models"}, "dare": {"elect": "weighted"},
}  # fmt: skip

Vectors = Mapping[str, VectorSource]


def asked(method: str, base: BaseSource, vectors: Vectors) -> Persona:
    """As many of the vectors as the method takes."""
    most = getattr(KERNELS[method], "COUNT", (0, None))[1] or len(vectors)
    behaviours = {f"b{n}": behaviour(0.5, v) for n, v in enumerate([*vectors][:most])}
    return persona(base, behaviours, Combine.of(method, **OPTIONS.get(method, {})))  # type: ignore[arg-type]


def built(one: Persona, base: BaseSource, vectors: Vectors) -> tuple[bytes, int]:
    """What is made of the tensor, and how many bytes were in use at a time besides."""
    made = bytearray(2 * SIZE)
    at = 0

    def write(data: memoryview) -> None:
        nonlocal at
        made[at : at + len(data)] = data
        at += len(data)

    tracemalloc.start()
    try:
        with SHARED.without(OTHERS):
            compute(one, base, {v: vectors[v] for v in one.vectors}, NAME, "BF16", write)
        return bytes(made), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FolderBase, list[FolderVector]]]:
    at = tmp_path_factory.mktemp("folders")
    tensors = {NAME: array(NAME, "BF16", *SHAPE)}
    opened, vectors = [Checkpoint(save(at / "base", tensors))], []
    base = FolderBase("./base", unread(opened[0].specs, "base"), opened[0])
    for n in range(8):
        opened.append(Checkpoint(save(at / f"m{n}", nudged(tensors, 4 + n))))
        aligned = align(opened[-1], unread(opened[0].specs, "base", apart=True))
        vectors.append(FolderVector.of(f"./m{n}", f"{n:064x}", base, aligned))
    yield base, vectors
    for one in opened:
        one.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_build_holds_pieces(folders: tuple[FolderBase, list[FolderVector]], method: str) -> None:
    """Eight models take no more than the bound that two keep to; and pieces give what whole tensors give."""
    base, vectors = folders
    _, few = built(asked(method, base, {v.id: v for v in vectors[:2]}), base, {v.id: v for v in vectors[:2]})
    one = asked(method, base, {v.id: v for v in vectors})
    made, many = built(one, base, {v.id: v for v in vectors})
    assert few < MOST
    assert many < MOST
    own = base.tensor(NAME)
    added = delta(one, {v.id: v for v in vectors if v.id in one.vectors}, NAME, own)
    assert added is not None
    rounded = round_to(
        apply(own.f32, added), "BF16", one.output.rounding, seed=one.output.seed, name=NAME, start=0
    )
    assert made == rounded.tobytes()


def test_there_is_room_for_a_tensor_or_there_is_not(
    folders: tuple[FolderBase, list[FolderVector]],
) -> None:
    """All of it is kept, or it is read again; and room that was taken is there for the next."""
    base, vectors = folders
    of, free, nbytes = {v.id: v for v in vectors[:2]}, SHARED.left, 3 * 2 * SIZE
    operands = plan(asked("ties", base, of), {v: {NAME} for v in of}, NAME)

    def is_kept(columns: Columns) -> bool:
        first, again = ([piece.deltas[0].values.raw for piece in columns.pieces()] for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        return all(np.shares_memory(a, b) for a, b in zip(first, again, strict=True))

    columns = Columns(base, NAME, operands, of)
    assert is_kept(columns)
    assert SHARED.left == free - nbytes
    del columns
    assert SHARED.left == free
    with SHARED.without(free - nbytes + 1):
        assert not is_kept(Columns(base, NAME, operands, of))
        assert SHARED.left == nbytes - 1


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "sce"])
def test_a_trim_without_compiled_loops(folders: tuple[FolderBase, list[FolderVector]], method: str) -> None:
    base, vectors = folders
    of = {v.id: v for v in vectors[:3]}
    one = asked(method, base, of)
    compiled, _ = built(one, base, of)
    with numpy_only():
        plain, held = built(one, base, of)
    assert plain == compiled
    assert held < MOST


def test_what_stands_in_for_a_vector_comes_in_pieces(
    folders: tuple[FolderBase, list[FolderVector]],
) -> None:
    base, (vector, *_) = folders
    own = base.tensor(NAME)
    stand_ins: tuple[VectorSource, ...] = (
        Trimmed(vector, {NAME: 0.2}),
        *(BaseItself.of("f" * 64, base, times=times) for times in (0, 1)),
    )
    for one in stand_ins:
        whole, pieces, at = one.tau(NAME, own), one.pieces(NAME), 0
        for size in (5000, 4096, SIZE - 9096):
            part = pieces.next(own.raw[at : at + size])
            widened = part if pieces.dtype == "F32" else (part.astype(np.uint32) << 16).view(np.float32)
            assert np.array_equal(widened, whole[at : at + size])
            at += size
    assert place(own).shape == SHAPE


@pytest.mark.parametrize("asked_for", ["float", "int8", "ternary", "sparse:0.1", "lowrank:4"])
def test_every_encoding_is_decoded_in_pieces(tmp_path: Path, asked_for: str) -> None:
    """tau, bit for bit, without all of it at a time."""
    spec = EncodingSpec.parse(asked_for)
    packs = store(tmp_path)
    with base_at(save(tmp_path / "base", {NAME: array(NAME, "BF16", *LONG)})) as base:
        deltas = {NAME: random_f32("delta", math.prod(LONG))}
        made = encode_vector(deltas, base.manifest, packs, encoding=spec.encoding, options=spec.options)
        with open_vector(made.id, base, packs) as vector:
            wanted, own = vector.tau(NAME), base.tensor(NAME)
            found = np.empty(math.prod(LONG), np.float32)
            tracemalloc.start()
            try:
                pieces = vector.pieces(NAME)
                for start in range(0, math.prod(LONG), PIECE):
                    part = pieces.next(own.raw[start : start + PIECE])
                    if pieces.dtype == "BF16":
                        part = (part.astype(np.uint32) << 16).view(np.float32)
                    found[start : start + len(part)] = part
                held = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert found.tobytes() == wanted.tobytes()
            assert held < 4 * math.prod(LONG)
