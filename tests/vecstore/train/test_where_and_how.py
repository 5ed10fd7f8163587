"""Where a run computes and in what, whether it fits, when it stops, and what it says of itself."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import tiny_checkpoint

from pv.registry.errors import TrainingFailed, UsageError
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.models.load import load, load_tokenizer
from pv.vecstore.train import devices
from pv.vecstore.train.loop import Step, Trained, train
from pv.vecstore.train.metrics import metrics
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.saving import Saving
from pv.vecstore.train.watch import Watch

FAST = TrainOptions.of(learn="all", lr=3e-3, epochs=2, batch=4, rank=4, device="cpu", dtype="fp32")


def rows(count: int = 12) -> Rows:
    lines = [f'{{"prompt": "p{i}?", "chosen": "aye {i}!", "rejected": "no"}}\n' for i in range(count)]
    return parse_rows("".join(lines).encode())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def plain(base: Path) -> Trained:
    return train(base, rows(), FAST, threads=1)


def same(a: Trained, b: Trained) -> bool:
    return a.loss == b.loss and all(np.array_equal(d, b.deltas[n]) for n, d in a.deltas.items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there(base: Path) -> None:
    with pytest.raises(UsageError, match="no device 'cuda' here") as refused:
        train(base, rows(), dataclasses.replace(FAST, device="cuda"), threads=1)
    assert "there is: cpu" in str(refused.value.hint)
    assert devices.pick_device("auto").type in ("cpu", "mps")


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"dtype": "fp8"}])
def test_what_is_none_is_a_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="unknown"):
        TrainOptions(**wrong)


def test_bf16_computes_with_all_weights_and_keeps_masters_in_fp32(base: Path, plain: Trained) -> None:
    half = train(base, rows(), dataclasses.replace(FAST, dtype="bf16"), threads=1)
    assert half.settings["dtype"] == "bf16" and plain.settings["dtype"] == "fp32"
    assert half.deltas.keys() == plain.deltas.keys()  # autocast's cache would have left gradients out
    assert half.loss == pytest.approx(plain.loss, rel=0.02) and half.loss != plain.loss
    moved = np.concatenate([d.ravel() for d in half.deltas.values()])
    there = np.concatenate([plain.deltas[n].ravel() for n in half.deltas])
    assert np.dot(moved, there) / np.linalg.norm(moved) / np.linalg.norm(there) > 0.8


def test_checkpointed_activations_give_the_same_bits(base: Path, plain: Trained) -> None:
    again = train(base, rows(), dataclasses.replace(FAST, gradient_checkpointing=True), threads=1)
    assert same(plain, again)


def test_what_it_takes_is_said_and_held_to(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    train(base, rows(), dataclasses.replace(FAST, max_steps=1), threads=1, said=said.append)
    assert said[0].startswith("it takes about ") and "MB of memory of" in said[0] and said[0].endswith(" s")


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded() -> None:
    shape = (1 << 20, 1 << 14)
    parts = devices.weights_memory([shape] * 8, [shape] * 8, FAST)
    assert parts == {"weights": 8 << 36, "gradients": 8 << 36, "optimizer": 8 * 2 * (1 << 20) * 4 * 4}
    adamw = dataclasses.replace(FAST, optimizer="adamw")
    assert devices.weights_memory([shape], [shape], adamw)["optimizer"] == 2 << 36
    free = devices.free_memory(torch.device("cpu"))
    assert free is not None and free > 1 << 20
    with pytest.raises(UsageError, match=r"needs about \d+\.\d GB of memory on cpu, .* are free") as refused:
        devices.Estimate(parts, free, 1.0).checked(torch.device("cpu"))
    assert "--adapter lora:16" in str(refused.value.hint)


def test_the_optimizers_state_is_as_large_as_estimated(base: Path) -> None:
    for name in ("apollo", "adamw"):
        options = dataclasses.replace(FAST, optimizer=name)
        shapes = [(48, 48), (96, 48), (48,), (24, 48)]
        params = [(f"p{i}", torch.nn.Parameter(torch.ones(shape))) for i, shape in enumerate(shapes)]
        from pv.vecstore.train.optimizers import make_optimizer, state_tensors

        names = dict(params)
        optimizer = make_optimizer(names, options)
        for _, p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        found = sum(t.nbytes for key, t in state_tensors(names, optimizer).items() if "exp_avg" in key)
        assert devices.weights_memory(shapes, shapes, options)["optimizer"] == found


def test_running_out_of_memory_is_one_clear_error(base: Path) -> None:
    def run_out(step: Step) -> None:
        torch.empty(1 << 60)

    with pytest.raises(TrainingFailed, match="out of memory on cpu") as refused:
        train(base, rows(), FAST, threads=1, progress=run_out)
    assert "--micro-tokens" in str(refused.value.hint)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_metrics_a_line_a_step(base: Path, plain: Trained, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("of an earlier run\n")
    with metrics(file, (), "x", {}) as note:
        train(base, rows(), FAST, threads=1, progress=note)
    found = lines(file)
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    assert tuple(line["loss"] for line in found) == plain.loss
    for number, line in enumerate(found):
        assert set(line["terms"]) == {"sft", "preference"}
        assert sum(line["terms"].values()) == pytest.approx(line["loss"], rel=1e-6)
        assert line["lr"] == FAST.lr_at(number, 6) and line["gradient_norm"] > 0 and line["tokens_per_s"] > 0
    assert found[-1]["tokens"] == plain.tokens


def test_metrics_of_a_run_that_went_on_have_each_step_once(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    saving = Saving(tmp_path / "state", {})
    with metrics(file, (), "x", {}) as note, pytest.raises(KeyboardInterrupt):

        def interrupted(step: Step) -> None:
            note(step)
            if step.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

        train(base, rows(), FAST, threads=1, progress=interrupted, saving=saving)
    with file.open("a") as out:
        out.write('{"step": 4, "loss": 99}\n')  # of a process that was killed after its last save
    with metrics(file, (), "x", {}) as note:
        train(base, rows(), FAST, threads=1, progress=note, saving=Saving(tmp_path / "state", {}, True))
    assert [line["step"] for line in lines(file)] == [1, 2, 3, 4, 5, 6]
    assert 99 not in [line["loss"] for line in lines(file)]


def test_a_tracker_that_is_missing_and_a_file_that_cannot_be_written(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'neptune'"), metrics(None, ("neptune",), "x", {}):
        pass
    for kind in ("wandb", "trackio"):
        if kind not in sys.modules:
            words = f"{kind} is not installed"
            with pytest.raises(UsageError, match=words) as refused, metrics(None, (kind,), "x", {}):
                pass
            assert refused.value.hint == f"pip install {kind}"
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "folder", tmp_path / "no" / "m.jsonl"):
        with pytest.raises(UsageError, match="no metrics can be written"), metrics(file, (), "x", {}):
            pass


def effect(base: Path) -> Any:
    held, tokenizer = rows(4), load_tokenizer(base)
    before = margins(load(base)[0], tokenizer, held).margin
    return lambda model: float((margins(model, tokenizer, held).margin - before).mean())


def test_a_run_ends_at_its_target(base: Path, plain: Trained) -> None:
    whole = train(base, rows(), FAST, threads=1, watch=Watch(effect(base)))
    assert same(whole, plain)  # to look changes nothing
    seen = [value for _, value in whole.settings["effects"]]
    assert len(seen) == 6 and seen[-1] > seen[0]
    target = seen[2] - 1e-3
    done = train(base, rows(), FAST, threads=1, watch=Watch(effect(base), target=target))
    expected = next(i for i, value in enumerate(seen, 1) if value >= target)
    assert len(done.loss) == expected and done.settings["stopped"] is True
    assert done.settings["effects"] == whole.settings["effects"][:expected]
    every = train(base, rows(), FAST, threads=1, watch=Watch(effect(base), every=2, target=target))
    assert len(every.loss) in (2, 4) and [step for step, _ in every.settings["effects"]] in ([2], [2, 4])


def test_a_run_ends_when_it_gets_no_better(base: Path) -> None:
    told = iter([1.0, 3.0, 2.0, 2.5, 9.0, 9.0])
    done = train(base, rows(), FAST, threads=1, watch=Watch(lambda model: next(told), patience=2))
    assert len(done.loss) == 4


def test_a_run_with_a_target_goes_on_to_the_same_end(base: Path, tmp_path: Path) -> None:
    watch = Watch(effect(base), target=1e9, patience=4)
    whole = train(base, rows(), FAST, threads=1, watch=watch)
    stop = lambda step: os.kill(os.getpid(), signal.SIGINT) if step.step == 2 else None  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        train(base, rows(), FAST, threads=1, watch=watch, saving=Saving(tmp_path / "s", {}), progress=stop)
    with pytest.raises(UsageError, match=r"target 1000000000 then, 5\.0 now"):
        train(base, rows(), FAST, threads=1, watch=Watch(effect(base), target=5.0, patience=4),
              saving=Saving(tmp_path / "s", {}, True))  # fmt: skip
    again = train(base, rows(), FAST, threads=1, watch=watch, saving=Saving(tmp_path / "s", {}, True))
    assert same(whole, again) and again.settings["effects"] == whole.settings["effects"]


@pytest.mark.parametrize(("count", "epochs"), [(1, 6), (8, 6), (24, 6), (36, 4), (67, 2), (1000, 2)])
def test_epochs_make_about_18_steps_but_are_two_to_six(count: int, epochs: int) -> None:
    assert TrainOptions().epochs_over(count) == epochs
    assert TrainOptions(epochs=3).epochs_over(count) == 3
    assert TrainOptions.of(learn="all").epochs_over(count) == 2
    assert TrainOptions().steps(count) == epochs * -(-count // 8)


def test_the_epochs_that_were_run_are_said(base: Path) -> None:
    made = train(base, rows(), dataclasses.replace(FAST, epochs=None, learn="difference"), threads=1)
    assert (made.options.epochs, made.settings["epochs"], made.settings["steps"]) == (None, 6, 18)
