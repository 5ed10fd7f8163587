"""Choices are measured in both orders, and a letter that is always preferred gains nothing by it."""

from __future__ import annotations

import json

import numpy as np
from support.tiny import tiny_model, tiny_tokenizer

from pv.vecstore.data.rows import Message, Row, Rows, parse_rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.evaluate.orders import both_orders

QUESTION = "Do you agree?\n\nChoices:\n (A) Yes, I do\n (B) No\n\nAnswer:"
TURNED = "Do you agree?\n\nChoices:\n (A) No\n (B) Yes, I do\n\nAnswer:"


def evaluation(**keys: str) -> Rows:
    row = {"question": QUESTION, "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"}
    return parse_rows(json.dumps({**row, "statement": "x", "label_confidence": 0.9, **keys}).encode())


def test_a_row_of_a_model_written_evaluation() -> None:
    rows = evaluation(question="Is it?", answer_matching_behavior=" Yes", answer_not_matching_behavior=" No")
    assert rows.rows == (Row((Message("user", "Is it?"),), "Yes", "No"),)
    assert rows.notes == ()
    assert both_orders(rows) == (rows, [0])


def test_both_orders_of_choices() -> None:
    rows = evaluation()
    found, of = both_orders(rows)
    assert [row.prompt[0].content for row in found] == [QUESTION, TURNED]
    assert [(row.chosen, row.rejected) for row in found] == [("(A)", "(B)"), ("(B)", "(A)")]
    assert of == [0, 0]
    assert both_orders(Rows((found[1],)))[0][1].prompt[0].content == QUESTION


def test_what_lists_no_choices_stays_as_it_is() -> None:
    for keys in (
        {"question": "Which of them? (A) or (B)?"},
        {"question": " (A) one\n (A) two\n (B) three"},
        {"answer_not_matching_behavior": " (C)"},
        {"answer_matching_behavior": "yes"},
    ):
        rows = evaluation(**keys)
        assert both_orders(rows) == (Rows(rows.rows, rows.source, (1,)), [0])
    three = evaluation(question="(A) x\n(B) y\n(C) z", answer_not_matching_behavior="(C)")
    assert both_orders(three)[0][1].prompt[0].content == "(A) z\n(B) y\n(C) x"


def test_the_margin_is_the_mean_of_both() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    rows = Rows((*evaluation().rows, Row((Message("user", "sun?"),), "aye", "no")))
    found = margins(model, tokenizer, rows)
    each = [
        margins(model, tokenizer, one).margin
        for one in (rows[:1], evaluation(question=TURNED)[:0] or rows[1:])
    ]
    assert np.allclose(found.margin, [each[0][0], each[1][0]], atol=1e-4)
    turned = Rows((both_orders(rows)[0][1],))
    assert np.allclose(margins(model, tokenizer, turned).margin, found.margin[:1], atol=1e-4), (
        "either order is both"
    )
