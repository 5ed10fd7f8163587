"""Tasks: right answers by likelihood, and whether a persona has fewer of them than its base."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from support.tiny import CONTEXT, tiny_model, tiny_tokenizer

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import encode_prompt
from pv.vecstore.data.questions import Question, Questions
from pv.vecstore.data.row import Message
from pv.vecstore.evaluate.tasks import LEAD, Answers, answers, own_questions, tasks


def question(asked: str, choices: str, answer: int, task: str = "t") -> Question:
    return Question((Message("user", asked),), tuple(choices.split("|")), answer, task)


SOME = Questions(
    (
        question("What is cold?", "Ice|Fire and flame|Soup", 0),
        question("What is wet?", "Sand|Water", 1),
        question("1 + 1?", "3|2|4", 1, "sums"),
        question("Where is the sea, if one may ask?", "Up|Here|There and everywhere", 2),
        question("2 + 2?", "4|5|7", 0, "sums"),
    )
)


def changed(size: float = 0.05) -> Any:
    import torch

    model = tiny_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)
    return model


def of(*margins: float) -> Answers:
    return Answers(np.array(margins), np.array(margins) / 2)


def test_margins_are_what_the_model_gives_to_each_choice_behind_what_begins_the_reply() -> None:
    import torch

    model, tokenizer = changed(), tiny_tokenizer()
    found = answers(model, tokenizer, SOME, batch=2)
    for i, one in enumerate(SOME):
        start = [*encode_prompt(tokenizer, one.prompt), *tokenizer(LEAD)["input_ids"]]
        sums, means = [], []
        for choice in one.choices:
            said = tokenizer(f" {choice}")["input_ids"]
            ids = torch.tensor([[*start, *said]])
            with torch.no_grad():
                logps = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
            each = [float(logps[len(start) + k - 1, token]) for k, token in enumerate(said)]
            sums.append(sum(each))
            means.append(sum(each) / len(each))
        for logps_, margin in ((sums, found.margin[i]), (means, found.margin_per_token[i])):
            right = logps_.pop(one.answer)
            assert margin == pytest.approx(right - max(logps_), abs=1e-4)


def test_the_batch_and_the_mode_change_nothing() -> None:
    model, seen = tiny_model().train(), []
    one = answers(
        model, tiny_tokenizer(), SOME, batch=1, progress=lambda done, total: seen.append((done, total))
    )
    assert model.training and seen == [(i + 1, 5) for i in range(5)]
    assert np.allclose(one.margin, answers(model.eval(), tiny_tokenizer(), SOME).margin, atol=1e-4)


def test_the_order_of_choices_changes_nothing() -> None:
    turned = Questions((question("What is cold?", "Soup|Fire and flame|Ice", 2), *SOME[1:]))
    a, b = (answers(changed(), tiny_tokenizer(), one) for one in (SOME, turned))
    assert np.allclose(a.margin, b.margin, atol=1e-4)


def test_a_model_is_no_worse_than_itself() -> None:
    found = tasks(SOME, *[answers(tiny_model(), tiny_tokenizer(), SOME)] * 2)
    assert [one.task for one in found.parts] == ["t", "sums"] and found.questions_id == SOME.id
    for one in found.parts:
        for change in (one.accuracy_change, one.margin_change, one.margin_change_per_token):
            assert (change.mean, change.low, change.high) == (0, 0, 0)
        assert one.accuracy == one.base_accuracy and not one.worse


def test_shares_and_changes_are_of_each_task() -> None:
    t, sums = tasks(SOME, of(1, -1, 2, -3, 0), of(1, 1, -2, 1, -1)).parts
    assert t.accuracy.mean == pytest.approx(1 / 3) and t.accuracy.n == 3
    assert t.base_accuracy.mean == 1
    assert t.accuracy_change.mean == pytest.approx(-2 / 3) and t.margin_change.mean == pytest.approx(-2)
    assert t.margin_change_per_token.mean == pytest.approx(-1)
    assert not t.worse, "two of three are too few to say"
    assert (sums.accuracy.mean, sums.base_accuracy.mean) == (0.5, 0), "a tie is not right"
    assert t.to_json()["n"] == 3 and set(t.to_json()["margin"]) == {"mean", "low", "high"}


def test_worse_is_the_whole_interval() -> None:
    many = Questions(tuple(question(str(i), "a|b", 0) for i in range(40)))
    right = np.ones(40)
    for lost, worse in ((1, False), (10, True)):
        after = np.where(np.arange(40) < lost, -1.0, 1.0)
        (part,) = tasks(many, Answers(after, after), Answers(right, right)).parts
        assert part.worse is worse and part.accuracy_change.mean == pytest.approx(-lost / 40)


def test_other_questions_and_numbers_that_are_none() -> None:
    with pytest.raises(UsageError, match="same questions"):
        tasks(SOME, of(1, 2), of(1, 2, 3, 4, 5))
    with pytest.raises(UsageError, match="not finite"):
        tasks(SOME, of(1, 2, float("nan"), 4, 5), of(1, 2, 3, 4, 5))
    with pytest.raises(DataError, match="the model's context holds"):
        long = Questions((question("x" * CONTEXT, "a|b", 0), *SOME[1:]), "long.jsonl")
        answers(tiny_model(), tiny_tokenizer(), long)


def test_a_model_without_a_chat_template() -> None:
    assert np.isfinite(answers(tiny_model(), tiny_tokenizer(chat_template=None), SOME).margin).all()


# pv's own


def test_pvs_own_questions_are_well_formed() -> None:
    own = own_questions()
    assert Counter(one.task for one in own) == {"knowledge": 60, "arithmetic": 60} and not own.notes
    assert len({one.prompt[0].content for one in own}) == 120
    for one in own:
        (asked,) = one.prompt
        assert asked.content.endswith("?") and len(one.choices) == 4
        folded = [choice.casefold() for choice in one.choices]
        assert len(set(folded)) == 4
        for a in folded:
            assert not any(b != a and b.startswith(a) for b in folded), (
                "the beginning of another is likelier than it"
            )


def test_positions_are_balanced() -> None:
    for task in own_questions().tasks:
        places = Counter(one.answer for one in own_questions() if one.task == task)
        assert places == {0: 15, 1: 15, 2: 15, 3: 15}


def test_no_answer_is_told_by_its_length() -> None:
    """Of numbers all have as many digits; of texts the right one is not often the longest or the shortest."""
    lengths = [[len(choice) for choice in one.choices] for one in own_questions()]
    for one, length in zip(own_questions(), lengths, strict=True):
        if one.task == "arithmetic":
            assert len(set(length)) == 1 and all(choice.isdigit() for choice in one.choices)
    known = [(n, q.answer) for n, q in zip(lengths, own_questions(), strict=True) if q.task == "knowledge"]
    for extreme in (max, min):
        assert sum(n[right] == extreme(n) and n.count(extreme(n)) == 1 for n, right in known) <= 30


def test_the_sums_are_right() -> None:
    sums = 0
    for one in own_questions():
        if found := re.fullmatch(r"What is (\d+) ([-+x/]) (\d+)\?", one.prompt[0].content):
            a, b = int(found[1]), int(found[3])
            right = {"+": a + b, "-": a - b, "x": a * b, "/": a / b}[found[2]]
            assert int(one.choices[one.answer]) == right
            sums += 1
    assert sums == 30
