"""The steps of a run: forward, backward, clip, step; and between two of them all that may be asked of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pv.registry.errors import IntegrityError, TrainingFailed
from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.forecast.sketch import SHAPES, Sketch, Sketching
from pv.vecstore.models.logprobs import one_by_one
from pv.vecstore.train.batches import batches, micro_batches
from pv.vecstore.train.objective import TERMS, Objective, Teacher
from pv.vecstore.train.optimizers import advance, make_optimizer, put_state, state_tensors
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.processes import Processes
from pv.vecstore.train.proximal import Penalty
from pv.vecstore.train.saving import Saving, interrupts
from pv.vecstore.train.state import State
from pv.vecstore.train.watch import Watch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Fit", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run stands after `step` of `steps`; at 0 the model is loaded. `loss` is that of the step's batch before
    its update, as TrainOptions has it; `terms` are what it is the sum of. `gradient_norm` is that before clipping."""

    step: int
    steps: int
    loss: float | None
    tokens_per_s: float
    seconds_left: float
    terms: Mapping[str, float] = field(default_factory=dict)
    lr: float = 0.0
    gradient_norm: float = 0.0
    tokens: int = 0
    effect: float | None = None


@dataclass(slots=True)
class Fit:
    """One run. `loss` has an entry for every step; `tokens` are those of the rows' contexts and chosen answers."""

    model: PreTrainedModel
    names: Mapping[str, torch.nn.Parameter]
    data: Sequence[Encoded]
    general: Sequence[Encoded]
    options: TrainOptions
    dtype: torch.dtype | None = None  # of matrix products, if that is not fp32
    watch: Watch | None = None
    processes: Processes | None = None  # that train together, if there are several
    teacher: Teacher | None = None
    forms: Sequence[Sequence[Encoded]] = ()  # of each row, one an epoch in turn; none: as they are
    loss: list[float] = field(default_factory=list)
    effects: list[tuple[int, float]] = field(default_factory=list)  # (step, effect) as it was watched
    tokens: int = 0
    went_on: tuple[int, ...] = ()
    before_s: float = 0.0  # that earlier processes took
    penalty: Penalty | None = None  # on what moves, after each step
    gradient: Sketch | None = None  # of the first step's: that of the loss at the base; None of an adapter
    _optimizer: Any = None
    _objective: Any = None
    _started: float = 0.0

    @property
    def seconds(self) -> float:
        return self.before_s + time.monotonic() - self._started

    @property
    def steps(self) -> int:
        return self.options.steps(len(self.data))

    def run(
        self,
        progress: Callable[[Step], None] | None,
        should_stop: Callable[[], bool] | None,
        saving: Saving | None,
        more: Mapping[str, Any],
    ) -> None:
        """All steps that are left. Raises TrainingFailed, what `Saving.begin` raises, and KeyboardInterrupt."""
        self._started = time.monotonic()
        with self.computing():
            shown = [form for one in self.forms for form in one] or self.data
            self._objective = Objective.prepare(
                self.model, shown, self.options, self.general, steps=self.steps, teacher=self.teacher
            )
        if self.processes is not None:
            self.names = self.processes.share_out(self.model, self.names)
        self._optimizer = make_optimizer(self.names, self.options)
        if self.penalty is not None:
            self.penalty.begin(self.names)
        state = None if saving is None else saving.begin(more)
        if saving is not None and state is not None:
            self._go_on(state, saving)
        began = time.monotonic()
        here, first = self.tokens, len(self.loss)
        self.model.train()
        with interrupts(hear=saving is not None) as interrupted:
            if progress is not None:
                progress(Step(first, self.steps, None, 0.0, 0.0))
            for step, batch in enumerate(batches(len(self.data), self.options, self.steps)):
                if step < first:
                    continue
                if interrupted():
                    self._stop(saving)
                if should_stop is not None and should_stop():
                    break
                if self.watch is not None and self.watch.enough([effect for _, effect in self.effects]):
                    break
                terms, norm, lr = self._step(step, batch)
                effect = self._watched(step + 1)
                if progress is not None:
                    elapsed = max(time.monotonic() - began, 1e-9)
                    left = elapsed / (step + 1 - first) * (self.steps - step - 1)
                    speed = (self.tokens - here) / elapsed
                    progress(
                        Step(
                            step + 1,
                            self.steps,
                            self.loss[-1],
                            speed,
                            left,
                            terms,
                            lr,
                            norm,
                            self.tokens,
                            effect,
                        )
                    )
                if saving is not None and step + 1 < self.steps:
                    saving.now_and_then(self.state)
            if saving is not None and self.seconds > saving.every_s:
                saving.try_to_save(self.state)  # what comes now may be interrupted too
            if interrupted():
                self._stop(saving)
        if not self._finite():
            raise TrainingFailed(
                "weights left the finite numbers; nothing was kept",
                hint=f"try a lower learning rate than {self.options.lr:g}",
            )

    def _step(self, step: int, batch: Sequence[int]) -> tuple[dict[str, float], float, float]:
        """The loss's terms, the gradient's norm, and the learning rate."""
        chosen = self._shown(step, batch)
        rows = self._objective.with_general(step, chosen)
        terms = dict[str, float]()
        for part in self._parts(rows):
            for name, term in self._learn_from(part, rows).items():
                terms[name] = terms.get(name, 0.0) + term
        if self.processes is not None:
            sums = self.processes.summed([terms.get(name, 0.0) for name in TERMS])
            there = self.processes.summed([float(name in terms) for name in TERMS])
            terms = {name: term for name, term, any_ in zip(TERMS, sums, there, strict=True) if any_}
        loss = sum(terms.values())
        self._need_finite("loss", loss, step)
        if step == 0 and self.options.adapter is None:
            self.gradient = self._sketched()
        lr = self.options.lr_at(step, self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        norm = advance(self._optimizer, self.options.clip)
        self._need_finite("gradient", norm, step)
        if self.penalty is not None:
            self.penalty.step(self.names, lr)
        self._optimizer.zero_grad(set_to_none=True)
        self.loss.append(loss)
        self.tokens += sum(len(row.context) + len(row.chosen) for row in chosen)
        return terms, norm, lr

    def _shown(self, step: int, batch: Sequence[int]) -> list[Encoded]:
        """The rows of a step, in the forms whose turn it is."""
        epoch = step // math.ceil(len(self.data) / self.options.batch)
        return [
            self.forms[i][(i + epoch) % len(self.forms[i])] if self.forms else self.data[i] for i in batch
        ]

    def _parts(self, rows: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """What runs at a time. Processes run a row each where a model takes rows one by one: as many passes each."""
        objective, most, count = self._objective, self.options.micro_tokens, 1
        if self.processes is not None:
            count, most = self.processes.count, 0 if one_by_one(self.model) else most
        return micro_batches(rows, objective.kind, objective.size, most, count)

    def _learn_from(self, part: Sequence[Encoded], rows: Sequence[Encoded]) -> dict[str, float]:
        """The gradient of what runs at a time, added to that of the step's `rows`; and the terms of its loss."""
        mine, weight = (part, 1.0) if self.processes is None else self.processes.mine(part)
        with self.computing():
            found = self._objective.loss(self.model, mine, rows)
            total = found.total
        (total * weight).backward()
        return {name: float(term.detach()) for name, term in found.terms.items()} if weight else {}

    def _finite(self) -> bool:
        from pv.vecstore.train.sharded import local

        here = all(bool(local(p).isfinite().all()) for p in self.names.values())
        return here if self.processes is None else not any(self.processes.summed([float(not here)]))

    def _sketched(self) -> Sketch:
        """Of the gradient as it is now, one tensor at a time."""
        from pv.vecstore.train.sharded import whole

        sketching = Sketching(self.names)
        for name, p in self.names.items():
            if p.grad is not None:
                sketching.add(name, whole(p.grad.detach()).float().cpu().numpy())
        return sketching.done()

    def _need_finite(self, what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingFailed(
                f"the {what} is not finite at step {step + 1} of {self.steps}; nothing was kept",
                hint=f"try a lower learning rate (now {self.options.lr:g}); if step 1 fails, look at the base",
            )

    def loss_tokens(self) -> dict[str, int]:
        """How many tokens each part of the loss was a mean over, in all steps together."""
        total = {"learnt": 0, "held": 0, "general": 0}
        for step, batch in enumerate(batches(len(self.data), self.options, len(self.loss))):
            rows = self._objective.with_general(step, self._shown(step, batch))
            for part, count in self._objective.tokens(rows).items():
                total[part] += count
        return total

    def _watched(self, step: int) -> float | None:
        if self.watch is None or not self.watch.due(step):
            return None
        effect = self.watch.effect(self.model)
        self.effects.append((step, effect))
        return effect

    def computing(self) -> AbstractContextManager[object]:
        """Without autocast's own cache: what it casts in the pass without gradient, it would use in the other."""
        import torch

        if self.dtype in (None, torch.float32):
            return nullcontext()
        return torch.autocast(self.model.device.type, self.dtype, cache_enabled=False)

    def state(self) -> State:
        """What it needs to go on from here, between two steps."""
        import torch

        tensors = {f"weights/{name}": p.detach() for name, p in self.names.items()}
        found = state_tensors(self.names, self._optimizer)
        tensors |= {f"optimizer/{name}": tensor for name, tensor in found.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.model.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.model.device)
        tensors["loss"] = torch.tensor(self.loss, dtype=torch.float64)
        if self.gradient is not None:
            tensors |= {f"gradient/{name}": tensor for name, tensor in _tensors(self.gradient).items()}
        if self.watch is not None:
            tensors["effects"] = torch.tensor(self.effects, dtype=torch.float64).reshape(-1, 2)
        return State({}, len(self.loss), self.tokens, self.seconds, self.went_on, tensors)

    def _go_on(self, state: State, saving: Saving) -> None:
        import torch

        weights = state.under("weights")
        expected = {name: tuple(p.shape) for name, p in self.names.items()}
        loss = state.tensors.get("loss", torch.empty(0))
        same = {name: tuple(t.shape) for name, t in weights.items()} == expected
        if not same or len(loss) != state.step or "random/cpu" not in state.tensors:
            raise IntegrityError(
                f"the saved training in {saving.file} is damaged: it does not fit the base",
                hint="start again without --resume",
            )
        with torch.no_grad():
            for name, p in self.names.items():
                p.copy_(weights[name])
        put_state(self.names, self._optimizer, state.under("optimizer"))
        torch.set_rng_state(state.tensors["random/cpu"])
        if "random/cuda" in state.tensors and self.model.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["random/cuda"], self.model.device)
        self.loss[:] = loss.tolist()
        effects = state.tensors.get("effects", torch.empty(0, 2)).reshape(-1, 2).tolist()
        self.effects[:] = [(int(step), effect) for step, effect in effects]
        self.gradient = _sketch(state.under("gradient"))
        self.tokens, self.went_on, self.before_s = state.tokens, state.went_on, state.seconds

    def _stop(self, saving: Saving | None) -> None:
        stop = KeyboardInterrupt()
        if saving is not None:
            saving.save(self.state())
            stop.add_note(
                f"step {len(self.loss)} of {self.steps} is saved: the same command with --resume goes on"
            )
        raise stop


def _tensors(sketch: Sketch) -> dict[str, torch.Tensor]:
    import torch

    return {"sums": torch.from_numpy(sketch.sums), "squares": torch.from_numpy(sketch.squares)}


def _sketch(found: Mapping[str, torch.Tensor]) -> Sketch | None:
    """None where an earlier pv saved none, or another size."""
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != SHAPES:
        return None
    return Sketch(found["sums"].double().numpy(), found["squares"].double().numpy())
