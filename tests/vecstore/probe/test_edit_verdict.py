"""Transfer to paraphrases: which row a paraphrase is of, the paired interval, and the claim."""

from __future__ import annotations

import numpy as np
import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.row import Message, Row, Rows
from pv.vecstore.probe.edit_verdict import by_row, claimed, originals, scale_for, transfer

NAMES = ("the trained change", "the edit")


def rows(*prompts: str, answers: str = "abcdefgh") -> Rows:
    return Rows(
        tuple(
            Row((Message("user", p),), f"yes {a}", f"no {a}") for p, a in zip(prompts, answers, strict=False)
        )
    )


def test_a_paraphrase_is_of_the_row_with_its_answers() -> None:
    held = rows("one", "two", "three")
    assert originals(rows("drei", "eins", answers="ca"), held) == [2, 0]
    with pytest.raises(DataError, match="re-words none of them"):
        originals(rows("vier", answers="d"), held)
    with pytest.raises(DataError, match="the prompt is that of the held-out row"):
        originals(rows("one"), held)


def test_paraphrases_of_a_row_are_averaged() -> None:
    which, means = by_row([1.0, 3.0, 10.0], [4, 4, 2])
    assert which == [2, 4]
    assert means.tolist() == [10.0, 2.0]


def test_transfer_is_a_ratio_with_a_paired_interval() -> None:
    original = np.random.default_rng(0).uniform(5, 15, 40)
    found = transfer(0.5 * original, original)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert transfer(original, original - 10) is None


@pytest.mark.parametrize(("broad", "narrow", "verdict"), [
    (0.9, 0.4, "held"), (0.4, 0.9, "did not hold"), (0.7, 0.7, "inconclusive"),
])  # fmt: skip
def test_the_claim_is_told(broad: float, narrow: float, verdict: str) -> None:
    random = np.random.default_rng(1)
    first, second = random.uniform(5, 15, (2, 40))
    noise = random.standard_normal((2, 40))
    found = claimed((broad * first + noise[0], first), (narrow * second + noise[1], second), names=NAMES)
    assert found.verdict == verdict
    assert found.difference is not None and found.difference.n == 40


def test_without_an_effect_nothing_is_claimed() -> None:
    found = claimed((np.ones(9), np.ones(9)), (np.ones(9), np.linspace(-1, 1, 9)), names=NAMES)
    assert (found.verdict, found.difference) == ("inconclusive", None)
    assert found.why.startswith("the edit has no effect")


def test_a_strength_is_read_off_between_two() -> None:
    assert scale_for([0.5, 1, 2], [1.0, 3.0, 2.0], 2.0) == (0.75, 2.0)
    assert scale_for([0.5, 1, 2], [1.0, 3.0, 2.0], 9.0) == (1, 3.0)
    assert scale_for([2.0, 1.0], [4.0, 2.0], 1.0) == (0.5, 1.0)
