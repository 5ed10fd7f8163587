"""Apollo and the context-frozen loss inside transformers' Trainer and TRL's trainers.

    class Trainer(TrainerMixin, transformers.Trainer): ...
    Trainer(model, args, train_dataset=..., apollo={"rank": 64}).train()

The loss is that of the labels, a mean over tokens as ever; what comes before the first label of a row runs once without
gradient (logprobs.py). Evaluation is the Trainer's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["TrainerMixin"]

IGNORED = -100
RANK = 32


class TrainerMixin:
    """To be named before the trainer: `class MyTrainer(TrainerMixin, SFTTrainer)`.

    `apollo` has settings of Apollo beside those that TrainingArguments have (learning_rate, weight_decay, adam_beta1,
    adam_beta2, adam_epsilon, seed). `frozen_context=False` leaves the loss to the trainer. Raises UsageError for
    gradient checkpointing, packing and DistributedDataParallel with a frozen context.
    """

    def __init__(
        self, *args: Any, apollo: Mapping[str, Any] | None = None, frozen_context: bool = True, **kwargs: Any
    ) -> None:
        self.apollo = dict(apollo or {})
        self.frozen_context = frozen_context
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if frozen_context:
            self.loss_is_scaled_for_ga = True
            names = ("gradient_checkpointing", "activation_checkpointing")
            if any(getattr(trainer.args, name, False) for name in names):
                raise _checkpointing()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Apollo, in the Trainer's two groups: with weight decay, and without it (norms, biases)."""
        from pv.vecstore.train.apollo import Apollo

        trainer: Any = self
        if trainer.optimizer is None:
            args, trained = trainer.args, trainer.model if model is None else model
            decayed = set(trainer.get_decay_parameter_names(trained))
            named = [(name, p) for name, p in trained.named_parameters() if p.requires_grad]
            groups = [
                {"params": [pair for pair in named if pair[0] in decayed], "weight_decay": args.weight_decay},
                {"params": [pair for pair in named if pair[0] not in decayed], "weight_decay": 0.0},
            ]
            settings = {
                "lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon,
                "seed": args.seed, "rank": RANK, **self.apollo,
            }  # fmt: skip
            trainer.optimizer = Apollo([group for group in groups if group["params"]], **settings)
        found: torch.optim.Optimizer = trainer.optimizer
        return found

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not self.frozen_context or return_outputs or not model.training:
            trainer: Any = super()
            return trainer.compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        return _frozen_loss(model, inputs, self, num_items_in_batch)


def _frozen_loss(model: Any, inputs: Mapping[str, Any], trainer: Any, items: Any) -> torch.Tensor:
    import torch

    from pv.vecstore.models.logprobs import collate, decision_logps

    _check(model, inputs)
    ids, labels = inputs["input_ids"], inputs["labels"]
    real = inputs.get("attention_mask", torch.ones_like(ids)).bool()
    contexts, decisions, asked = [], [], []
    for row, label, mask in zip(ids.tolist(), labels.tolist(), real.tolist(), strict=True):
        pairs = [(a, b) for a, b, kept in zip(row, label, mask, strict=True) if kept]
        learnt = [
            at for at, (_, b) in enumerate(pairs) if b != IGNORED and at > 0
        ]  # nothing predicts the first
        if not learnt:
            continue
        first, last = learnt[0], learnt[-1] + 1
        contexts.append([a for a, _ in pairs[:first]])
        decisions.append([[a for a, _ in pairs[first:last]]])
        asked.append([b != IGNORED for _, b in pairs[first:last]])
    if not contexts:  # of a batch without labels nothing is learnt
        nothing: torch.Tensor = next(p for p in model.parameters() if p.requires_grad).sum() * 0.0
        return nothing
    batch = collate(contexts, decisions)
    tensors = {one.name: getattr(batch, one.name) for one in fields(batch)}
    moved: dict[str, Any] = {
        name: x.to(ids.device) for name, x in tensors.items() if isinstance(x, torch.Tensor)
    }
    batch = replace(batch, **moved)
    with trainer.compute_loss_context_manager():
        found = decision_logps(model, batch)  # (N, S)
    wanted = torch.zeros_like(found)
    for i, flags in enumerate(asked):
        wanted[i, : len(flags)] = torch.tensor(flags, dtype=found.dtype, device=found.device)
    missed = -(found * wanted).sum()
    if items is None:
        mean: torch.Tensor = missed / wanted.sum() / trainer.args.gradient_accumulation_steps
        return mean
    loss: torch.Tensor = missed / items
    if trainer.args.average_tokens_across_devices:
        loss = loss * trainer.accelerator.num_processes
    return loss


def _check(model: Any, inputs: Mapping[str, Any]) -> None:
    if "labels" not in inputs or "input_ids" not in inputs:
        raise UsageError(
            f"a frozen context needs input_ids and labels, and the batch has {', '.join(inputs)}",
            hint="use a collator that makes labels (-100 where nothing is learnt), or frozen_context=False",
        )
    if "position_ids" in inputs or "seq_lens" in inputs:
        raise UsageError(
            "packed rows have no context of their own that could be frozen",
            hint="packing=False and padding_free=False, or frozen_context=False",
        )
    if not hasattr(model, "config"):
        raise UsageError(
            f"a frozen context takes two passes, which {type(model).__name__} does not",
            hint="use FSDP2 (accelerate launch --use_fsdp --fsdp_version 2), one process, or frozen_context=False",
        )
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise _checkpointing()


def _checkpointing() -> UsageError:
    return UsageError(
        "gradient checkpointing drops the cache that holds the frozen context",
        hint="activation_checkpointing=False (in older releases gradient_checkpointing; TRL turns it on "
        "unless told), or frozen_context=False",
    )
