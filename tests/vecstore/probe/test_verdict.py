from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.errors import FormatError
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.error_rate import Calibration, error_rate_words
from pv.vecstore.probe.values import read
from pv.vecstore.probe.verdict import Evidence, Point, Thresholds, Verdict, band_of, heads_needed, verdict

LINES = Thresholds()


def share(mean: float, around: float = 0.02) -> Interval:
    return Interval(mean, mean - around, mean + around, 24)


def evidence(core: float = 0.9, half: float = 0.95, around: float = 0.02) -> Evidence:
    """Localized as it stands: 100 heads, a core of 10."""
    curve = (
        Point(1, share(0.1)),
        Point(10, share(core, around)),
        Point(50, share(half)),
        Point(100, share(1.0)),
    )
    return Evidence(100, 12, share(3.0), share(0.0), curve, share(0.8), tuple(0.01 * i for i in range(20)))


def test_localized() -> None:
    found = verdict(evidence())
    assert found.kind == "localized"
    assert found.thresholds == LINES
    assert "the top 10 heads recover 90 % (88 to 92), random ones up to 19 %" in found.reasons
    assert "12 of 100 heads changed by more than noise" in found.reasons


@pytest.mark.parametrize("low", [-0.1, 0.0])
def test_a_shift_that_may_be_0_settles_nothing(low: float) -> None:
    found = verdict(replace(evidence(), shift=Interval(1.0, low, 2.0, 24)))
    assert found.kind == "inconclusive"
    assert found.reasons[0].startswith("the shift may be 0")


@pytest.mark.parametrize(
    ("mean", "kind"), [(0.25, "localized"), (0.24, "inconclusive"), (-0.24, "inconclusive")]
)
def test_a_small_shift_is_none_however_sure(mean: float, kind: str) -> None:
    found = verdict(replace(evidence(), shift=Interval(mean, mean - 0.01, mean + 0.01, 24)))
    assert found.kind == kind
    assert kind == "localized" or found.reasons[0].startswith("the shift is below 0.25 nats")


def test_a_shift_down_is_a_shift() -> None:
    assert verdict(replace(evidence(), shift=Interval(-1.0, -2.0, -0.5, 24))).kind == "localized"


@pytest.mark.parametrize(
    ("mean", "around", "kind"),
    [
        (0.6, 0.05, "mostly MLP"),
        (0.55, 0.05, "inconclusive"),
        (0.6, 0.2, "inconclusive"),
        (0.5, 0.1, "localized"),
    ],
)
def test_what_mlps_alone_carry_comes_first(mean: float, around: float, kind: str) -> None:
    assert verdict(replace(evidence(), mlp=share(mean, around))).kind == kind


def test_a_model_without_mlps_is_judged_too() -> None:
    assert verdict(replace(evidence(), mlp=None)).kind == "localized"


@pytest.mark.parametrize(
    ("core", "kind"), [(0.83, "localized"), (0.81, "inconclusive"), (0.79, "inconclusive")]
)
def test_the_line_of_localized(core: float, kind: str) -> None:
    assert verdict(evidence(core)).kind == kind


@pytest.mark.parametrize(("lost", "kind"), [(0.5, "localized"), (0.49, "inconclusive")])
def test_a_core_that_is_not_needed_is_none(lost: float, kind: str) -> None:
    found = verdict(replace(evidence(), lost=share(lost)))
    assert found.kind == kind
    assert any(reason.startswith(f"without them {100 * lost:.0f} %") for reason in found.reasons)


def test_a_core_that_carries_it_is_one_however_many_heads_moved() -> None:
    assert verdict(replace(evidence(), beyond=100)).kind == "localized"


def test_hierarchically_distributed_below_the_line_of_localized() -> None:
    found = verdict(replace(evidence(0.5, 0.7), beyond=80))
    assert found.kind == "hierarchically distributed"
    assert verdict(replace(evidence(0.5, 0.7), beyond=10)).kind == "inconclusive"


