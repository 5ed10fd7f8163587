"""How much every head does otherwise in B than in A, on the same texts, and how much noise would do.

At the answer's tokens and the last one of the prompt, where the answer's first token comes from:

    change(h)   = ||z_B(h) − z_A(h)|| / ||z_A(h)||, z what the head gives to o_proj: each model in its own stream
    own(h)      = the same of W_o(h) z(h), what the head writes; with B's weights of this head on A's stream, so that
                  what came from other parts is left out
    pattern(h)  = half the L1 distance of its attention to each token, averaged over positions (total variation)

The null of `own` is Gaussian noise in place of the change of the weights, of the same Frobenius norm in each matrix.
All norms are over positions and components together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.activations.hooks import captured
from pv.vecstore.activations.reading import Text
from pv.vecstore.probe.graft import swapped
from pv.vecstore.probe.parts import Attention, Parts
from pv.vecstore.tensors.philox import stream_key

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["HeadChange", "generator", "head_change"]

F64 = NDArray[np.float64]
TOKENS = 1 << 12  # in a batch, padding included
Weights = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True, eq=False)
class HeadChange:
    """Of every head, in the order of `Parts.heads`: (H,), and `null` (draws, H).

    Of layers with linear attention, by layer: the change of their output, each model in its own stream; `linear_own`
    on A's; `states` of their recurrent state after a text's last token, if the cache shows one.
    """

    change: F64
    own: F64
    pattern: F64
    null: F64
    linear: Mapping[int, float]
    linear_own: Mapping[int, float]
    states: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "change": self.change.tolist(),
            "own": self.own.tolist(),
            "pattern": self.pattern.tolist(),
            "null": self.null.tolist(),
            "linear": {str(layer): value for layer, value in self.linear.items()},
            "linear_own": {str(layer): value for layer, value in self.linear_own.items()},
            "states": {str(layer): value for layer, value in self.states.items()},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> HeadChange:
        change, own, pattern, null = (
            np.array(value[name], np.float64) for name in ("change", "own", "pattern", "null")
        )
        linear, linear_own, states = (
            {int(layer): float(number) for layer, number in value[name].items()}
            for name in ("linear", "linear_own", "states")
        )
        return HeadChange(change, own, pattern, null, linear, linear_own, states)


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one name: they depend on nothing else."""
    first, second = stream_key(seed, name)
    return np.random.Generator(np.random.Philox(key=first << 32 | second))


