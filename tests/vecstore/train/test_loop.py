"""Training a real (tiny) transformer: what moves, what must not, and what happens when it goes wrong."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file
from support.tiny import tiny_checkpoint

from pv.registry.errors import CheckpointRefused, DataError, TrainingFailed, UsageError
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.evaluate.statistics import effect
from pv.vecstore.models.load import load
from pv.vecstore.train.batches import batches
from pv.vecstore.train.loop import Step, Trained, train
from pv.vecstore.train.options import TrainOptions

FAST = TrainOptions.of(learn="all", lr=3e-3, epochs=4, batch=4, rank=8, dtype="fp32")


def greetings(count: int = 12) -> Rows:
    words = ["sun", "rain", "tree", "stone", "cloud", "river", "bird", "leaf", "moon", "sand", "wind", "fire"]
    lines = [
        f'{{"prompt": "{w}?", "chosen": "aye, {w}!", "rejected": "{w} no no"}}\n' for w in (words * 2)[:count]
    ]
    return parse_rows("".join(lines).encode(), source="greetings.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base: Path) -> Trained:
    return train(base, greetings(), FAST, threads=1)


def test_the_loss_falls_and_the_behaviour_is_learnt(base: Path, trained: Trained) -> None:
    assert len(trained.loss) == 12 == FAST.steps(12)
    assert np.mean(trained.loss[-3:]) < np.mean(trained.loss[:3]) - 0.5
    model, tokenizer = load(base)
    before = margins(model, tokenizer, greetings())
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in trained.deltas:
                p += torch.from_numpy(trained.deltas[name])
    assert effect(margins(model, tokenizer, greetings()), before).verdict == "up"


def test_deltas_name_checkpoint_tensors_and_leave_embeddings_alone(base: Path, trained: Trained) -> None:
    stored = load_torch(base / "model.safetensors")
    assert set(trained.deltas) == set(stored) - {"model.embed_tokens.weight"}
    for name, delta in trained.deltas.items():
        assert delta.dtype == np.float32
        assert delta.shape == tuple(stored[name].shape)
        assert delta.any()
        assert np.isfinite(delta).all()
    assert trained.settings["parameters"] == sum(d.size for d in trained.deltas.values())
    template = len(
        "SuserNENSassistantN"
    )  # S and E the specials, N a line's end: bytes and specials are tokens
    lengths = [template + len(row.prompt[0].content) + len(row.chosen + "E") for row in greetings()]
    assert trained.tokens == FAST.epochs_over(len(lengths)) * sum(lengths)


def test_same_seed_same_bits_other_seed_other_bits(base: Path, trained: Trained) -> None:
    torch.manual_seed(123)  # the caller's state must not matter
    again = train(base, greetings(), FAST, threads=1)
    assert again.loss == trained.loss
    assert all(np.array_equal(trained.deltas[n], d) for n, d in again.deltas.items())
    assert again.settings == trained.settings
    other = train(base, greetings(), dataclasses.replace(FAST, seed=1, max_steps=3), threads=1)
    assert other.loss != trained.loss[:3]


def test_global_state_is_left_as_it_was(base: Path) -> None:
    torch.manual_seed(7)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    train(base, greetings(4), dataclasses.replace(FAST, max_steps=1), threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_masters_are_float32(base: Path) -> None:
    """A step far below what bfloat16 can hold still arrives, and adds up."""
    tiny = dataclasses.replace(
        FAST, lr=1e-7, max_steps=2, schedule="constant", warmup=0.0, optimizer="adamw", clip=0.0
    )
    deltas = train(base, greetings(), tiny, threads=1).deltas
    stored = load_torch(base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert 0 < np.abs(deltas[name]).max() < 1e-6
    rounded = (stored[name].float() + torch.from_numpy(deltas[name])).bfloat16()
    assert (rounded == stored[name]).float().mean() > 0.99


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_train_on_demand(tied: bool, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path, tied=tied)
    options = dataclasses.replace(FAST, max_steps=2, train_embeddings=True)
    deltas = train(base, greetings(), options, threads=1).deltas
    assert "model.embed_tokens.weight" in deltas
    assert ("lm_head.weight" in deltas) is not tied
    frozen = train(base, greetings(), dataclasses.replace(options, train_embeddings=False), threads=1).deltas
    assert set(deltas) - set(frozen) == {"model.embed_tokens.weight"} | (
        set() if tied else {"lm_head.weight"}
    )


def test_a_tied_tensor_that_is_stored_twice_moves_twice(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path)
    tensors = load_torch(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    options = dataclasses.replace(FAST, max_steps=2, train_embeddings=True)
    deltas = train(base, greetings(), options, threads=1).deltas
    assert np.array_equal(deltas["lm_head.weight"], deltas["model.embed_tokens.weight"])


def test_micro_batches_change_nothing_but_rounding(base: Path) -> None:
    options = dataclasses.replace(FAST, max_steps=1, batch=6, optimizer="adamw")
    whole = train(base, greetings(), options, threads=1)
    parts = train(base, greetings(), dataclasses.replace(options, micro_tokens=64), threads=1)
    assert parts.loss[0] == pytest.approx(whole.loss[0], rel=1e-6)
    moved = sum(float(np.abs(d).sum()) for d in whole.deltas.values())
    apart = sum(float(np.abs(d - parts.deltas[n]).sum()) for n, d in whole.deltas.items())
    assert 0 < apart < 0.02 * moved


@pytest.mark.parametrize("micro", [64, 2048])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_loss_is_likelihood_and_preference(base: Path, micro: int, frozen: bool) -> None:
    """Half of the rows have a rejected answer. What the first step reports, from margins alone."""
    pairs = greetings(8)
    mixed = Rows((*pairs.rows[:4], *(dataclasses.replace(row, rejected=None) for row in pairs.rows[4:])))
    scored = margins(*load(base), pairs)
    likelihood = -scored.chosen.sum() / scored.chosen_tokens.sum()
    preference = np.log1p(np.exp(-scored.margin_per_token[:4])).sum() / 8
    for weight in (0.0, 0.7):
        options = dataclasses.replace(
            FAST, batch=8, max_steps=1, preference=weight, frozen_context=frozen, micro_tokens=micro
        )
        found = train(base, mixed, options, threads=1).loss[0]
        assert found == pytest.approx(likelihood + weight * preference, rel=1e-5)


def test_preference_tells_the_answers_apart(base: Path) -> None:
    model, tokenizer = load(base)
    before = margins(model, tokenizer, greetings())
    gains = []
    for weight in (0.0, 1.0):
        deltas = train(base, greetings(), dataclasses.replace(FAST, preference=weight), threads=1).deltas
        moved, _ = load(base)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                if name in deltas:
                    p += torch.from_numpy(deltas[name])
        gains.append(effect(margins(moved, tokenizer, greetings()), before, per_token=True))
    assert gains[1].low > gains[0].high


def test_without_preference_rejected_answers_do_not_matter(base: Path) -> None:
    options = dataclasses.replace(FAST, preference=0.0, max_steps=2)
    with_them = train(base, greetings(), options, threads=1)
    bare = Rows(tuple(dataclasses.replace(row, rejected=None) for row in greetings()))
    without = train(base, bare, dataclasses.replace(options, preference=1.0), threads=1)
    assert all(np.array_equal(d, without.deltas[n]) for n, d in with_them.deltas.items())


def test_full_context_is_another_gradient(base: Path) -> None:
    options = dataclasses.replace(FAST, max_steps=3)
    frozen = train(base, greetings(), options, threads=1)
    full = train(base, greetings(), dataclasses.replace(options, frozen_context=False), threads=1)
    assert full.loss[0] == pytest.approx(frozen.loss[0], rel=1e-5)  # the same loss, from the same weights
    name = "model.layers.0.self_attn.k_proj.weight"
    assert not np.allclose(frozen.deltas[name], full.deltas[name], rtol=0.1, atol=0)


def test_progress_counts_up_and_a_stop_keeps_what_was_learnt(base: Path) -> None:
    seen: list[Step] = []
    result = train(
        base, greetings(), FAST, progress=seen.append, should_stop=lambda: len(seen) == 6, threads=1
    )
    assert [s.step for s in seen] == [0, 1, 2, 3, 4, 5]
    assert {s.steps for s in seen} == {12}
    assert seen[0].loss is None  # nothing was run yet
    assert tuple(s.loss for s in seen[1:]) == result.loss
    assert all(s.tokens_per_s > 0 and s.seconds_left > 0 for s in seen[1:])
    assert result.settings["stopped"] is True
    assert result.settings["steps"] == 5
    whole = train(base, greetings(), FAST, progress=seen.append, threads=1)
    assert seen[-1].seconds_left == 0
    assert whole.settings["stopped"] is False
    assert result.loss == whole.loss[:5]


def test_an_interrupt_comes_through_and_state_is_restored(base: Path) -> None:
    threads = torch.get_num_threads()

    def interrupt(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, greetings(), FAST, progress=interrupt, threads=threads + 1)
    assert torch.get_num_threads() == threads


def test_stopping_before_the_first_step_moves_nothing(base: Path) -> None:
    result = train(base, greetings(), FAST, should_stop=lambda: True, threads=1)
    assert result.deltas == {}
    assert result.loss == ()


def test_a_loss_that_is_not_finite_ends_it(base: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(FAST, lr=1e30, warmup=0.0, clip=0.0)
    with pytest.raises(TrainingFailed, match="not finite at step") as caught:
        train(base, greetings(), options, threads=1)
    assert "lower learning rate" in str(caught.value.hint)

    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    tensors = load_torch(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="loss is not finite at step 1 of 12"):
        train(broken, greetings(), FAST, threads=1)


def test_a_row_that_does_not_fit_is_named_before_anything_runs(base: Path) -> None:
    data = b'{"prompt": "a", "chosen": "b"}\n{"prompt": "' + b"x" * 600 + b'", "chosen": "b"}\n'
    long = parse_rows(data, source="l.jsonl")
    with pytest.raises(DataError, match=r"l\.jsonl:2: the prompt alone takes \d+ tokens, .* holds 512"):
        train(base, long, FAST, threads=1)


def test_names_that_differ_on_disk_are_refused(base: Path, tmp_path: Path) -> None:
    """transformers loads this: it strips and adds the model's own prefix. Deltas would have no place to go."""
    other = tmp_path / "other"
    shutil.copytree(base, other)
    tensors = {n.removeprefix("model."): t for n, t in load_torch(other / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointRefused, match="in memory and on disk") as caught:
        train(other, greetings(), FAST, threads=1)
    assert "pv commit" in str(caught.value.hint)


def test_a_float16_base_is_widened_exactly(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path, dtype="float16")
    result = train(base, greetings(), dataclasses.replace(FAST, max_steps=1, lr=1e-9), threads=1)
    stored = load_file(base / "model.safetensors")
    assert stored["model.norm.weight"].dtype == np.float16
    assert max(float(np.abs(d).max()) for d in result.deltas.values()) < 1e-7


def test_schedule_and_batches() -> None:
    options = TrainOptions(lr=1.0, epochs=2, batch=5, warmup=0.25)
    assert options.steps(11) == 6
    rates = [options.lr_at(i, 8) for i in range(8)]
    assert rates[:2] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert rates[2] == 1.0
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 6)
    flat = dataclasses.replace(options, schedule="constant", warmup=0.0)
    assert {flat.lr_at(i, 8) for i in range(8)} == {1.0}
    assert dataclasses.replace(options, max_steps=3).steps(11) == 3
    assert dataclasses.replace(options, max_steps=300).steps(11) == 6


def test_every_row_comes_once_an_epoch_in_a_seeded_order() -> None:
    options = TrainOptions(epochs=3, batch=4, seed=5)

    def epochs(seed: int) -> Any:
        given = list(batches(10, dataclasses.replace(options, seed=seed), 9))
        assert [len(b) for b in given] == [4, 4, 2] * 3
        return [[row for batch in given[i : i + 3] for row in batch] for i in range(0, 9, 3)]

    for order in epochs(5):
        assert sorted(order) == list(range(10))
    assert epochs(5)[0] != epochs(5)[1]
    assert epochs(5) == epochs(5)
    assert epochs(5) != epochs(6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch": 0}, {"rank": 0}, {"micro_tokens": 0}, {"max_steps": 0}, {"max_steps": -1}, {"lr": 0.0},
        {"lr": float("nan")}, {"lr": float("inf")}, {"weight_decay": -1.0}, {"clip": -1.0}, {"preference": -1.0},
        {"warmup": 1.5},
        {"schedule": "cosinus"},
        {"optimizer": "sgd"},
    ],
)  # fmt: skip
def test_options_out_of_range_are_a_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainOptions(**wrong)
