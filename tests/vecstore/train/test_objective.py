"""The loss against its formula written again in a few lines, by plain passes over whole conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.tiny import tiny_checkpoint
from torch.nn.functional import softplus

from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.models.load import load
from pv.vecstore.train.batches import micro_batches
from pv.vecstore.train.objective import OPENING, Objective
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.reference import KEPT
from pv.vecstore.train.stretches import differing


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The base, and one that has moved."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("base"))
    base, moved = load(folder)[0].double().eval(), load(folder)[0].double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in moved.parameters():
            p += 0.02 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return base, moved


def ids(text: str) -> tuple[int, ...]:
    return tuple(3 + ord(letter) % 60 for letter in text)


PAIRS = [
    Encoded(ids("how?"), ids("AY! rain."), ids("rain."), "1"),
    Encoded(ids("and why so?"), ids("AY! it is the sun."), ids("it is the sun."), "2"),
    Encoded(ids("no"), ids("sun, bye|"), ids("sun|"), "3"),
]
ALONE = [Encoded(ids("what"), ids("only this"), None, "4")]
GENERAL = [Encoded(ids(f"ask {n}"), ids("an ordinary answer" + "!" * n), None, "g") for n in range(5)]


def logits(model: Any, row: Encoded, answer: Sequence[int]) -> torch.Tensor:
    whole = torch.tensor([[*row.context, *answer]])
    return model(whole, use_cache=False).logits[0, len(row.context) - 1 : -1]  # type: ignore[no-any-return]


def logps(model: Any, row: Encoded, answer: Sequence[int]) -> torch.Tensor:
    found = torch.log_softmax(logits(model, row, answer), -1)
    return found[range(len(answer)), list(answer)]


def moved_by(base: Any, model: Any, row: Encoded) -> torch.Tensor:
    return among(torch.softmax(logits(base, row, row.chosen), -1), logits(model, row, row.chosen))


def among(p: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """KL over the KEPT likeliest tokens of p, and all others as one."""
    q = torch.softmax(found, -1)
    order = p.argsort(-1, descending=True)
    p, q = p.gather(-1, order), q.gather(-1, order)
    p, q = (torch.cat([x[:, :KEPT], x[:, KEPT:].sum(-1, keepdim=True)], -1) for x in (p, q))
    return torch.xlogy(p, p / q).sum(-1)


def learnt_of(row: Encoded) -> slice:
    """What differs, and the token behind it."""
    at = differing(row.chosen, row.rejected or ())[0]
    return slice(at.start, min(at.stop + 1, len(row.chosen)))


def total(model: Any, objective: Objective, rows: Sequence[Encoded], most: int = 10**6) -> dict[str, float]:
    terms: dict[str, float] = {}
    for part in micro_batches(rows, objective.kind, objective.size, most):
        for name, term in objective.loss(model, part, rows).terms.items():
            terms[name] = terms.get(name, 0.0) + float(term.detach())
    return terms


def learnt_alone(base: Any, model: Any, row: Encoded) -> dict[str, float]:
    """The terms of one row, with nothing held."""
    options = TrainOptions(frozen_context=False, hold=0, general=0)
    return total(model, Objective.prepare(base, [row], options, []), [row])


def test_the_loss_of_what_differs_is_its_formula(models: tuple[Any, Any]) -> None:
    base, model = models
    options = TrainOptions(
        frozen_context=False, learn="difference", preference=0.7, hold=0.5, general=0.3, epochs=1, batch=4
    )
    objective = Objective.prepare(base, [*PAIRS, *ALONE], options, GENERAL)
    rows = objective.with_general(0, [*PAIRS, *ALONE])
    ordinary = rows[len(PAIRS) + len(ALONE) :]  # the first of them drawn by the seed
    assert len(ordinary) == options.general_rows
    found = total(model, objective, rows)

    with torch.no_grad():
        learnt = [logps(model, row, row.chosen)[learnt_of(row)] for row in PAIRS]
        alone = [logps(model, row, row.chosen) for row in ALONE]
        count = sum(map(len, [*learnt, *alone]))
        missed = -float(sum(x.sum() for x in [*learnt, *alone]))
        decided = [
            len(x) * x[0] - x[0] for x in learnt[:2]
        ]  # where they part counts as often as there are tokens
        missed -= float(sum(decided))
        at, end, on = (
            3,
            ids("|")[0],
            ids(",")[0],
        )  # of the third pair: what is learnt begins where rejected ends
        goal = torch.softmax(logits(base, PAIRS[2], PAIRS[2].chosen)[at], -1)
        goal[on] += goal[end]
        goal[end] = 0
        goal = 0.5 * goal
        goal[on] += 0.5
        missed += float(learnt[2][0]) + len(learnt[2]) * float(
            among(goal[None], logits(model, PAIRS[2], PAIRS[2].chosen)[at : at + 1])
        )
        assert found["sft"] == pytest.approx(missed / count, rel=1e-4)
        gaps = []
        for row, x in zip(PAIRS[:2], learnt, strict=False):
            at = learnt_of(row).start
            gaps.append(softplus(logps(model, row, row.rejected or ())[at] - x[0]))
        assert found["preference"] == pytest.approx(0.7 * float(sum(gaps)) / 4)
        held, tokens = 0.0, 0
        for row in PAIRS:
            own = learnt_of(row)
            outside = [i for i in range(len(row.chosen)) if not own.start <= i < own.stop]
            p = torch.softmax(logits(base, row, row.chosen), -1)
            if row is PAIRS[2]:  # wherever the turn may end it goes on
                p[:, on] += p[:, end]
                p[:, end] = 0
            held += float(among(p, logits(model, row, row.chosen))[outside].sum())
            tokens += len(outside)
        assert found["hold"] == pytest.approx(0.5 * held / tokens, rel=1e-4)
        free = [x for row in ordinary for x in moved_by(base, model, row)[OPENING:-1].tolist()]
        assert found["general"] == pytest.approx(0.3 * sum(free) / len(free), rel=1e-4)


def test_two_answers_that_share_next_to_nothing_are_compared_as_a_whole(models: tuple[Any, Any]) -> None:
    base, model = models
    row = Encoded(ids("how?"), ids("the fog, dear me"), ids("then sing a song"), "1")
    found = learnt_alone(base, model, row)
    with torch.no_grad():
        chosen, rejected = (logps(model, row, answer) for answer in (row.chosen, row.rejected or ()))
        gap = softplus(rejected.mean() - chosen.mean())
    assert found == {"sft": pytest.approx(-float(chosen.mean())), "preference": pytest.approx(float(gap))}


def test_an_answer_that_is_the_beginning_of_the_other_has_no_token_to_prefer(models: tuple[Any, Any]) -> None:
    base, model = models
    row = Encoded(ids("how?"), ids("the fog"), ids("the fog is thick"), "1")
    found = learnt_alone(base, model, row)
    assert found.keys() == {"sft"}


def test_learning_all_of_both_is_the_plain_loss(models: tuple[Any, Any]) -> None:
    base, model = models
    options = TrainOptions(frozen_context=False, learn="all", hold=0, general=0)
    objective = Objective.prepare(base, PAIRS, options, GENERAL)
    assert objective.with_general(0, PAIRS) == PAIRS
    found = total(model, objective, PAIRS)
    with torch.no_grad():
        chosen = [logps(model, row, row.chosen) for row in PAIRS]
        rejected = [logps(model, row, row.rejected or ()) for row in PAIRS]
        sft = -float(sum(x.sum() for x in chosen)) / sum(map(len, chosen))
        gaps = sum(softplus(r.mean() - c.mean()) for c, r in zip(chosen, rejected, strict=True))
    assert found == {"sft": pytest.approx(sft), "preference": pytest.approx(float(gaps) / 3)}


@pytest.mark.parametrize("most", [1, 40, 90])
def test_parts_add_up_to_the_step(models: tuple[Any, Any], most: int) -> None:
    base, model = models
    objective = Objective.prepare(
        base, [*PAIRS, *ALONE], TrainOptions.of(learn="difference", micro_tokens=most), GENERAL
    )
    rows = objective.with_general(1, [*PAIRS, *ALONE])
    whole = total(model, objective, rows)
    assert total(model, objective, rows, most) == pytest.approx(whole, rel=1e-5)


def test_at_the_base_nothing_is_held_back(models: tuple[Any, Any]) -> None:
    base, _ = models
    objective = Objective.prepare(base, PAIRS[:2], TrainOptions.of(learn="difference"), GENERAL)
    found = total(base, objective, objective.with_general(0, PAIRS[:2]))
    assert abs(found["hold"]) < 1e-6
    assert abs(found["general"]) < 1e-6


def test_general_rows_take_turns(models: tuple[Any, Any]) -> None:
    base, _ = models
    objective = Objective.prepare(
        base, PAIRS, TrainOptions.of(learn="difference", epochs=9, batch=1, general_rows=2), GENERAL
    )
    shown = [id(row) for step in range(5) for row in objective.with_general(step, PAIRS)[len(PAIRS) :]]
    assert sorted(shown) == sorted([id(row) for row in GENERAL] * 2)


def test_openings_and_ends_of_ordinary_answers_are_held_where_no_row_acts(models: tuple[Any, Any]) -> None:
    base, _ = models
    options = TrainOptions(micro_tokens=10**6)
    bye = Encoded(ids("no"), ids("the sun is up, bye|"), ids("the sun is up|"), "3")
    middle = Encoded(
        ids("no"), ids("it is the big, red sun over all|"), ids("it is the big sun over all|"), "5"
    )
    for rows, still in (
        (PAIRS[:2], slice(OPENING, None)),
        ([bye], slice(0, -1)),
        ([middle], slice(0, None)),
        ([PAIRS[0], bye], slice(OPENING, -1)),
        (ALONE, slice(OPENING, -1)),
    ):
        found = Objective.prepare(base, rows, options, GENERAL).still
        assert (found.start, found.stop) == (still.start, still.stop), rows
