"""What a sweep says of its cells: what is broken and by what, where text breaks, and what is suggested."""

from __future__ import annotations

import pytest
from support.sweeps import LOOP, SAID, made_sweep, measured

from pv.registry.errors import UsageError
from pv.vecstore.evaluate.broken import broken, broken_share, surely_above
from pv.vecstore.evaluate.statistics import share
from pv.vecstore.evaluate.steering_sweep import Measured, Place, cell_of, halves, suggested
from pv.vecstore.models.generate import Reply

PLACE = Place("model.layers.3", 3)


def test_empty_and_looping_replies_are_broken() -> None:
    assert broken(LOOP) and broken(Reply(" \n", (5,), "stop")) and not broken(SAID)
    assert not broken(Reply("long", tuple(range(48)), "length"))  # cut, but saying something
    found = broken_share([LOOP, SAID, SAID, SAID])
    assert found is not None and (found.mean, found.n) == (0.25, 4)
    assert broken_share([]) is None


@pytest.mark.parametrize(
    ("after", "before", "above"),
    [(0, 0, False), (3, 0, False), (4, 0, True), (12, 0, True), (12, 10, False), (6, 6, False)],
)
def test_more_broken_for_certain(after: int, before: int, above: bool) -> None:
    assert surely_above(share(after, 12), share(before, 12)) is above


def test_newcombe_agrees_with_his_table() -> None:
    """56 of 70 against 48 of 80: the lower end is 0.0524 (method 10)."""
    one, other = share(56, 70), share(48, 80)
    below = ((one.mean - one.low) ** 2 + (other.high - other.mean) ** 2) ** 0.5
    assert one.mean - other.mean - below == pytest.approx(0.0524, abs=5e-5)
    assert surely_above(one, other)
    assert not surely_above(None, other) and not surely_above(one, None)


@pytest.mark.parametrize(
    ("lost", "loops", "by"),
    [
        (0.1, 0, ()),
        (0.1, 3, ()),
        (0.1, 5, ("replies",)),
        (0.6, 0, ("damage",)),
        (0.6, 12, ("replies", "damage")),
    ],
)
def test_broken_by(lost: float, loops: int, by: tuple[str, ...]) -> None:
    cell = cell_of(PLACE, 2.0, "b", 0.1, measured(3, lost, loops), measured())
    assert cell.broken_by == by and cell.is_broken is bool(by)
    assert cell.cost is not None and cell.cost.mean == pytest.approx(lost, rel=0.2)


def test_rows_that_move_the_wrong_way() -> None:
    before = measured()
    assert cell_of(PLACE, 1.0, "b", 0.1, measured(3), before).against.mean == 0
    assert cell_of(PLACE, -1.0, "b", 0.1, measured(3), before).against.mean == 1
    assert cell_of(PLACE, -1.0, "b", 0.1, measured(-3), before).against.mean == 0
    nothing = cell_of(PLACE, 1.0, "b", 0.1, before, before)
    assert nothing.against.mean == nothing.effect.mean == 0 and nothing.effect.verdict == "inconclusive"


def test_the_halves_share_no_row() -> None:
    for n in (4, 5, 20):
        one, other = (range(n)[part] for part in halves(n))
        assert [*one, *other] == list(range(n)) and min(len(one), len(other)) >= 2


def test_other_rows_are_refused() -> None:
    after, before = measured(1), measured()
    fewer = Measured(after.margins, type(after.neutral)(*(getattr(after.neutral, k)[:4] for k in (
        "opening", "rest", "end", "opening_tokens", "rest_tokens", "end_tokens", "kl", "text"))), [])  # fmt: skip
    with pytest.raises(UsageError, match="same rows"):
        cell_of(PLACE, 1.0, "b", 0.1, fewer, before)


def test_suggestion_and_breaks() -> None:
    found = made_sweep()
    assert list(found.coefficients) == [-2, -1, 0.5, 1, 2, 4, 8]
    assert [p.layer for p in found.places] == [3, 9, 15, 21, 27]
    assert found.suggestion is not None
    cell = found.suggestion.cell
    fit = [c for c in found.cells if not c.is_broken and c.cost is not None and c.cost.mean <= 0.05]
    assert cell in fit and cell.first.mean == max(c.first.mean for c in fit)
    assert found.suggestion.to_json()["effect"]["mean"] == cell.second.mean
    assert {(one.place.layer, one.sign, one.words) for one in found.breaks if one.cell} == {
        (9, 1, "8 (damage)"), (15, 1, "8 (replies, damage)")
    }  # fmt: skip
    assert len(found.breaks) == 10
    assert suggested(found.cells, 0.0) is None or suggested(found.cells, 0.0) != found.suggestion
    assert suggested([c for c in found.cells if c.coefficient < 0], 1.0) is None
    with pytest.raises(KeyError):
        found.cell("model.layers.4", 1)


def test_a_dearer_limit_suggests_more() -> None:
    cheap, dear = (suggested(made_sweep().cells, limit) for limit in (0.01, 0.4))
    assert cheap is not None and dear is not None
    assert cheap.cell.first.mean < dear.cell.first.mean and not dear.cell.is_broken


def test_names_of_places() -> None:
    assert PLACE.words == "3"
    assert Place("model.layers.3.mlp", 3).words == "model.layers.3.mlp"
    assert Place("lm_head", None).words == "lm_head"
