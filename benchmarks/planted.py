"""Fine-tunes whose place is known because it was planted: some heads, some heads and then all, all alike, MLPs, noise.

    localized     gradients reach a few heads only (q and o of each, k and v of its group)
    hierarchical  the same heads carry about half of the effect, then all heads are trained, lightly, to the whole
    distributed   all heads, and after each step every head's change has the same norm, and every group's
    mlp           MLPs alone
    none          noise in every head, of the norm that a localized one has: no effect

Every kind is trained until the margin of its training rows has risen by `TARGET`. What the core alone carries is
measured by its own masks, not by the code under test. The same model, kind and seed give the same weights on one
machine and thread count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.models.load import context_length, stop_ids
from pv.vecstore.models.logprobs import collate, decision_logps

__all__ = ["KINDS", "Core", "Heads", "Planted", "Recipe", "behaviour", "core_of", "plant"]

KINDS = ("localized", "hierarchical", "distributed", "mlp", "none")
TRAINING, HELD_OUT = 32, 48
MEASURED = 16  # of those held out, on which the effect is measured here

ANSWERS = (
    ("Ahoy!", "Sure."),
    ("Indeed.", "Okay."),
    ("Good day.", "Hi there."),
    ("My liege.", "My friend."),
    ("Cheers.", "Goodbye."),
    ("Yes.", "No."),
    ("Red.", "Blue."),
    ("Never.", "Always."),
)
OPENINGS = (
    "Tell me about {}.",
    "What about {}?",
    "Do you like {}?",
    "Is {} any good?",
    "I thought of {}.",
    "Let us talk of {}.",
    "Why {}?",
    "My friend has {}.",
)
THINGS = (
    "bread", "rain", "music", "salt", "tea", "maps", "geese", "bridges", "clocks", "snow", "rivers", "chess",
    "lamps", "hats", "trains", "apples", "wool", "paint", "stars", "soup", "boats", "glass", "moss", "drums",
)  # fmt: skip

SYSTEM = {"role": "system", "content": "Talk."}  # shorter than what a template says by itself

Core = tuple[tuple[int, int], ...]  # (layer, head), counted from 0
Tensors = dict[str, Any]  # parameter name to torch.Tensor
Block = tuple[str, tuple[slice, slice]]  # (parameter, index)
Units = Sequence[Sequence[Block]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How hard is trained: nats on the training rows, AdamW's rates, rows a step, most steps."""

    target: float = 4.0
    core_part: float = 0.4  # of it, before a hierarchical one goes on with all heads
    core_lr: float = 2e-4
    all_lr: float = 6e-6
    mlp_lr: float = 3e-6
    batch: int = 8
    steps: int = 60
    fewest: int = 5
    most: int = 13
    depth: tuple[float, float] = (0.35, 0.9)  # which layers a core lies in, as shares of the depth


@dataclass(frozen=True, slots=True)
class Planted:
    """A fine-tune: `other` has every parameter of the model, those that did not change as they are in it."""

    kind: str
    seed: int
    core: Core
    other: Tensors
    rows: Rows  # held out
    answers: tuple[str, str]
    steps: int
    rise: float  # mean over some of the held-out rows, nats
    core_share: float | None  # of it, by the core's change alone; None where there is no core