@pytest.mark.parametrize(
    ("around", "kind"),
    [(0.19, "hierarchically distributed"), (0.21, "inconclusive"), (0.32, "inconclusive")],
)
def test_a_core_must_surely_be_on_its_side_of_every_line(around: float, kind: str) -> None:
    found = verdict(replace(evidence(0.5, 0.7, around), beyond=80))
    assert found.kind == kind
    assert (around > 0.19) == ("that is on both sides of 30 %" in found.reasons)
    assert (around > 0.31) == ("that is not surely more than random ones" in found.reasons)


def test_a_core_must_be_above_random_sets_on_their_own_rows() -> None:
    assert verdict(replace(evidence(), beside=share(0.2))).kind == "localized"
    assert verdict(replace(evidence(), beside=share(0.19))).kind == "inconclusive"


def test_random_sets_that_are_mostly_the_core_are_no_null() -> None:
    assert verdict(replace(evidence(), overlap=0.5)).kind == "localized"
    found = verdict(replace(evidence(), overlap=0.51))
    assert found.kind == "inconclusive" and "there is no null" in found.reasons[-1]


@pytest.mark.parametrize(
    ("core", "half", "kind"),
    [
        (0.19, 0.7, "distributed"),
        (0.19, 0.8, "distributed"),
        (0.19, 0.9, "inconclusive"),
        (0.27, 0.8, "distributed"),
        (0.29, 0.8, "inconclusive"),
        (0.33, 0.7, "hierarchically distributed"),
    ],
)
def test_distributed(core: float, half: float, kind: str) -> None:
    """Below what a core carries, 0.3, and 80 % takes half of the heads or more."""
    assert verdict(replace(evidence(core, half), beyond=80)).kind == kind


def test_heads_that_carry_little_together_settle_nothing() -> None:
    """Wherever that little is: what is elsewhere may be anything."""
    for core in (0.0, 0.1, 0.29):
        found = replace(
            evidence(core, 0.29), curve=(Point(10, share(core)), Point(100, share(0.3))), beyond=80
        )
        said = verdict(replace(found, rest=share(0.6)))
        assert said.kind == "inconclusive"
        assert said.reasons[-1].startswith(
            "all heads together recover only 30 % (28 to 32), and all but the heads 60 %"
        )


def test_a_hierarchy_may_be_asked_to_carry_more() -> None:
    found = replace(evidence(0.4, 0.7), beyond=80)
    assert verdict(found, Thresholds(hierarchical=0.38)).kind == "hierarchically distributed"
    assert verdict(found, Thresholds(hierarchical=0.43)).kind == "distributed"


def test_nothing_grafted_is_inconclusive() -> None:
    assert verdict(replace(evidence(), random=())).kind == "inconclusive"
    assert verdict(replace(evidence(), curve=())).kind == "inconclusive"


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=60))
def test_the_band_is_one_of_the_draws_and_few_are_above(random: list[float]) -> None:
    band = band_of(random, 0.975)
    assert band in random
    assert sum(one > band for one in random) <= 0.025 * len(random)


def test_heads_needed_lies_on_the_line_between_points() -> None:
    curve = (Point(10, share(0.2)), Point(20, share(0.6)), Point(40, share(1.0)))
    assert heads_needed(curve, 0.8) == pytest.approx(30)
    assert heads_needed(curve, 0.1) == pytest.approx(5)
    assert heads_needed(curve, 1.1) is None


def test_a_verdict_comes_back_from_json() -> None:
    found = verdict(evidence(), Thresholds(mlp=0.4))
    assert read(Verdict, found.to_json()) == found
    with pytest.raises(FormatError):
        read(Verdict, {**found.to_json(), "kind": "everywhere"})


def test_the_error_rate_is_of_verdicts_that_say_something() -> None:
    assert error_rate_words(Calibration("", "", {})) == "error rate: not calibrated"
    counts = {
        "localized": {"localized": 9, "inconclusive": 2},
        "distributed": {"distributed": 8, "hierarchically distributed": 1, "localized": 2},
    }
    made = Calibration("SmolLM2", "benchmarks", counts)  # type: ignore[arg-type]
    assert made.error_rate is not None
    assert (made.error_rate.n, round(made.error_rate.mean * 20), made.runs, made.inconclusive) == (
        20,
        3,
        22,
        2,
    )
    assert "3 of 20 verdicts" in error_rate_words(made)
    assert "2 of 22 inconclusive" in error_rate_words(made)
