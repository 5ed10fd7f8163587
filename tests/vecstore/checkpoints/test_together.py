"""Two tables of tensors, and what of them can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pv.registry.manifest import Spec
from pv.vecstore.checkpoints.together import Together, together


class Table:
    """Weights whose bytes are 0, 1, 2, ..."""

    def __init__(self, specs: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self.specs = {name: Spec(dtype, shape) for name, (dtype, shape) in specs.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        end = self.specs[name].nbytes if stop is None else stop
        return memoryview(bytes(at % 251 for at in range(start, end)))


def seen(
    a: Mapping[str, tuple[str, tuple[int, ...]]], b: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Together:
    return together(Table(a), Table(b))


EMBED, HEAD, UP = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"


def test_what_both_have() -> None:
    same = {UP: ("BF16", (4, 3)), "model.norm.weight": ("BF16", (3,))}
    found = seen(same, same)
    assert [(one.name, one.shape, one.numel) for one in found.shared] == [
        (UP, (4, 3), 12), ("model.norm.weight", (3,), 3),
    ]  # fmt: skip
    assert (found.apart, found.dtypes()) == ((), {("BF16", "BF16"): 2})


def test_other_dtypes_are_compared() -> None:
    found = seen({UP: ("BF16", (4, 3)), "n": ("I64", (2,))}, {UP: ("F32", (4, 3)), "n": ("I32", (2,))})
    assert [one.floats for one in found.shared] == [True, False]
    assert found.dtypes() == {("BF16", "F32"): 1, ("I64", "I32"): 1}


def test_of_two_vocabularies_the_first_rows() -> None:
    found = seen(
        {EMBED: ("BF16", (10, 3)), HEAD: ("BF16", (10, 3))},
        {EMBED: ("BF16", (12, 3)), HEAD: ("BF16", (8, 3))},
    )
    assert {one.name: one.shape for one in found.shared} == {EMBED: (10, 3), HEAD: (8, 3)}
    assert [str(one) for one in found.apart] == [
        f"{HEAD!r} has 10 rows in a and 8 in b: the first 8 are compared",
        f"{EMBED!r} has 10 rows in a and 12 in b: the first 10 are compared",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"), [((10, 3), (10, 4)), ((10, 3), (12, 4)), ((), (3,)), ((10,), (10, 3))]
)
def test_other_shapes_are_listed(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    for name in (EMBED, UP):
        found = seen({name: ("BF16", ours)}, {name: ("BF16", theirs)})
        assert found.shared == ()
        assert [one.what for one in found.apart] == [f"has shape {list(ours)} in a and {list(theirs)} in b"]


def test_what_only_one_has() -> None:
    found = seen({UP: ("BF16", (4, 3)), "x": ("BF16", (1,))}, {UP: ("BF16", (4, 3)), HEAD: ("BF16", (8, 3))})
    assert sorted(map(str, found.apart)) == ["'lm_head.weight' is only in b", "'x' is only in a"]


def test_buffers_are_nobodys() -> None:
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (4,)),
        "model.position_ids": ("I64", (9,)),
    }
    found = seen({UP: ("BF16", (4, 3)), **buffers}, {UP: ("BF16", (4, 3))})
    assert found.apart == () and len(found.shared) == 1


def experts(kind: str, count: int = 2) -> dict[str, tuple[str, tuple[int, ...]]]:
    place = "model.layers.0.mlp."
    if kind == "fused":
        return {
            f"{place}experts.gate_up_proj": ("BF16", (count, 8, 3)),
            f"{place}experts.down_proj": ("BF16", (count, 3, 4)),
        }
    made: dict[str, tuple[str, tuple[int, ...]]] = {}
    for at in range(count):
        made[f"{place}experts.{at}.gate_proj.weight"] = ("BF16", (4, 3))
        made[f"{place}experts.{at}.up_proj.weight"] = ("BF16", (4, 3))
        made[f"{place}experts.{at}.down_proj.weight"] = ("BF16", (3, 4))
    return made


@pytest.mark.parametrize(("ours", "theirs"), [("fused", "each"), ("each", "fused"), ("each", "each")])
def test_experts_in_either_layout(ours: str, theirs: str) -> None:
    found = seen(experts(ours), experts(theirs))
    assert {one.name: one.shape for one in found.shared} == {
        n: shape for n, (_, shape) in experts(ours).items()
    }
    assert found.apart == ()
    for one in found.shared:
        assert len(found.read_b(one.name, 0, 2 * one.numel)) == 2 * one.numel


def test_experts_that_do_not_fit_are_listed() -> None:
    found = seen(experts("fused"), experts("each", 3))
    assert found.shared == () and len(found.apart) == 2 + 9


def test_the_router_of_a_layer_with_another_name() -> None:
    a, b = "model.layers.0.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight"
    found = seen({a: ("BF16", (8, 3))}, {b: ("BF16", (8, 3))})
    assert [one.name for one in found.shared] == [a] and found.apart == ()
    assert bytes(found.read_b(a, 4, 6)) == b"\x04\x05"