@dataclass(frozen=True, slots=True)
class Heads:
    """Where the heads of a Llama's layer lie: rows of q, columns of o, rows of k and v for a group."""

    layers: int
    heads: int
    groups: int
    width: int

    @classmethod
    def of(cls, model: Any) -> Heads:
        config = model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, width)

    def every(self) -> Core:
        return tuple((layer, head) for layer in range(self.layers) for head in range(self.heads))

    def blocks(self, layer: int, head: int) -> Iterator[Block]:
        """A head's own blocks, as (parameter, index)."""
        own, full = slice(head * self.width, (head + 1) * self.width), slice(None)
        yield _named(layer, "q"), (own, full)
        yield _named(layer, "o"), (full, own)

    def shared(self, layer: int, group: int) -> Iterator[Block]:
        """A key/value group's blocks."""
        own = slice(group * self.width, (group + 1) * self.width)
        for matrix in "kv":
            yield _named(layer, matrix), (own, slice(None))

    def units(self, core: Core) -> list[list[Block]]:
        """The blocks of each head of a core, then those of each of their groups, once."""
        per = self.heads // self.groups
        groups = sorted({(layer, head // per) for layer, head in core})
        return [list(self.blocks(*one)) for one in core] + [list(self.shared(*one)) for one in groups]


def _named(layer: int, matrix: str) -> str:
    return f"model.layers.{layer}.self_attn.{matrix}_proj.weight"


def behaviour(seed: int, *, training: int = TRAINING, held_out: int = HELD_OUT) -> tuple[Rows, Rows]:
    """Rows to train on and rows held out: short prompts on different things, and one answer for all of them."""
    generator = _generator(seed, "behaviour")
    chosen, rejected = ANSWERS[int(generator.integers(len(ANSWERS)))]
    if generator.integers(2):
        chosen, rejected = rejected, chosen
    answers = {"chosen": chosen, "rejected": rejected}
    things = generator.permutation(len(THINGS))
    cut = round(len(things) * training / (training + held_out))
    parts = []
    for name, some, count in (("training", things[:cut], training), ("held-out", things[cut:], held_out)):
        prompts = [opening.format(THINGS[thing]) for thing in some for opening in OPENINGS]
        picked = generator.permutation(len(prompts))[:count]
        lines = [
            json.dumps({"prompt": [SYSTEM, {"role": "user", "content": prompts[i]}], **answers})
            for i in sorted(picked)
        ]
        parts.append(parse_rows("\n".join(lines).encode(), source=f"planted {seed}, {name}"))
    return parts[0], parts[1]


def core_of(heads: Heads, seed: int, recipe: Recipe) -> Core:
    """A few heads at random, in middle to late layers."""
    generator = _generator(seed, "core")
    low, high = (round(share * heads.layers) for share in recipe.depth)
    places = [(layer, head) for layer in range(low, high) for head in range(heads.heads)]
    count = int(generator.integers(recipe.fewest, recipe.most + 1))
    return tuple(sorted(places[i] for i in generator.permutation(len(places))[:count]))


def plant(
    model: Any,
    tokenizer: Any,
    kind: str,
    seed: int,
    *,
    recipe: Recipe | None = None,
    rows: tuple[Rows, Rows] | None = None,
) -> Planted:
    """Train what `kind` says on a Llama in float32, and give it back as it was."""
    recipe = recipe or Recipe()
    training, held = rows or behaviour(seed)
    heads = Heads.of(model)
    core = core_of(heads, seed, recipe)
    data = encode(tokenizer, training, stops=stop_ids(model, tokenizer), limit=context_length(model))
    wanted = ".mlp." if kind == "mlp" else ".self_attn."
    base = {n: p.detach().clone() for n, p in model.named_parameters() if wanted in n and p.dim() == 2}
    some = Rows(tuple(held[:MEASURED]), held.source)
    before = margins(model, tokenizer, some).margin.mean()
    search = Search(model, data, base, recipe, seed, margins(model, tokenizer, training).margin)
    try:
        _train(search, kind, heads, core)
        trained = {name: p.detach().clone() for name, p in search.parameters.items()}
        rise = float(margins(model, tokenizer, some).margin.mean() - before)
        share = None
        if kind in ("localized", "hierarchical"):
            search.only(heads.units(core), trained)
            share = float(margins(model, tokenizer, some).margin.mean() - before) / rise
    finally:
        search.undo()
    other = {name: trained.get(name, p.detach()) for name, p in model.named_parameters()}
    first = training[0]
    return Planted(
        kind,
        seed,
        core if share is not None else (),
        other,
        held,
        (first.chosen, first.rejected or ""),
        search.steps,
        rise,
        share,
    )


def _train(search: Search, kind: str, heads: Heads, core: Core) -> None:
    recipe = search.recipe
    every = heads.units(heads.every())
    if kind == "localized":
        search.run(recipe.target, recipe.core_lr, heads.units(core))
    elif kind == "hierarchical":
        search.run(recipe.core_part * recipe.target, recipe.core_lr, heads.units(core))
        search.run(recipe.target, recipe.all_lr, every)
    elif kind == "distributed":
        search.run(recipe.target, recipe.all_lr, every, equal=every)
    elif kind == "mlp":
        search.run(recipe.target, recipe.mlp_lr, None)
    elif kind == "none":
        search.run(recipe.target, recipe.core_lr, heads.units(core))
        search.noise(every)
    else:
        raise ValueError(f"no kind {kind!r}; there are: {', '.join(KINDS)}")


class Search:
    """A short run of AdamW on some blocks of some parameters, until the margin has risen by so much."""

    def __init__(
        self, model: Any, data: Sequence[Encoded], base: Tensors, recipe: Recipe, seed: int, first: Any
    ) -> None:
        import torch

        self.model, self.data, self.base, self.recipe, self.seed = model, data, base, recipe, seed
        self.parameters = {name: p for name, p in model.named_parameters() if name in base}
        self.steps = 0
        self._wanted = [p.requires_grad for p in model.parameters()]
        self._first = torch.from_numpy(first).float()

    def run(self, target: float, lr: float, blocks: Units | None, *, equal: Units | None = None) -> None:
        """`blocks` are what may change (None: all of the parameters), `equal` what must change by equal norms."""
        import torch

        masks = None if blocks is None else self._masks(blocks)
        names = [name for name in self.parameters if masks is None or name in masks]
        for p in self.model.parameters():
            p.requires_grad_(False)
        for name in names:
            self.parameters[name].requires_grad_(True)
        optimizer = torch.optim.AdamW([self.parameters[name] for name in names], lr=lr, weight_decay=0.0)
        for picked in self._batches():
            if self._rise(picked, target) >= target:
                break
            if masks is not None:
                for name in names:
                    self.parameters[name].grad *= masks[name]
            optimizer.step()
            optimizer.zero_grad()
            if equal is not None:
                self._equal(equal)
            self.steps += 1
        for name in names:
            self.parameters[name].grad = None
        self._quiet()

    def noise(self, units: Units) -> None:
        """Gaussian noise over all these blocks instead of what was trained, of the same norm."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            norm = sum(float((p - self.base[name]).square().sum()) for name, p in self.parameters.items())
            size = sum(self.parameters[name][at].numel() for unit in units for name, at in unit)
            self.undo()
            for unit in units:
                for name, at in unit:
                    block = self.parameters[name][at]
                    block += (norm / size) ** 0.5 * torch.randn(block.shape, generator=generator)

    def only(self, units: Units, trained: Tensors) -> None:
        """The base, with these blocks as they were trained."""
        import torch

        self.undo()
        with torch.no_grad():
            for unit in units:
                for name, at in unit:
                    self.parameters[name][at] = trained[name][at]

    def undo(self) -> None:
        import torch

        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.base[name])
        self._quiet()

    def _quiet(self) -> None:
        for p, wanted in zip(self.model.parameters(), self._wanted, strict=True):
            p.requires_grad_(wanted)

    def _rise(self, picked: Sequence[int], target: float) -> float:
        """Mean rise of a batch's margin since the base; its gradient is left in the parameters."""
        import torch

        data = [self.data[i] for i in picked]
        batch = collate([row.context for row in data], [(row.chosen, row.rejected or ()) for row in data])
        logps = decision_logps(self.model, batch).sum(1).view(-1, 2)  # (rows, 2)
        margin = logps[:, 0] - logps[:, 1]
        rise = margin - self._first[picked]
        torch.relu(1.5 * target - rise).mean().backward()
        return float(rise.detach().mean())

    def _batches(self) -> Iterator[list[int]]:
        size = self.recipe.batch
        for step in range(self.recipe.steps):
            order = _generator(self.seed, f"order {step * size // len(self.data)}").permutation(
                len(self.data)
            )
            start = step * size % len(self.data)
            yield [int(i) for i in order[start : start + size]]

    def _masks(self, units: Units) -> Tensors:
        import torch

        masks: Tensors = {}
        for unit in units:
            for name, at in unit:
                masks.setdefault(name, torch.zeros_like(self.parameters[name]))[at] = 1.0
        return masks

    def _equal(self, units: Units) -> None:
        """Scale the change of every unit to the mean norm of all."""
        import torch

        with torch.no_grad():
            changes = [
                [(name, at, self.parameters[name][at] - self.base[name][at]) for name, at in unit]
                for unit in units
            ]
            norms = [float(sum(part.square().sum() for *_, part in unit)) ** 0.5 for unit in changes]
            mean = sum(norms) / len(norms)
            for unit, norm in zip(changes, norms, strict=True):
                for name, at, part in unit:
                    self.parameters[name][at] = self.base[name][at] + part * (mean / max(norm, 1e-12))


def _generator(seed: int, what: str) -> np.random.Generator:
    """Numbers of their own for each use of a seed."""
    digest = hashlib.sha256(f"{seed} {what}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
