"""Replies: the words of a stock greedy decoder, alone, in a batch, or streamed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import tiny_checkpoint

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.rows import Message, parse_rows
from pv.vecstore.models.generate import replies, stream
from pv.vecstore.models.load import load, quiet
from pv.vecstore.train.loop import train
from pv.vecstore.train.options import TrainOptions

ANSWERS = {"a?": "aye, a!", "What of the much longer one?": "naïve 😀 it is", "bb?": "ok"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny model that has learnt three answers by heart, so that its greedy choices are not close calls."""
    base = tiny_checkpoint(tmp_path_factory.mktemp("base"))
    lines = "".join(f'{{"prompt": "{p}", "chosen": "{a}"}}\n' for p, a in ANSWERS.items())
    options = TrainOptions(lr=1e-2, epochs=60, batch=3, rank=16, train_embeddings=True)
    trained = train(base, parse_rows(lines.encode()), options, threads=1)
    model, tokenizer = load(base)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in trained.deltas:
                p += torch.from_numpy(trained.deltas[name])
    return model, tokenizer


def stock(model: Any, tokenizer: Any, prompt: str, count: int) -> str:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with quiet():
        out = model.generate(**ids, max_new_tokens=count, do_sample=False)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def test_what_was_learnt_is_said_and_ends_with_the_turn(loaded: tuple[Any, Any]) -> None:
    assert replies(*loaded, list(ANSWERS), 64) == list(ANSWERS.values())


def test_same_words_as_transformers_alone_and_in_any_batch(loaded: tuple[Any, Any]) -> None:
    prompts = [*ANSWERS, "Something else entirely", "z"]
    expected = [stock(*loaded, prompt, 24) for prompt in prompts]
    seen: list[tuple[int, int]] = []
    for batch in (1, 2, 8):
        assert replies(*loaded, prompts, 24, batch=batch, progress=lambda *a: seen.append(a)) == expected
    assert seen[-1] == (5, 5)
    assert replies(*loaded, [[Message("user", "a?")]], 24) == expected[:1]
    assert replies(*loaded, []) == []


def test_streamed_pieces_join_to_the_reply(loaded: tuple[Any, Any]) -> None:
    for prompt in [*ANSWERS, "Something else entirely"]:
        pieces = list(stream(*loaded, prompt, 40))
        assert "".join(pieces).strip() == replies(*loaded, [prompt], 40)[0]
    pieces = list(stream(*loaded, "What of the much longer one?", 40))
    assert len(pieces) > 5
    assert "😀" in pieces  # four tokens, and never a piece of one
    assert list(stream(*loaded, "a?", 3)) == ["a", "y", "e"]


def test_a_temperature_is_seeded_and_leaves_global_state(loaded: tuple[Any, Any]) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    hot = [replies(*loaded, ["tell"], 30, temperature=3.0, seed=seed)[0] for seed in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert replies(*loaded, ["a?"], 30, temperature=1e-4, seed=5) == ["aye, a!"]


def test_the_context_is_never_overrun(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    room = 512 - 19 - 480
    model.train()
    assert (
        len(replies(*loaded, ["x" * 480], 100)[0]) <= room
    )  # a byte a token; what is no UTF-8 shows as one sign
    assert model.training
    model.eval()
    with pytest.raises(DataError, match=r"prompt 2 takes \d+ tokens, the model's context holds 512"):
        replies(*loaded, ["fine", "x" * 500])


def test_settings_out_of_range_are_a_usage_error(loaded: tuple[Any, Any]) -> None:
    settings: list[dict[str, Any]] = [
        {"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}
    ]  # fmt: skip
    for wrong in settings:
        with pytest.raises(UsageError):
            replies(*loaded, ["a?"], **wrong)