def head_change(
    model: PreTrainedModel,
    other: Weights,
    parts: Parts,
    texts: Sequence[Text],
    *,
    draws: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> HeadChange:
    """`model` has A's weights, `other` has B's. `progress(done, total)` counts texts. The model is left as it was."""
    import torch

    sums = _Sums(len(parts.heads), draws)
    done = 0
    with torch.no_grad(), _eager(model):
        for batch in _batches(texts, model.device):
            a = _forward(model, parts, batch)
            with swapped(model, other):
                b = _forward(model, parts, batch)
            b.inputs.clear()
            at = 0
            for one in parts.attention:
                heads = slice(at, at := at + one.heads)
                sums.add("change", heads, a.z[one.layer], b.z[one.layer])
                sums.patterns(heads, a.pattern.get(one.layer), b.pattern.get(one.layer))
                _own(model, other, one, a, batch, sums, heads, seed)
            for layer, output in a.linear.items():
                sums.of_linear("linear", layer, output, b.linear[layer])
                module, inputs = a.inputs[layer]
                with swapped(module, _within(model, module, other)):
                    sums.of_linear(
                        "linear_own", layer, output, batch.read(module.forward(*inputs[0], **inputs[1]))
                    )
            done += batch.count
            if progress is not None:
                progress(done, len(texts))
        for text in texts if parts.linear else ():
            a_states = _states(model, parts, text)
            with swapped(model, other):
                b_states = _states(model, parts, text)
            for layer, state in a_states.items():
                sums.of_linear("states", layer, state, b_states[layer])
    return sums.result()


def _states(model: PreTrainedModel, parts: Parts, text: Text) -> dict[int, torch.Tensor]:
    """The recurrent state of each layer with linear attention after one text, which runs alone: no padding."""
    import torch

    ids = torch.tensor([text.tokens], device=model.device)
    cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    layers = getattr(cache, "layers", ())
    found = {
        layer: getattr(layers[layer], "recurrent_states", None)
        for layer in parts.linear
        if layer < len(layers)
    }
    return {layer: states[0] for layer, states in found.items() if isinstance(states, dict) and 0 in states}


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention that gives its pattern."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Texts, padded at the right; `rows` and `columns` are the positions that are read: (N,) each."""

    ids: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @property
    def count(self) -> int:
        return len(self.ids)

    def read(self, found: Any) -> torch.Tensor:
        """(B, T, ...) to (N, ...)."""
        tensor: torch.Tensor = found[0] if isinstance(found, tuple | list) else found
        return tensor[self.rows, self.columns]


def _batches(texts: Sequence[Text], device: Any) -> Iterator[_Batch]:
    import torch

    order = sorted(range(len(texts)), key=lambda i: (len(texts[i].tokens), i))
    while order:
        count = 1
        while count < len(order) and (count + 1) * len(texts[order[count]].tokens) <= TOKENS:
            count += 1
        picked, order = [texts[i] for i in order[:count]], order[count:]
        width = len(picked[-1].tokens)
        ids = torch.zeros(count, width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        read = torch.zeros_like(ids)
        for at, text in enumerate(picked):
            ids[at, : len(text.tokens)] = torch.tensor(text.tokens)
            mask[at, : len(text.tokens)] = 1
            read[at, len(text.prompt) - 1 : len(text.tokens) - text.ended] = 1
        rows, columns = torch.nonzero(read, as_tuple=True)
        yield _Batch(*(one.to(device) for one in (ids, mask, rows, columns)))


@dataclass(slots=True, eq=False)
class _Seen:
    """What one forward pass gave, by layer: z (N, heads, d), patterns (N, heads, T); what went into each mixer."""

    z: dict[int, torch.Tensor] = field(default_factory=dict)
    pattern: dict[int, torch.Tensor] = field(default_factory=dict)
    linear: dict[int, torch.Tensor] = field(default_factory=dict)
    inputs: dict[int, tuple[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]] = field(default_factory=dict)


def _forward(model: PreTrainedModel, parts: Parts, batch: _Batch) -> _Seen:
    found = _Seen()
    handles = []
    mixers = {at.layer: model.get_submodule(at.module) for at in parts.attention}
    mixers |= {layer: model.get_submodule(name) for layer, name in parts.linear.items()}
    for layer, module in mixers.items():

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any, layer: int = layer) -> None:
            found.inputs[layer] = (module, (args, kwargs))
            if layer in parts.linear:
                found.linear[layer] = batch.read(output)
            elif isinstance(output, tuple) and len(output) > 1 and output[1] is not None:
                found.pattern[layer] = output[1].transpose(1, 2)[batch.rows, batch.columns]

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        with captured(model, [f"{at.out}:input" for at in parts.attention]) as seen:
            model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    for at in parts.attention:
        found.z[at.layer] = _by_head(batch.read(seen[f"{at.out}:input"]), at)
    return found


def _by_head(z: torch.Tensor, at: Attention) -> torch.Tensor:
    return z.view(len(z), at.heads, -1)


def _own(
    model: PreTrainedModel,
    other: Weights,
    at: Attention,
    a: _Seen,
    batch: _Batch,
    sums: _Sums,
    heads: slice,
    seed: int,
) -> None:
    """What the heads of a layer write on A's stream: with A's weights, with B's, and with noise in their change."""
    import torch

    module = model.get_submodule(at.module)
    prefix = f"{at.module}."
    own = dict(module.named_parameters())
    delta = {name: other[prefix + name] - parameter for name, parameter in own.items()}
    if not any(bool(change.any()) for change in delta.values()):
        sums.add("own", heads, a.z[at.layer], a.z[at.layer])
        return
    before = _written(model, at, a.z[at.layer])
    sums.add("own", heads, before, _written_with(model, at, delta, a, batch))
    for draw in range(sums.draws):
        noise = {}
        for name, change in delta.items():
            drawn = generator(seed, f"noise {draw} {prefix}{name}").standard_normal(change.shape, np.float32)
            drawn_ = torch.from_numpy(drawn).to(change)
            noise[name] = drawn_ * (change.norm() / drawn_.norm())
        sums.add(draw, heads, before, _written_with(model, at, noise, a, batch))


def _written_with(model: Any, at: Attention, delta: Weights, a: _Seen, batch: _Batch) -> torch.Tensor:
    """(N, heads, D) with these changes of the attention module's parameters."""
    module, (args, kwargs) = a.inputs[at.layer]
    own = dict(module.named_parameters())
    changed = {name: own[name].data + change for name, change in delta.items()}
    with swapped(module, changed), captured(model, [f"{at.out}:input"]) as seen:
        module.forward(*args, **kwargs)
        return _written(model, at, _by_head(batch.read(seen[f"{at.out}:input"]), at))


def _written(model: Any, at: Attention, z: torch.Tensor) -> torch.Tensor:
    """(N, heads, d) to what each head adds, before any bias: (N, heads, D)."""
    import torch

    out = model.get_submodule(at.out)
    weight = out.weight  # (D, heads * d); GPT-2's is the other way round
    if type(out).__name__ == "Conv1D":
        weight = weight.T
    return torch.einsum("nhd,ohd->nho", z, weight.view(len(weight), at.heads, -1))


def _within(model: nn.Module, module: nn.Module, other: Weights) -> dict[str, torch.Tensor]:
    """The other model's parameters of one module, by their names in it."""
    prefix = next(name for name, one in model.named_modules() if one is module)
    return {name: other[f"{prefix}.{name}"] for name, _ in module.named_parameters()}


class _Sums:
    """Sums of squares over positions: of differences, and of A."""

    def __init__(self, heads: int, draws: int) -> None:
        self.draws = draws
        self.far: dict[Any, F64] = {key: np.zeros(heads) for key in ("change", "own", *range(draws))}
        self.size = {key: np.zeros(heads) for key in self.far}
        self.varied, self.positions = np.zeros(heads), np.zeros(heads)
        self.linear: dict[tuple[str, int], tuple[float, float]] = {}

    def add(self, key: Any, heads: slice, a: torch.Tensor, b: torch.Tensor) -> None:
        """(N, heads, d) each."""
        self.far[key][heads] += (b - a).double().square().sum((0, 2)).cpu().numpy()
        self.size[key][heads] += a.double().square().sum((0, 2)).cpu().numpy()

    def patterns(self, heads: slice, a: torch.Tensor | None, b: torch.Tensor | None) -> None:
        """(N, heads, T) each; None where the attention gives none."""
        if a is None or b is None:
            return
        self.varied[heads] += (b - a).double().abs().sum((0, 2)).cpu().numpy() / 2
        self.positions[heads] += len(a)

    def of_linear(self, key: str, layer: int, a: torch.Tensor, b: torch.Tensor) -> None:
        far, size = self.linear.get((key, layer), (0.0, 0.0))
        far += float((b - a).double().square().sum())
        self.linear[key, layer] = far, size + float(a.double().square().sum())

    def result(self) -> HeadChange:
        relative = {key: _root(self.far[key], self.size[key]) for key in self.far}
        null = np.array([relative[draw] for draw in range(self.draws)]).reshape(self.draws, len(self.varied))
        linear: dict[str, dict[int, float]] = {"linear": {}, "linear_own": {}, "states": {}}
        for (key, layer), (far, size) in self.linear.items():
            linear[key][layer] = float(_root(np.array([far]), np.array([size]))[0])
        varied = np.divide(
            self.varied, self.positions, out=np.zeros_like(self.varied), where=self.positions > 0
        )
        return HeadChange(relative["change"], relative["own"], varied, null, **linear)


def _root(far: F64, size: F64) -> F64:
    """The ratio of two norms from their squares; 0 where both are 0."""
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.sqrt(far / np.maximum(size, tiny)) * (far > 0))
