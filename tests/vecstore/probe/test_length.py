"""A ladder is searched by bisection, what holds is the smallest that does the same, and bits are Shannon's."""

from __future__ import annotations

import json

import pytest

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.length import KINDS, Baseline, Length, Rung, ideal_bytes, next_rung
from pv.vecstore.probe.values import read

FULL = Interval(10.0, 8.0, 12.0, 24)


def rung(encoding: str, size: int, low: float, more: float = 0.0) -> Rung:
    kept = Interval(low + 0.02, low, low + 0.04, 24)
    lost = Interval(more, more - 0.001, more + 0.001, 24)
    return Rung(encoding, encoding.partition(":")[0], size, FULL, kept, lost, None)


@pytest.mark.parametrize("first", range(10))
def test_the_first_rung_that_does_is_found_in_four_tries(first: int) -> None:
    ladder = KINDS["lowrank"]
    tried: dict[str, bool] = {}
    while (one := next_rung(ladder, tried)) is not None:
        assert one not in tried
        tried[one] = ladder.index(one) >= first
    good = [ladder.index(one) for one, does in tried.items() if does]
    assert len(tried) <= 4 and (min(good) if good else len(ladder)) == first


def test_the_smallest_keeps_and_does_no_more_damage() -> None:
    rungs = (
        rung("int8", 900, 0.99),
        rung("lowrank:16", 300, 0.951),
        rung("lowrank:8", 200, 0.94),
        rung("sparse:0.1", 100, 0.97, more=0.02),
        rung("ternary", 250, 0.96, more=0.01),
    )
    found = Length("pirate", 1000, 2000, FULL, rungs, (Baseline("a vector", 10.0, None),))
    best = found.smallest()
    assert best is not None and best.encoding == "ternary"
    assert rungs[3].damages and not rungs[3].holds and not rungs[2].keeps
    lowrank = found.smallest("lowrank")
    assert lowrank is not None and lowrank.encoding == "lowrank:16" and found.smallest("sparse") is None
    assert read(Length, json.loads(json.dumps(found.to_json()))) == found


def test_no_certain_effect_keeps_nothing() -> None:
    assert not Rung("int8", "int8", 1, FULL, None, None, None).holds


def test_ideal_bytes() -> None:
    assert ideal_bytes(800, 0.5, 1) == pytest.approx(100 + 50)
    assert ideal_bytes(800, 1.0, 16) == 1600
    assert ideal_bytes(800, 0.0, 16) == 0
    assert ideal_bytes(100_000, 0.01, 16) < 100_000 * 2 * 0.02
