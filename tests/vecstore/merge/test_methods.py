"""The combine rules against a scalar reference, and the laws that the engine promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.merging import combine

from pv.registry.combine import METHODS, Combine
from pv.registry.errors import PvError, UsageError
from pv.vecstore.merge.methods import KERNELS, check_weights
from pv.vecstore.tensors.arithmetic import apply, scaled_sum

f32 = np.float32
ADD = Combine.of("add")


def _ties(**options: Any) -> Combine:
    return Combine.of("ties", **options)


def _array(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def _bits(x: np.ndarray) -> list[int]:
    found: list[int] = x.view(np.uint32).tolist()
    return found


def _normal(seed: int, size: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, np.float32) * f32(scale)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**40), max_value=2.0**40)
COARSE = st.integers(-4, 4).map(float)  # many equal magnitudes, zeros and cancellations
WEIGHTS = st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.1, 0.5, 1.0, 3.0])


def _same_size(values: Any, most: int = 4) -> Any:
    """One to `most` (weight, list) pairs whose lists have one length."""
    return st.integers(1, 12).flatmap(
        lambda n: st.lists(
            st.tuples(WEIGHTS, st.lists(values, min_size=n, max_size=n)), min_size=1, max_size=most
        )
    )


# ------------------------------------------------------------------------------------------- add


@given(_same_size(FINITE))
def test_add_is_the_left_fold_in_the_order_given(pairs: list[tuple[float, list[float]]]) -> None:
    got = scaled_sum([(w, _array(values)) for w, values in pairs])
    expected = []
    for i in range(got.size):
        total = f32(0)
        for w, values in pairs:
            if w != 0:
                total = f32(total + f32(f32(w) * f32(values[i])))
        expected.append(total)
    assert _bits(got) == _bits(np.array(expected, np.float32))
    assert _bits(combine(ADD, [(w, _array(values)) for w, values in pairs])) == _bits(got)


def test_order_is_the_callers_and_matters() -> None:
    big, small = _array([2.0**24]), _array([1.0])
    assert scaled_sum([(1, big), (1, small), (1, small)])[0] == 2.0**24
    assert scaled_sum([(1, small), (1, small), (1, big)])[0] == 2.0**24 + 2


@given(_same_size(st.integers(-1000, 1000).map(float)), st.sampled_from([-4.0, -1.0, 0.5, 2.0]))
def test_add_is_linear_where_nothing_rounds(pairs: list[tuple[float, list[float]]], factor: float) -> None:
    exact = [(float(round(w * 8)) / 8, _array(values)) for w, values in pairs]
    total = scaled_sum(exact)
    assert np.array_equal(scaled_sum([(w * factor, d) for w, d in exact]), total * f32(factor))
    assert np.array_equal(scaled_sum([(w, d * f32(factor)) for w, d in exact]), total * f32(factor))
    parts = [scaled_sum([pair]) for pair in exact]
    assert np.array_equal(sum(parts, np.zeros_like(total)), total)
    assert not scaled_sum([*exact, *((-w, d) for w, d in exact)]).any()


def test_a_coefficient_is_rounded_to_fp32_once() -> None:
    # 1 + 2^-30 is 1 in fp32; a product taken in fp64 would keep the difference
    assert scaled_sum([(1 + 2**-30, _array([3.0])), (-1, _array([3.0]))])[0] == 0
    assert scaled_sum([(0.1, _array([3.0]))])[0] == f32(0.1) * f32(3)


def test_no_fused_multiply_add() -> None:
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: rounded before the sum, the last bit is gone
    x = f32(1 + 2**-12)
    n = 40_000  # enough for every vector loop
    total = scaled_sum([(-1, np.full(n, f32(1 + 2**-11))), (float(x), np.full(n, x))])
    assert not total.any()


def test_blocks_leave_no_seam() -> None:
    a, b = _normal(0, 200_001), _normal(1, 200_001)
    assert np.array_equal(scaled_sum([(0.3, a), (-1.7, b)]), a * f32(0.3) + b * f32(-1.7))
    k = 70_000
    # the trim depends on the whole tensor, so compare at density 1, where it does not
    loose = _ties(density=1.0)
    whole = combine(loose, [(1, a), (1, b)])
    part = combine(loose, [(1, a[k : 2 * k]), (1, b[k : 2 * k])])
    assert np.array_equal(whole[k : 2 * k], part)


# ------------------------------------------------------------------------------------- both rules

RULES = [
    ADD,
    *(
        _ties(density=density, elect=elect, merge=merge)
        for density in (0.4, 1.0)
        for elect in ("weighted", "unweighted")
        for merge in ("sum", "mean", "weighted_mean")
    ),
]


def _signed(rule: Combine, weight: float) -> float:
    return abs(weight) if rule.options.get("merge") == "weighted_mean" else weight


@given(pairs=_same_size(COARSE), rule=st.sampled_from(RULES), at=st.integers(0, 3))
def test_weight_zero_is_absence(pairs: list[tuple[float, list[float]]], rule: Combine, at: int) -> None:
    operands = [(_signed(rule, w), _array(v)) for w, v in pairs if w != 0]
    size = len(pairs[0][1])
    ghost = (0.0, _normal(7, size, 100))
    if operands:
        with_ghost = [*operands[:at], ghost, *operands[at:]]
        assert _bits(combine(rule, with_ghost)) == _bits(combine(rule, operands))
    assert _bits(combine(rule, [ghost])) == [0] * size


@given(pairs=_same_size(FINITE, most=3), rule=st.sampled_from(RULES))
def test_a_negative_weight_is_the_negated_delta(
    pairs: list[tuple[float, list[float]]], rule: Combine
) -> None:
    if rule.options.get("merge") == "weighted_mean":
        return
    straight = combine(rule, [(w, _array(v)) for w, v in pairs])
    mirrored = combine(rule, [(-w, -_array(v)) for w, v in pairs])
    assert _bits(straight) == _bits(mirrored)


@given(pairs=_same_size(FINITE, most=3), rule=st.sampled_from(RULES), power=st.integers(-60, 60))
def test_there_is_no_absolute_scale(
    pairs: list[tuple[float, list[float]]], rule: Combine, power: int
) -> None:
    # Magnitudes stay among the normal numbers, where a power of two changes no rounding.
    deltas = [np.where(np.abs(d) < 2**-20, f32(0), d) for d in (_array(v) for _, v in pairs)]
    weights = [_signed(rule, w) for w, _ in pairs]
    plain = combine(rule, [(w, d) for w, d in zip(weights, deltas, strict=True)])
    scale = f32(2.0**power)
    scaled = combine(rule, [(w, d * scale) for w, d in zip(weights, deltas, strict=True)])
    assert np.array_equal(scaled, plain * scale)


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), 1e39])
def test_a_weight_beyond_fp32_is_refused(weight: float) -> None:
    for rule in (ADD, _ties()):
        with pytest.raises(UsageError, match="finite single-precision"):
            combine(rule, [(weight, _array([1.0]))])


def test_misshapen_operands_are_a_defect() -> None:
    with pytest.raises(PvError, match="nothing to combine"):
        combine(ADD, [])
    for wrong in (np.zeros(3, np.float64), np.zeros((2, 1), np.float32), np.zeros(4, np.float32)):
        with pytest.raises(PvError, match="flat fp32 arrays of one size"):
            scaled_sum([(1, np.zeros(2, np.float32)), (1, wrong)])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="'mix'"):
        combine(Combine("mix", {}), [(1, _array([1.0]))])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_an_empty_tensor(rule: Combine) -> None:
    assert combine(rule, [(1, np.empty(0, np.float32))]).shape == (0,)


# ------------------------------------------------------------------------------------------- ties


def _reference(rule: Combine, operands: list[tuple[float, list[float]]]) -> list[np.float32]:
    """TIES one scalar at a time, from the definition."""
    options = rule.options
    n = len(operands[0][1])
    k = max(1, int(options["density"] * n))
    present = []
    for factor, values in operands:
        if factor != 0:
            delta = [f32(v) if factor > 0 else -f32(v) for v in values]
            order = sorted(range(n), key=lambda i: (-abs(delta[i]), i))
            present.append((f32(abs(factor)), [d if i in order[:k] else f32(0) for i, d in enumerate(delta)]))
    out = []
    for i in range(n):
        ballot = f32(0)
        for w, delta in present:
            ballot = f32(ballot + (f32(w * delta[i]) if options["elect"] == "weighted" else delta[i]))
        sign = 1 if ballot >= 0 else -1
        total, count, weight = f32(0), f32(0), f32(0)
        for w, delta in present:
            if delta[i] * sign > 0:
                total, count, weight = f32(total + f32(w * delta[i])), f32(count + 1), f32(weight + w)
        divisor = {"sum": f32(1), "mean": count, "weighted_mean": weight}[options["merge"]]
        merged = total / divisor if divisor else total
        out.append(f32(merged * f32(options["lambda"])))
    return out


@given(
    pairs=_same_size(st.one_of(COARSE, FINITE.filter(lambda v: v == 0 or abs(v) > 2**-60))),
    density=st.sampled_from([0.05, 0.29, 0.5, 1.0]),
    elect=st.sampled_from(["weighted", "unweighted"]),
    merge=st.sampled_from(["sum", "mean", "weighted_mean"]),
    scale=st.sampled_from([1.0, 0.3, -1.0]),
)
def test_ties_is_its_definition(
    pairs: list[tuple[float, list[float]]], density: float, elect: str, merge: str, scale: float
) -> None:
    rule = _ties(density=density, elect=elect, merge=merge, **{"lambda": scale})
    pairs = [(_signed(rule, w), values) for w, values in pairs]
    got = combine(rule, [(w, _array(values)) for w, values in pairs])
    assert got.tolist() == [float(x) for x in _reference(rule, pairs)]


def test_the_trim_keeps_exactly_k_and_the_first_of_equals() -> None:
    n = 150_000
    delta = np.tile(_array([1.0, -1.0, 1.0]), n // 3)  # one magnitude all over, across several blocks
    delta[120_000] = 5
    kept = np.flatnonzero(combine(_ties(density=0.5), [(1, delta)]))
    assert kept.tolist() == [*range(n // 2 - 1), 120_000]
    one = np.flatnonzero(combine(_ties(density=1e-9), [(1, delta)]))
    assert one.tolist() == [120_000]
    distinct = _normal(4, n)
    largest = np.sort(np.argsort(-np.abs(distinct), kind="stable")[: n // 5])
    assert np.array_equal(np.flatnonzero(combine(_ties(density=0.2), [(1, distinct)])), largest)


def test_election_by_weight_and_without() -> None:
    operands = [(0.1, _array([3.0])), (1.0, _array([-2.0]))]
    assert combine(_ties(density=1.0, elect="unweighted", merge="sum"), operands)[0] == f32(0.1) * f32(3)
    assert combine(_ties(density=1.0, elect="weighted", merge="sum"), operands)[0] == -2


def test_an_undecided_element_elects_plus() -> None:
    for sign in (1, -1):
        operands = [(1, _array([2.0 * sign])), (1, _array([-2.0 * sign]))]
        assert combine(_ties(density=1.0), operands)[0] == 2


def test_a_negated_behaviour_votes_the_other_way() -> None:
    operands = [(1, _array([1.0])), (-1, _array([3.0]))]
    for elect in ("weighted", "unweighted"):
        assert combine(_ties(density=1.0, elect=elect), operands)[0] == -3


def test_merge_divides_by_count_or_by_weight() -> None:
    operands = [(2, _array([1.0])), (1, _array([4.0])), (1, _array([-1.0]))]
    results = {m: combine(_ties(density=1.0, merge=m), operands)[0] for m in ("sum", "mean", "weighted_mean")}
    assert results == {"sum": 6, "mean": 3, "weighted_mean": 2}


def test_a_negative_weight_under_weighted_mean_is_refused_by_name() -> None:
    rule = _ties(preset="mergekit", density=0.5)
    with pytest.raises(UsageError, match=r"-0\.5: ties with merge=weighted_mean") as caught:
        combine(rule, [(1, _array([1.0])), (-0.5, _array([1.0]))])
    assert caught.value.hint is not None
    with pytest.raises(UsageError, match="'listening' is -1"):
        check_weights(rule, {"concise": 1.0, "listening": -1.0})
    check_weights(rule, {"concise": 1.0, "listening": 0.0})
    check_weights(_ties(), {"listening": -1.0})
    check_weights(ADD, {"listening": -1.0})


def test_presets() -> None:
    assert _ties(preset="mergekit").options["density"] == 1.0
    assert _ties(preset="peft") == _ties(elect="unweighted", merge="mean")
    assert _ties(preset="mergekit", density=0.5).options["density"] == 0.5
    assert _ties(preset="paper") == _ties(trim="model", undecided="none")
    with pytest.raises(UsageError, match="nope") as caught:
        _ties(preset="nope")
    assert caught.value.hint is not None
    with pytest.raises(UsageError, match="no preset 'peft'"):
        Combine.of("add", preset="peft")


def test_a_method_is_a_row_and_a_kernel_of_one_name() -> None:
    assert METHODS.keys() == KERNELS.keys()
    for name, kernel in KERNELS.items():
        assert kernel.__name__.rpartition(".")[2] == kernel.NAME == name
        rule = Combine.of(name)
        assert rule.options.keys() == {option.name for option in METHODS[name].options}
        assert combine(rule, [(1.0, _array([1, -2]))]).dtype == np.float32
        for preset in METHODS[name].presets:
            assert Combine.of(name, preset=preset).options.keys() == rule.options.keys()


@pytest.mark.parametrize("payload", [0x7F800001, 0xFFC12345])
def test_every_nan_ranks_alike_and_agrees_with_no_sign(payload: int) -> None:
    nan, first = np.array([payload, 0x7F800001], np.uint32).view(np.float32)
    delta = np.array([first, 1, nan, 2], np.float32)
    assert combine(_ties(density=0.75), [(1, delta)]).tolist() == [0, 0, 0, 2]
    # One place for two NaNs: the first gets it whatever its payload, so the second spoils no election.
    other = _array([1, 1, 9, 1])
    assert combine(_ties(density=0.25), [(1, delta), (1, other)]).tolist() == [0, 0, 9, 0]


# ------------------------------------------------------------------------------------------ apply


def test_apply_is_one_addition() -> None:
    base, delta = _normal(0, 100_001), _normal(1, 100_001, 1e-4)
    before = base.copy(), delta.copy()
    assert np.array_equal(apply(base, delta), base + delta)
    assert np.array_equal(base, before[0])
    assert np.array_equal(delta, before[1])


def test_an_untouched_element_keeps_its_very_bits() -> None:
    base = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32)  # NaNs among them
    base[:4] = [0x80000000, 0, 0x7F800001, 0xFF800000]
    for zero in (0.0, -0.0):
        assert np.array_equal(apply(base.view(np.float32), np.full(100_000, f32(zero))).view(np.uint32), base)


def test_signed_zeros_and_nans_that_arise() -> None:
    base = np.array([1, -1, np.inf, -np.inf, np.nan, 1, -0.0], np.float32)
    delta = np.array([-1, 1, -np.inf, np.inf, 1, -np.nan, 0.5], np.float32)
    assert _bits(apply(base, delta)) == [0, 0, 0x7FC00000, 0x7FC00000, 0x7FC00000, 0x7FC00000, 0x3F000000]


def test_subnormals_survive() -> None:
    least = np.array([1], np.uint32).view(np.float32)
    assert _bits(apply(least, least)) == [2]
    assert _bits(scaled_sum([(3, least), (-1, least)])) == [2]
