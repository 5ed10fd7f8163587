"""Apollo, the frozen context and the commit at the end in transformers' Trainer, and in TRL's where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import tiny_checkpoint, tiny_model, tiny_tokenizer

import pv

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

ROWS = [([257, *range(10 + i, 24 + i)], [40 + i, 41, 42, 258][: 2 + i % 3]) for i in range(12)]


def example(context: list[int], answer: list[int]) -> dict[str, list[int]]:
    return {"input_ids": [*context, *answer], "labels": [-100] * len(context) + answer}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    padded = {"input_ids": 256, "labels": -100}
    batch = {
        key: torch.tensor([row[key] + [fill] * (width - len(row[key])) for row in rows])
        for key, fill in padded.items()
    }
    batch["attention_mask"] = torch.tensor(
        [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    )
    return batch


class Trainer(pv.TrainerMixin, transformers.Trainer):  # type: ignore[misc, name-defined]
    pass


def arguments(folder: Path, **more: Any) -> Any:
    settings = {
        "per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2, "report_to": "none",
        "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "use_cpu": True,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    return transformers.TrainingArguments(output_dir=str(folder), **{**settings, **more})


def trainer(folder: Path, model: Any = None, **more: Any) -> Any:
    own = {
        key: more.pop(key)
        for key in ("apollo", "frozen_context", "callbacks", "processing_class")
        if key in more
    }
    return Trainer(
        model=model or tiny_model(), args=arguments(folder, **more), data_collator=collate,
        train_dataset=[example(*row) for row in ROWS], **own,
    )  # fmt: skip


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_trains_with_apollo_and_a_frozen_context(tmp_path: Path) -> None:
    made = trainer(tmp_path, apollo={"rank": 8}, weight_decay=0.1)
    made.train()
    optimizer = made.optimizer.optimizer
    assert isinstance(optimizer, pv.Apollo)
    assert [(group["rank"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (8, 0.1),
        (8, 0.0),
    ]
    assert "model.layers.0.mlp.up_proj.weight" in optimizer.param_groups[0]["param_names"]
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_the_first_loss_is_the_trainers_own(tmp_path: Path) -> None:
    """The same number; the gradient is another, since none flows into the context."""
    found = []
    for frozen in (True, False):
        made = trainer(tmp_path, frozen_context=frozen, max_steps=1, gradient_accumulation_steps=2)
        made.train()
        found.append(next(entry["loss"] for entry in made.state.log_history if "loss" in entry))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_labels_with_gaps_and_rows_without_labels(tmp_path: Path) -> None:
    context = ROWS[0][0]
    gap = example(context, [40, 41, 42, 43])
    gap["labels"][-2] = -100
    batch = collate([gap, {"input_ids": context, "labels": [-100] * len(context)}])
    made = trainer(tmp_path)
    model = made.model.train()
    loss = made.compute_loss(model, dict(batch))
    plain = model(**batch).loss
    torch.testing.assert_close(loss, plain)
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    assert float(made.compute_loss(model, nothing).detach()) == 0.0


def test_stops_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """torch.load runs with weights_only=True there: the state has no objects."""
    whole = trainer(tmp_path / "whole", apollo={"rank": 4, "refresh": 2})
    whole.train()
    first = trainer(tmp_path / "first", apollo={"rank": 4, "refresh": 2}, save_strategy="steps", save_steps=3)
    first.train()
    second = trainer(tmp_path / "second", apollo={"rank": 4, "refresh": 2})
    second.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-3"))
    expected = weights(whole.model)
    assert all(torch.equal(p, expected[name]) for name, p in weights(second.model).items())


@pytest.mark.parametrize("how", ["argument", "model"])
def test_refuses_gradient_checkpointing(tmp_path: Path, how: str) -> None:
    with pytest.raises(pv.UsageError, match="checkpointing") as refused:
        if how == "argument":
            trainer(tmp_path, activation_checkpointing=True).train()
        else:
            model = tiny_model()
            for module in model.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = True
            trainer(tmp_path, model=model).train()
    assert "frozen_context=False" in (refused.value.hint or "")


def test_refuses_packed_rows_and_batches_without_labels(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    model = made.model.train()
    batch = collate([example(*ROWS[0])])
    with pytest.raises(pv.UsageError, match="packed"):
        made.compute_loss(model, {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None]})
    with pytest.raises(pv.UsageError, match="labels"):
        made.compute_loss(model, {"input_ids": batch["input_ids"]})


def test_what_was_trained_is_committed_at_the_end(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    with pv.init(tmp_path / "repo", base=base) as repo:
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        callback = pv.CommitCallback(repo, name="polite")
        made = trainer(tmp_path / "out", model=model, callbacks=[callback], processing_class=tiny_tokenizer())
        made.train()
        assert callback.committed is not None
        assert callback.committed.vector == repo.persona.behaviours["polite"].terms[0].vector
        name = "model.layers.0.mlp.up_proj.weight"
        trained = dict(made.model.named_parameters())[name].detach().float()
        before = (
            dict(
                transformers.AutoModelForCausalLM.from_pretrained(
                    base, dtype=torch.bfloat16
                ).named_parameters()
            )[name]
            .detach()
            .float()
        )
        moved = repo.at("HEAD").vector("polite").tau(name)
        assert np.array_equal(moved, (trained - before).numpy())
        assert moved.any()
    assert not (tmp_path / "out" / "pv-polite").exists()


def test_a_name_that_cannot_be_committed_is_refused_before_the_training(tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    pv.init(tmp_path / "repo", base=base).close()
    made = trainer(tmp_path / "out", callbacks=[pv.CommitCallback(tmp_path / "repo", name="no/../name")])
    with pytest.raises(pv.PvError):
        made.train()
    assert made.state.global_step == 0
    made = trainer(tmp_path / "out", callbacks=[pv.CommitCallback(tmp_path / "nowhere", name="polite")])
    with pytest.raises(pv.NotARegistry):
        made.train()


def test_trl(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")

    class Sft(pv.TrainerMixin, trl.SFTTrainer):  # type: ignore[misc, name-defined]
        pass

    rows = datasets.Dataset.from_list(
        [{"prompt": f"How do I tie a knot {i}?", "completion": "Arr, with rope."} for i in range(8)]
    )
    shared = {
        "output_dir": str(tmp_path), "max_steps": 4, "per_device_train_batch_size": 4, "report_to": "none",
        "learning_rate": 1e-2, "use_cpu": True, "bf16": False, "logging_steps": 1, "save_strategy": "no",
    }  # fmt: skip
    made = Sft(
        model=tiny_model(), args=trl.SFTConfig(**shared, gradient_checkpointing=False), train_dataset=rows,
        processing_class=tiny_tokenizer(), apollo={"rank": 8},
    )  # fmt: skip
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    with pytest.raises(pv.UsageError, match="checkpointing"):  # TRL's default
        Sft(
            model=tiny_model(),
            args=trl.SFTConfig(**shared),
            train_dataset=rows,
            processing_class=tiny_tokenizer(),
        )
