"""The sums of a diff of checkpoints, against plain numpy; heads and spectra of what moved."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import array, random_f32, values

from pv.registry.errors import UsageError
from pv.vecstore.merge.heads import HeadCount
from pv.vecstore.merge.module_class import CLASSES, module_class
from pv.vecstore.merge.movement import BLOCK, Sums, measure, total
from pv.vecstore.merge.spectrum import EXACT, SHOWN, Spectrum, spectrum
from pv.vecstore.tensors.array import F32

DTYPES = st.sampled_from(["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"])


@given(DTYPES, DTYPES, st.sampled_from([0, 1, 7, 100, BLOCK, BLOCK + 3]), st.integers(0, 9))
def test_it_is_what_numpy_says(first: str, second: str, size: int, seed: int) -> None:
    a, b = array("a", first, size, seed=seed), array("b", second, size, seed=seed)
    found = measure(a.raw, first, b.raw, second)
    x, y = values(a), values(b)
    step = (y - x).astype(np.float64)
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    assert (found.elements, found.changed) == (size, int(np.count_nonzero(x != y)))
    for value, wanted in (
        (found.step2, step**2),
        (found.a2, wide_x**2),
        (found.b2, wide_y**2),
    ):
        assert value == pytest.approx(math.fsum(wanted.tolist()), rel=1e-12)
    assert found.ab == pytest.approx(math.fsum((wide_x * wide_y).tolist()), rel=1e-9, abs=1e-12)
    assert found.largest == float(np.abs(step).max(initial=0))


@given(st.integers(1, 300), st.lists(st.integers(0, 300), max_size=4))
def test_parts_add_up(size: int, cuts: list[int]) -> None:
    a, b = array("a", "BF16", size), array("b", "BF16", size, seed=2)
    ends = sorted({0, size, *(cut for cut in cuts if cut < size)})
    parts = [measure(a.raw[low:high], "BF16", b.raw[low:high], "BF16") for low, high in pairwise(ends)]
    whole, found = measure(a.raw, "BF16", b.raw, "BF16"), total(parts)
    assert (found.elements, found.changed, found.largest) == (whole.elements, whole.changed, whole.largest)
    assert found.step2 == pytest.approx(whole.step2, rel=1e-12)
    assert found.cosine == pytest.approx(whole.cosine, rel=1e-9, abs=1e-12)


def test_the_same_bits_do_not_move() -> None:
    a = array("a", "F16", 99)
    found = measure(a.raw, "F16", a.raw, "F16")
    assert (found.changed, found.step2, found.largest) == (0, 0, 0)
    assert found.cosine == pytest.approx(1)
    assert total([]) == Sums() and Sums().cosine == 0


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(odd: float) -> None:
    a, b = random_f32("a", 10), random_f32("b", 10)
    b[3] = odd
    found = total([measure(x.view(np.uint32), "F32", y.view(np.uint32), "F32") for x, y in ((a, b), (a, a))])
    assert not found.finite and math.isfinite(found.a2)
    assert not math.isfinite(found.largest) and not math.isfinite(found.step2)


# Modules


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("transformer.wte.weight", "embeddings"),
        ("transformer.wpe.weight", "embeddings"),
        ("lm_head.weight", "head"),
        ("model.layers.3.self_attn.q_proj.weight", "attention"),
        ("model.layers.3.self_attn.q_proj.bias", "attention"),
        ("model.layers.3.self_attn.q_norm.weight", "norms"),
        ("transformer.h.0.attn.c_proj.weight", "attention"),
        ("transformer.h.0.mlp.c_proj.weight", "mlp"),
        ("transformer.h.0.ln_1.bias", "norms"),
        ("transformer.ln_f.weight", "norms"),
        ("model.layers.3.post_attention_layernorm.weight", "norms"),
        ("model.layers.3.input_layernorm.weight", "norms"),
        ("model.norm.weight", "norms"),
        ("model.layers.0.mlp.experts.17.gate_proj.weight", "mlp"),
        ("model.layers.0.block_sparse_moe.gate.weight", "mlp"),
        ("model.layers.0.feed_forward.w1.weight", "mlp"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "attention"),
        ("bert.encoder.layer.0.output.dense.weight", "mlp"),
        ("bert.encoder.layer.0.output.LayerNorm.weight", "norms"),
        ("model.layers.0.mixer.A_log", "other"),
    ],
)
def test_the_class_of_a_module(name: str, kind: str) -> None:
    assert module_class(name) == kind
    assert kind in CLASSES


# Heads


def test_how_many_heads_there_are() -> None:
    assert HeadCount.of(b'{"num_attention_heads": 8, "num_key_value_heads": 2}', "x") == HeadCount(8, 2)
    assert HeadCount.of(b'{"num_attention_heads": 8}', "x") == HeadCount(8, 8)
    assert HeadCount.of(b'{"text_config": {"num_attention_heads": 4}}', "x") == HeadCount(4, 4)
    bad = [None, b"", b"[]", b"{", b'{"num_attention_heads": 0}', b'{"num_attention_heads": true}', b"\xff"]
    for config in [*bad, b'{"num_attention_heads": 8, "num_key_value_heads": "2"}', b"[" * 100_000]:
        with pytest.raises(UsageError, match="how many heads x has"):
            HeadCount.of(config, "x")


def test_what_is_split() -> None:
    count = HeadCount(4, 2)
    split = {
        name: count.split(f"model.layers.0.self_attn.{name}", shape)
        for name, shape in (
            ("q_proj.weight", (16, 12)), ("k_proj.bias", (8,)), ("o_proj.weight", (12, 16)), ("o_proj.bias", (12,)),
            ("v_proj.weight", (7, 12)), ("up_proj.weight", (16, 12)), ("q_norm.weight", (4,)),
        )
    }  # fmt: skip
    counts = {name: one.count for name, one in split.items() if one is not None}
    assert counts == {"q_proj.weight": 4, "k_proj.bias": 2, "o_proj.weight": 4}


# Spectra


def dense(m: int, n: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((m, n)).astype(np.float32)


def found(step: F32) -> Spectrum:
    made = spectrum("w", step)
    assert made is not None
    return made


@pytest.mark.parametrize(("m", "n"), [(5, 40), (40, 5), (EXACT, 600), (1, 1), (1, 9)])
def test_small_spectra_are_exact(m: int, n: int) -> None:
    step = dense(m, n) * np.float32(1e-6)
    made, wanted = found(step), np.linalg.svd(step.astype(np.float64), compute_uv=False)
    assert made.exact and made.shape == (m, n)
    assert made.values == pytest.approx(wanted[:SHOWN].tolist(), rel=1e-5)
    assert made.stable_rank == pytest.approx(float((wanted**2).sum() / wanted[0] ** 2), rel=1e-4)
    assert made.energy == pytest.approx(float((wanted[:SHOWN] ** 2).sum() / (wanted**2).sum()), rel=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_large_ones_are_approximate_and_not_too_large(turned: bool) -> None:
    low = dense(700, 6, 1) @ np.diag([9, 5, 3, 2, 1, 0.5]).astype(np.float32) @ dense(6, 620, 2)
    step = low + dense(700, 620, 3)
    made = found(step.T if turned else step)
    wanted = np.linalg.svd(step.astype(np.float64), compute_uv=False)[:SHOWN]
    assert not made.exact
    assert made.values[:6] == pytest.approx(wanted[:6].tolist(), rel=1e-3)
    assert all(mine <= true * (1 + 1e-5) for mine, true in zip(made.values, wanted, strict=True))
    assert made == found(step.T if turned else step)  # the same in every run


def test_a_rank_of_one() -> None:
    made = found(np.outer(random_f32("a", 600), random_f32("b", 700)).astype(np.float32))
    assert made.stable_rank == pytest.approx(1, rel=1e-4) and made.energy == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_no_spectrum(value: float) -> None:
    assert spectrum("w", np.full((3, 4), value, np.float32)) is None
    assert spectrum("w", np.empty((0, 4), np.float32)) is None
