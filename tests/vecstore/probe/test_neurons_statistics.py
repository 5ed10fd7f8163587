"""What becomes of the claims on margins whose answer is known, and values to JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.neurons import lab, other_of
from support.tiny import tiny_model

from pv.registry.errors import FormatError
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.neurons_found import Claim, Neurons
from pv.vecstore.probe.neurons_lab import Settings, grid, measured
from pv.vecstore.probe.neurons_rank import METHODS
from pv.vecstore.probe.neurons_statistics import Resamples, claims
from pv.vecstore.probe.neurons_summary import flips_of, margin_of, scopes_of

KS = [1, 10, 100, 1000]
N = 20
DRAW = Resamples(N, 0)
NOISE = 0.05 * np.random.default_rng(0).standard_normal(N)


def rows(*means: float) -> Any:
    """(N, K) of rows about these means, or (N,) of one."""
    found = np.array([[mean * (1 + one) for mean in means] for one in NOISE])
    return found if len(means) > 1 else found[:, 0]


def judged(**changes: Any) -> dict[str, Claim]:
    """What is claimed, but for changes: half at 10, the others at 100; less and less of what is predicted."""
    given: dict[str, Any] = {
        "effects": {method: rows(0.1, 1, 4, 8) for method in METHODS} | {"delta*grad": rows(1, 4, 6, 8)},
        "predicted": rows(1, 5, 10, 20),
        "ceiling": rows(8),
        "largest": (rows(8), rows(9)),
        "low": (10, 1.0, rows(7), rows(7), rows(8)),
    }
    found = claims("all", DRAW, DRAW, KS, **(given | changes))
    return {one.name.partition(":")[0]: one for one in found}


def test_what_is_so_held() -> None:
    found = judged()
    assert [one.verdict for one in found.values()] == ["held"] * 4
    assert found["few"].figure is not None and found["few"].figure.mean == pytest.approx(
        np.log2(10), abs=1e-6
    )
    assert found["linearity"].figure is not None and found["linearity"].figure.mean < 0
    assert found["directions"].figure is not None and found["directions"].figure.mean == pytest.approx(7 / 8)


def test_what_is_not_so_did_not_hold() -> None:
    effects = {method: rows(0.1, 1, 4, 8) for method in METHODS} | {"ig": rows(4, 6, 7, 8)}
    found = judged(
        effects=effects, predicted=rows(1, 5, 5, 2), largest=(rows(9), rows(8)), low=(1, 1.0, rows(4), rows(4), rows(8))
    )  # fmt: skip
    assert [one.verdict for one in found.values()] == ["did not hold"] * 4


def test_what_is_not_settled_is_inconclusive() -> None:
    wide = 3 * np.random.default_rng(1).standard_normal(N)
    same = {method: rows(0.1, 1, 4, 8) for method in METHODS}
    found = judged(
        effects=same, largest=(wide, np.zeros(N)), ceiling=rows(8), low=(1, 1.0, 6 + wide, wide, rows(8))
    )
    assert {found[name].verdict for name in ("few", "iterative", "directions")} == {"inconclusive"}


def test_without_a_ceiling_nothing_is_said_of_its_share() -> None:
    nothing = rows(1) - 1
    found = judged(ceiling=nothing, low=(1, 1.0, rows(1), rows(1), nothing))
    assert found["few"].verdict == found["directions"].verdict == "inconclusive"
    assert found["directions"].figure is None and "no effect" in found["few"].note
    assert DRAW.half(KS, rows(1, 2, 3, 4), nothing) is None and DRAW.ratio(rows(1), nothing) is None


def test_half_of_the_ceiling_lies_between_grid_points() -> None:
    half = DRAW.half(KS, rows(0, 2, 6, 8), rows(8))
    assert half is not None and half.reached
    assert half.k == pytest.approx(10**1.5) and half.low <= half.k <= half.high
    never = DRAW.half(KS, rows(0, 1, 2, 3), rows(8))
    assert never is not None and not never.reached and never.k == pytest.approx(1000)
    at_once = DRAW.half(KS, rows(5, 6, 6, 6), rows(8))
    assert at_once is not None and at_once.k == 1


def test_a_flip_is_a_margin_above_0_of_the_likeliest_token() -> None:
    found = flips_of({"margin": [1.0, 1.0, -1.0, 0.0], "top": [1, 0, 1, 1]})
    assert found.mean == 0.25 and found.n == 4 and 0 < found.low < 0.25 < found.high


@pytest.fixture(scope="module")
def found() -> Neurons:
    model = tiny_model()
    parts = measured(lambda key, compute: compute(), lab(model, other_of(model), draws=2, steps=2))
    rows, scopes = parts["rows"], scopes_of(parts, 0)
    margins = margin_of(rows["a"], 0), margin_of(rows["b"], 0)
    flips = flips_of(rows["a"]), flips_of(rows["b"])
    return Neurons(
        "0" * 64, "base", "b", "asked.jsonl", "1" * 64, 12, 6, 4, 0, 4, 0, 2, 2, 2, (), 192, *margins, *flips,
        *scopes, ("a note",),
    )  # fmt: skip


def test_a_summary_says_what_the_parts_say(found: Neurons) -> None:
    assert [one.name for one in found.scopes] == ["layer", "late", "all"] and len(found.claims) == 8
    assert {one.scope for one in found.claims} == {"late", "all"}
    every = found.scope("all")
    assert [one.k for one in every.curve("random").points] == grid(192)
    random = every.curve("random").points[0].flips
    assert isinstance(random, float) and 0 <= random <= 1  # of two draws
    assert isinstance(every.curve("delta").points[0].flips, Interval)
    full = every.curve("delta", shared=True).points[-1]
    assert full.effect.n == 6 and every.ceiling.effect.n == 12
    assert (
        every.curve("delta*grad").points[0].linear is not None and every.curve("ig").points[0].linear is None
    )
    assert [one.name for one in found.claims_of("late")] == [
        f"{name}:late" for name in ("few", "linearity", "iterative", "directions")
    ]
    with pytest.raises(KeyError):
        found.scope("early")


def test_parts_out_of_a_record_say_the_same() -> None:
    """Its keys are sorted, its numbers are read from text."""
    model = tiny_model()
    parts = measured(lambda key, compute: compute(), lab(model, other_of(model), draws=2, steps=1))
    assert scopes_of(json.loads(json.dumps(parts, sort_keys=True)), 0) == scopes_of(parts, 0)


def test_to_json_and_back(found: Neurons) -> None:
    document = json.loads(json.dumps(found.to_json()))
    assert Neurons.from_json(document) == found


HOSTILE: dict[str, list[Any]] = {
    "n": ["12", True, 1.5, None, 10**200, []],
    "margin_a": [None, 3, {"mean": 1}, "x"],
    "margin_a.mean": ["1", math.nan, math.inf, 10**400, True, None],
    "without": [3, ["1"], None],
    "scopes": [[{}], [], None, {}],
    "scopes.0": [{}, None, 1],
    "scopes.0.name": ["early", "all", 1],
    "scopes.0.layers": [[], [0.5]],
    "scopes.1.iterative": [[], [{}]],
    "scopes.1.by_row": [[]],
    "scopes.2.by_row.0.method": ["delta", "mine", None],
    "scopes.2.by_row.0.points": [[], None],
    "scopes.2.by_row.0.points.0.flips": ["1", None, True, {}, [1]],
    "scopes.2.by_row.0.points.0.share": ["1", 1.0],
    "scopes.2.by_row.0.k50": [3, {"k": 1}],
    "scopes.2.shared.5.method": ["random"],
    "scopes.2.off_target.0.what": ["mine", 1],
    "scopes.2.overlap.0": [[1], [1, 2, 3, 4], [1.5, 0, 0]],
    "claims": [3, [3]],
    "claims.0.scope": ["early", None],
    "claims.0.verdict": ["perhaps", []],
    "claims.0.each": [[["a"]], [[1, 2]]],
    "notes": ["a note", [1]],
}


@pytest.mark.parametrize("where", HOSTILE)
def test_a_record_that_is_none(found: Neurons, where: str) -> None:
    for value in HOSTILE[where]:
        document = json.loads(json.dumps(found.to_json()))
        at: Any = document
        *way, last = (int(one) if one.isdigit() else one for one in where.split("."))
        for one in way:
            at = at[one]
        at[last] = value
        with pytest.raises(FormatError, match="is not what a probe notes"):
            Neurons.from_json(document)


@pytest.mark.parametrize("document", [None, [], 3, "x", {}])
def test_what_is_no_record_at_all(document: object) -> None:
    with pytest.raises(FormatError):
        Neurons.from_json(document)


def test_claims_of_the_best_layer_that_were_noted_once_are_left_out(found: Neurons) -> None:
    once = replace(found.claims[0], name="few:layer", scope="layer")
    assert Neurons.from_json(replace(found, claims=(once, *found.claims)).to_json()) == found


def test_what_is_well_formed_and_odd_is_drawn(found: Neurons) -> None:
    from pv.cli.probing.neurons import lines
    from pv.vecstore.publish.probe_neurons import page

    some = [*found.claims[:3], replace(found.claims[5], says="another")]
    odd = [replace(one, neurons=(), directions=(), off_target=(), overlap=()) for one in found.scopes]
    document = replace(found, scopes=tuple(odd), claims=tuple(some)).to_json()
    document["scopes"][2]["by_row"][0]["points"][0]["flips"] = 0.5
    read = Neurons.from_json(json.loads(json.dumps(document)))
    assert "4 comparisons" in "\n".join(lines(read)) and "another" in page(read)
    assert list(lines(replace(read, claims=())))


def test_the_picture_and_the_page(found: Neurons) -> None:
    from pv.vecstore.publish.probe_neurons import page, png

    assert png(found).startswith(b"\x89PNG") and png(found) == png(found)
    assert "<code>pv probe neurons base..b --data asked.jsonl</code>" in page(found)
    assert "<code>pv probe neurons b --seed 3</code>" in page(found, "pv probe neurons b --seed 3")
    strange = replace(found, a="<b>", notes=("x < y",))
    text = page(strange)
    assert "&lt;b&gt;" in text and "<b>..b" not in text and "x &lt; y" in text and "held" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_words_on_a_terminal(found: Neurons) -> None:
    from pv.cli.probing.neurons import lines

    said = "\n".join(lines(found))
    assert "12 rows of asked.jsonl" in said and "delta x gradient" in said and "inconclusive" in said
    nothing = replace(found.scope("all"), neurons=(), directions=())
    assert list(lines(replace(found, scopes=(*found.scopes[:2], nothing))))


def test_the_same_seed_the_same_intervals() -> None:
    assert Resamples(N, 1).mean(rows(1)) == Resamples(N, 1).mean(rows(1)) != Resamples(N, 2).mean(rows(1))
    assert isinstance(Resamples(N, 1).mean(rows(1)), Interval) and Settings().to_json()["draws"] == 5
