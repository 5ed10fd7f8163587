"""Damage counts what lies outside the behaviour: after the opening of plain answers, and on plain text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.tiny import CONTEXT, VOCAB, tiny_model, tiny_tokenizer

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Message, Row, Rows
from pv.vecstore.evaluate.damage import OPENING, Damage, Distributions, Neutral, damage, neutral
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.evaluate.statistics import ratio, share


def answer(prompt: str, text: str) -> Row:
    return Row((Message("user", prompt),), text)


ROWS = Rows(
    (
        answer("Why?", "Because the river runs downhill, as all rivers do."),
        answer("How?", "With a rope, a hammer and much patience, I think."),
        answer("Who?", "Ann."),
        Row((), "The harbour was quiet, and the boats lay still."),
        Row((), "Bread is flour, water, salt and time."),
    )
)


def changed(seed: int = 0, size: float = 0.02) -> Any:
    import torch

    model = tiny_model()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)
    return model


def both(after: Any, before: Any, rows: Rows = ROWS) -> tuple[Damage, Neutral, Neutral]:
    tokenizer = tiny_tokenizer()
    with Distributions() as base:
        old = neutral(before, tokenizer, rows, keep=base)
        new = neutral(after, tokenizer, rows, against=base)
    return damage(new, old), new, old


def test_a_model_does_no_damage_to_itself() -> None:
    found, _, _ = both(tiny_model(), tiny_model())
    for one in (found.answers, found.text, found.kl_answers, found.kl_text, found.opening, found.end):
        assert one is not None
        assert (one.mean, one.low, one.high) == (0, 0, 0)


def test_the_parts_are_what_the_model_gives_to_each_token() -> None:
    import torch

    model, tokenizer = changed(), tiny_tokenizer()
    found = neutral(model, tokenizer, ROWS)
    for i, row in enumerate(encode(tokenizer, ROWS, stops=(258,), limit=CONTEXT)):
        ids = torch.tensor([[*row.context, *row.chosen]])
        with torch.no_grad():
            logps = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
        each = [float(logps[at - 1, ids[0, at]]) for at in range(len(row.context), ids.shape[1])]
        first = 0 if i >= 3 else min(OPENING, len(each) - 1)
        assert found.opening[i] == pytest.approx(sum(each[:first]), abs=1e-4)
        assert found.rest[i] == pytest.approx(sum(each[first:-1]), abs=1e-4)
        assert found.end[i] == pytest.approx(each[-1], abs=1e-4)
        counts = (found.opening_tokens[i], found.rest_tokens[i], found.end_tokens[i])
        assert counts == (first, len(each) - 1 - first, 1)
    assert found.rest_tokens[2] == 0, "an answer of four tokens is all opening"
    assert found.text.tolist() == [0, 0, 0, 1, 1]


def test_damage_is_the_loss_a_token_and_kl_is_that_of_all_tokens() -> None:
    import torch

    model, before = changed(), tiny_model()
    found, new, old = both(model, before)
    assert found.answers is not None and found.kl_text is not None and found.text is not None
    lost = (old.rest - new.rest)[:2].sum() / old.rest_tokens[:2].sum()
    assert found.answers.mean == pytest.approx(lost)
    assert found.answers.n == 2 and found.text.n == 2 and found.opening is not None and found.opening.n == 3
    sums, tokens = 0.0, 0
    for row in encode(tiny_tokenizer(), ROWS[3:], stops=(258,), limit=None):
        ids = torch.tensor([[*row.context, *row.chosen]])[:, :-2]
        with torch.no_grad():
            p, q = (torch.log_softmax(m(input_ids=ids).logits[0].double(), -1) for m in (before, model))
        sums += float((p.exp() * (p - q)).sum())
        tokens += ids.shape[1]
    assert found.kl_text.mean == pytest.approx(sums / tokens, rel=1e-3)
    assert found.kl_text.low > 0


def positional(shift: float = 0.0, at: slice = slice(0)) -> Any:
    """A model whose logits depend on the token and its place alone, so that a change can be of some places only."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=32, n_layer=1, n_head=2, bos_token_id=257, eos_token_id=258
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.zero_()
        model.transformer.wpe.weight[at] += shift * torch.linspace(-1, 1, 32)
    return model


def test_what_changes_an_opening_alone_does_no_damage() -> None:
    answers = ROWS[:2]  # their prompts are of one length
    start = len(encode(tiny_tokenizer(), answers, stops=(258,), limit=None)[0].context) - 1
    opening = positional(2.0, slice(start, start + OPENING))
    found, _, _ = both(opening, positional(), answers)
    assert found.answers is not None and found.kl_answers is not None and found.opening is not None
    assert (found.answers.mean, found.answers.low, found.answers.high) == (0, 0, 0)
    assert found.kl_answers.mean == 0
    assert abs(found.opening.mean) > 0.01
    assert found.text is None, "there is none in this set"

    later, _, _ = both(positional(2.0, slice(start + OPENING, None)), positional(), answers)
    assert later.answers is not None and later.answers.mean != 0
    assert later.opening is not None and later.opening.mean == 0


def test_a_row_longer_than_the_context_is_measured_as_far_as_that_goes() -> None:
    rows = Rows((Row((), "a" * 600), Row((), "b" * 20), answer("x", "c" * 600)))
    found = neutral(tiny_model(), tiny_tokenizer(), rows)
    assert found.rest_tokens[0] == CONTEXT - 1
    assert found.end_tokens.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="the prompt alone takes"):
        neutral(tiny_model(), tiny_tokenizer(), Rows((answer("x" * 600, "y"),)))


def test_sets_that_say_nothing() -> None:
    alone = ROWS[2:4]
    found = neutral(tiny_model(), tiny_tokenizer(), alone)
    with pytest.raises(DataError, match="neutral set of 2 rows without 2 answers"):
        damage(found, found)
    with pytest.raises(UsageError, match="same rows"):
        damage(found, neutral(tiny_model(), tiny_tokenizer(), ROWS))


def test_a_model_that_gives_nan_is_no_measurement() -> None:
    import torch

    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(UsageError, match="not finite"):
        both(model, tiny_model())


def test_pvs_own_set_has_answers_and_texts() -> None:
    rows = neutral_set()
    assert rows.reply is None
    assert sum(bool(row.prompt) for row in rows) >= 20 and sum(not row.prompt for row in rows) >= 10
    assert all(len(row.chosen.split()) > OPENING for row in rows)


def test_ratios_and_shares() -> None:
    found = ratio([1.0, 2.0, 0.0], [10, 10, 0])
    assert found.mean == pytest.approx(0.15) and found.n == 2
    assert 0.1 <= found.low <= found.mean <= found.high <= 0.2
    with pytest.raises(UsageError):
        ratio([1.0, 2.0], [1, 0])
    some = share(10, 12)
    assert some.low == pytest.approx(0.552, abs=1e-3) and some.high == pytest.approx(0.953, abs=1e-3)
    assert share(0, 12).low == 0 and share(0, 12).high == pytest.approx(0.2425, abs=1e-3)
    assert share(12, 12).high == 1
    for bad in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(UsageError):
            share(*bad)
    assert np.isfinite([share(1, 2).low, share(1, 2).high]).all()
