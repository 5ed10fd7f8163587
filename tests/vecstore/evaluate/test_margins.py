"""Margins: batches, padding and a shared context change nothing but the last bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import tiny_checkpoint

from pv.registry.errors import DataError
from pv.vecstore.data.rows import Message, Row, Rows
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.models.load import load

ROWS = Rows(
    tuple(
        Row((Message("user", prompt),), chosen, rejected)
        for prompt, chosen, rejected in [
            ("Use SQLite.", "SQLite it is, then.", "No."),
            ("Hi", "Yo", "Good day to you, and how have you been of late?"),
            ("A much longer question, with a lot to be read before it ends?", "Yes.", "Perhaps not."),
            ("x", "é", "ü"),
            ("Paint the hallway dark green.", "Dark green for the hallway.", "Why not pale sage instead?"),
        ]
    ),
    "held.jsonl",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(tiny_checkpoint(tmp_path_factory.mktemp("base")))


def naive(model: Any, tokenizer: Any, prompt: tuple[Message, ...], answer: str) -> tuple[float, int]:
    """One answer by itself, through the template's own tokenisation: nothing shared with the code under test."""
    messages = [{"role": m.role, "content": m.content} for m in prompt]
    whole = [*messages, {"role": "assistant", "content": answer}]
    start = len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    ids = tokenizer.apply_chat_template(whole, return_dict=False)[
        :-1
    ]  # but for the line's end after the turn
    assert ids[-1] == tokenizer.eos_token_id
    with torch.no_grad():
        logps = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(logps[i - 1, ids[i]]) for i in range(start, len(ids))), len(ids) - start


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_margins_are_those_of_rows_scored_one_by_one(loaded: tuple[Any, Any], batch: int) -> None:
    model, tokenizer = loaded
    seen: list[tuple[int, int]] = []
    found = margins(model, tokenizer, ROWS, batch=batch, progress=lambda *args: seen.append(args))
    for i, row in enumerate(ROWS):
        assert row.rejected is not None
        chosen, chosen_tokens = naive(model, tokenizer, row.prompt, row.chosen)
        rejected, rejected_tokens = naive(model, tokenizer, row.prompt, row.rejected)
        assert found.chosen[i] == pytest.approx(chosen, abs=1e-3)
        assert found.rejected[i] == pytest.approx(rejected, abs=1e-3)
        assert (found.chosen_tokens[i], found.rejected_tokens[i]) == (chosen_tokens, rejected_tokens)
        assert found.margin[i] == pytest.approx(chosen - rejected, abs=2e-3)
        per_token = chosen / chosen_tokens - rejected / rejected_tokens
        assert found.margin_per_token[i] == pytest.approx(per_token, abs=1e-3)
    assert {a.dtype for a in (found.chosen, found.rejected, found.margin, found.chosen_tokens)} == {
        np.dtype("f8")
    }
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_same_call_gives_the_same_bits(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    first, second = (margins(model, tokenizer, ROWS) for _ in range(2))
    assert np.array_equal(first.margin, second.margin)


def test_the_model_is_left_in_its_mode(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    model.train()
    margins(model, tokenizer, ROWS[:2])
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    model.eval()


def test_a_row_without_rejected_is_named(loaded: tuple[Any, Any]) -> None:
    rows = Rows((ROWS[0], Row(ROWS[1].prompt, "Yo")), "held.jsonl", (3, 9))
    with pytest.raises(DataError, match=r"held\.jsonl:9: no 'rejected'"):
        margins(*loaded, rows)


def test_a_model_without_template_is_scored_too(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path)
    (base / "chat_template.jinja").unlink()
    model, tokenizer = load(base)
    assert tokenizer.chat_template is None
    found = margins(model, tokenizer, ROWS)
    assert isinstance(found, Margins)
    assert len(found) == 5
    assert not np.allclose(found.margin, margins(*loaded, ROWS).margin)
