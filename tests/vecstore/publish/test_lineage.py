"""A figure is shown with what it is of: which vector, which rows, how many, how far the run got."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.provenance import (
    Captured,
    Derived,
    Extracted,
    Imported,
    Pairs,
    Trained,
    TrainingData,
    Unknown,
    read,
)
from pv.vecstore.data.overlap import Overlap
from pv.vecstore.publish.lineage import brief, extent, lineage, losses, measured, original, ran, taught
from pv.vecstore.publish.words import FEW, Effect, caveats, effect, effect_name
from pv.vecstore.train.options import Extent, TrainOptions

A, B = "a" * 64, "b" * 64
EFFECT = {"mean": 1.5, "low": 1.25, "high": 1.75}
SCORE: dict[str, Any] = {"data": "x.heldout.jsonl", "n": 30, "effect": EFFECT, "overlap": Overlap().to_json()}
OPTIONS = {"optimizer": "apollo", "epochs": 2, "batch": 8, "lr": 1e-4, "max_steps": 4, "seed": 0}
RUN = Trained(TrainingData("x.jsonl", A, 67), OPTIONS, {"steps": 4}, (5.5, 4.5), 99, held_out=SCORE)


def test_a_run_that_was_cut_short_says_so() -> None:
    assert lineage(RUN) == (
        "trained on 32 of 67 rows of x.jsonl, 4 of 18 steps (--max-steps 4), 0.48 epochs, apollo, lr 0.0001, "
        "batch 8, seed 0"
    )
    assert losses(RUN) == "loss 5.500 at step 1, 4.500 at step 4"
    whole = Trained(RUN.data, OPTIONS, {"steps": 18}, (5.5, 2.5), 99)
    assert (taught(whole), ran(whole)[:18]) == ("trained on 67 rows of x.jsonl", "18 steps, 2 epochs")
    stopped = Trained(RUN.data, {**OPTIONS, "max_steps": None}, {"steps": 9}, None, 99)
    assert ran(stopped).startswith("9 of 18 steps (stopped), 1 epoch, ") and losses(stopped) == ""
    once = Trained(RUN.data, OPTIONS, {"steps": 1}, (5.5, 5.5), 9)
    assert losses(once) == "loss 5.500 at step 1"


def test_where_a_steering_vector_came_from() -> None:
    made = Extracted("mean", "last", Pairs("data/formal.jsonl", A, 20))
    assert lineage(made) == "extracted by mean from 20 pairs of formal.jsonl, read at last"
    assert brief(made) == "extracted from formal.jsonl"
    assert (
        lineage(Extracted("pca", "last", Pairs("x", A, 1)))
        == "extracted by pca from 1 pair of x, read at last"
    )
    assert lineage(Imported("gguf", "dir/happy.gguf")) == "imported from happy.gguf (gguf)"
    assert brief(Imported("gguf", "dir/happy.gguf")) == "imported from happy.gguf"


@given(st.integers(1, 200), st.integers(1, 4), st.integers(1, 40), st.integers(1, 30))
def test_an_extent_is_what_the_batches_had(rows: int, epochs: int, batch: int, most: int) -> None:
    from pv.vecstore.train.batches import batches

    options = TrainOptions(epochs=epochs, batch=batch, max_steps=most)
    steps = options.steps(rows)
    seen = [i for one in batches(rows, options, steps) for i in one]
    found = Extent.of(rows, epochs, batch, steps)
    assert found.rows_seen == len(set(seen)) and found.epochs == len(seen) / rows
    assert (found.steps, found.planned) == (steps, TrainOptions(epochs=epochs, batch=batch).steps(rows))


@pytest.mark.parametrize("settings", [{}, {"steps": None}, {"steps": "4"}, {"steps": True}, {"steps": -1}])
def test_a_run_of_which_less_is_noted(settings: dict[str, Any]) -> None:
    old = Trained(RUN.data, OPTIONS, settings, (5.5, 4.5), 99)
    assert extent(old) is None
    assert lineage(old).startswith("trained on 67 rows of x.jsonl, 2 epochs, apollo")
    assert losses(old) == "loss 5.500 at step 1, 4.500 at the last"


def test_an_effect_belongs_to_the_vector_that_was_measured() -> None:
    own = {"data": "h6.jsonl", "effect": {"mean": 1, "low": 0.5, "high": 1.25, "n": 30}, "vectors": 1}
    kept = {"mean": 0.75, "low": 0.5, "high": 0.875, "n": 30}
    packed = Derived(A, "ternary", 0.6, 0.1, RUN, {**own, "kept": kept}, original_vector=A)
    assert measured(packed) == (
        "in this encoding: held-out effect +1.00 [+0.50, +1.25] nats, 95 %, n=30 (h6.jsonl); "
        "0.750 [0.500, 0.875] of that before",
    )
    (before,) = original(packed)
    assert before == (
        "held-out effect +1.50 [+1.25, +1.75] nats, 95 %, n=30 (x.heldout.jsonl), of aaaaaaaaaaaa, before compression"
    )
    assert lineage(packed).endswith("; kept as ternary")
    together = Derived(A, "ternary", 0.6, 0.1, RUN, {**own, "vectors": 2, "kept": None})
    assert measured(together)[0].startswith("in this encoding of 2 vectors together: held-out effect +1.00")


def test_an_effect_that_was_not_measured_is_not_given() -> None:
    lossy = Derived(A, "int8", 0.6, 0.1, RUN)
    assert measured(lossy) == ("effect not measured in this encoding",)
    assert original(lossy)[0].endswith(
        ", of the first vector, before compression"
    )  # as older versions noted it
    exact = Derived(A, "float:fp32", 0.0, 0.0, RUN)
    assert measured(exact) == ("effect: that of aaaaaaaaaaaa, which has exactly these numbers",)
    assert original(Derived(A, "int8", 0.6, 0.1, Captured("run"))) == ()
    assert measured(Captured("run")) == measured(Unknown()) == ()


def test_rows_that_were_trained_on_are_no_held_out_rows() -> None:
    three = Overlap(3, 0, (1, 2, 3))
    words, notes = effect({**SCORE, "overlap": three.to_json()}) or ("", ())
    assert "held-out" not in words and words.startswith("effect on rows of which 3 are training rows +1.50")
    assert notes == ("3 of 30 rows are training rows (lines 1, 2, 3): this is not a held-out effect",)
    assert effect_name(Overlap(0, 3, (1, 2, 3))) == effect_name(None) == "held-out effect"
    one = caveats(30, Overlap(0, 1, (7,), ("brief",)))
    assert one == (
        "1 of 30 prompts occurs in training, with another chosen answer (line 7)",
        "not compared with the training rows of brief, which are not in the registry",
    )
    assert caveats(30, Overlap(40, 0, tuple(range(1, 11))))[0].count(" and 30 more)") == 1


def test_where_there_is_one_line_for_all_it_has_the_caveats() -> None:
    few = {**SCORE, "n": FEW - 1, "overlap": Overlap(6, 1, (1, 2)).to_json(), "vectors": 2}
    found = Effect.read(few)
    assert found is not None and Effect.read(SCORE) is not None
    assert found.brief() == " (of 2 vectors together; 6 training rows; 1 prompt of training; n too small)"
    unknown = Effect.read({**SCORE, "overlap": Overlap(1, 2, (), ("brief",)).to_json()})
    assert unknown is not None
    assert unknown.brief() == " (1 training row; 2 prompts of training; training rows of brief not here)"
    plain = Effect.read(SCORE)
    assert plain is not None and plain.brief() == ""


def test_few_rows_are_said_to_be_few() -> None:
    assert caveats(FEW, None) == caveats(None, None) == ()
    assert caveats(FEW - 1, None) == (f"n={FEW - 1} is too few for an interval to be trusted",)


def test_what_older_versions_noted_reads_as_before() -> None:
    """No overlap in the score, no id of the first vector."""
    old = read(
        {
            "kind": "derived",
            "derived_from": B,
            "encoding": "sparse:0.1",
            "error": {"max_abs": 0.1, "relative_l2": 0.5},
            "original": {**RUN.to_json(), "held_out": {k: v for k, v in SCORE.items() if k != "overlap"}},
        }
    )
    assert isinstance(old, Derived) and old.original_vector is None
    assert "original_vector" not in old.to_json()
    assert original(old)[0].startswith("held-out effect +1.50")


@pytest.mark.parametrize(
    "score",
    [
        {},
        {"effect": None},
        {"effect": {"mean": "1"}},
        {"effect": {**EFFECT, "low": float("nan")}},
        {"effect": 1.5},
    ],
)
def test_a_score_in_another_form_is_no_score(score: dict[str, Any]) -> None:
    assert effect(score) is None
