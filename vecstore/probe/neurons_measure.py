"""What is measured of a scope of neurons: curves by ranking, step by step, along few directions, and off target.

Neurons take what they do in B (a + delta) at the deciding position; nothing else of A is changed. Each function gives
plain JSON, one part of a record: margins row by row, so that whoever reads it can resample rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.vecstore.probe.neurons_pass import Deciding, Decisions, Patch, State
from pv.vecstore.probe.neurons_rank import first_of, masked, ranking
from pv.vecstore.probe.neurons_sites import Layout, Scope

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "ALPHAS",
    "CHUNK",
    "GRID",
    "KEEPS",
    "Contrast",
    "ceiling",
    "chosen_rank",
    "contrast",
    "directions",
    "integrated",
    "iterated",
    "off_target",
    "one_layer",
    "said",
    "schedule",
    "swept",
]

GRID = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1536)
CHUNK = 50  # neurons patched before the gradient is taken again
FIRST_STEPS = (10, 20)
ALPHAS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
KEEPS = 0.8  # of the ceiling, that few directions are to keep
LAYER_K = 50  # neurons by which layers are compared


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Rows at their deciding positions: A's model, ready to be patched, what A does there, and what B does."""

    runs: Decisions
    clean: State
    source: State

    @property
    def layout(self) -> Layout:
        return self.runs.layout

    @property
    def delta(self) -> torch.Tensor:
        """(n, D)"""
        return self.source.activations - self.clean.activations

    def whole(self, scope: Scope) -> Patch:
        """All neurons of a scope take what they do in B."""
        import torch

        mask = torch.zeros(len(self.runs), self.layout.total, dtype=torch.bool)
        mask[:, scope.slice] = True
        return Patch(self.source.activations, mask)


def contrast(
    model: PreTrainedModel,
    swapped: Callable[[], AbstractContextManager[Any]],
    layout: Layout,
    rows: Sequence[Deciding],
) -> Contrast:
    """`swapped()`: a block in which the model has B's weights."""
    with swapped():
        source = Decisions(model, layout, rows).run()
    runs = Decisions(model, layout, rows)
    return Contrast(runs, runs.run(), source)


def ceiling(found: Contrast, scope: Scope) -> dict[str, Any]:
    """All neurons of the scope patched."""
    return said(found.runs.run(found.whole(scope)))


def one_layer(found: Contrast, gradient: torch.Tensor) -> list[float]:
    """The mean margin of each MLP with its first 50 neurons patched."""
    means = []
    for at in range(len(found.layout.modules)):
        scope = found.layout.one(at)
        k = min(LAYER_K, scope.size)
        order = ranking(found.delta * gradient, scope, k, positive=True)
        state = found.runs.run(masked(order, k, found.source.activations))
        means.append(float(state.margin.double().mean()))
    return means


def integrated(found: Contrast, scope: Scope, steps: int) -> torch.Tensor:
    """(n, D): delta times the mean gradient on the straight way from A's activations to B's, all of the scope at once.

    Its sum over the scope is what patching all of it does, but for the steps.
    """
    import torch

    whole, total = found.whole(scope), torch.zeros_like(found.delta)
    for step in range(steps):
        values = found.clean.activations + (step + 0.5) / steps * found.delta
        total += found.runs.gradient(scope, Patch(values, whole.mask))[0]
    return found.delta * total / steps


def swept(
    found: Contrast,
    order: torch.Tensor,
    ks: Sequence[int],
    *,
    scores: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
) -> dict[str, Any]:
    """The first k of a ranking (n or 1, K) patched, for every k. With scores (n, D), what they predict: their sum."""
    order = order.expand(len(found.runs), -1)
    points = []
    for k in ks:
        patch = masked(order, k, found.source.activations if values is None else values)
        state = found.runs.run(patch)
        point = said(state) | _drift(found, state) | {"count": patch.mask.sum(1).tolist()}
        if scores is not None:
            point["predicted"] = (scores * patch.mask).double().sum(1).tolist()
        points.append(point)
    return _columns(points)


def schedule(scope: Scope, most: int) -> list[int]:
    """How many neurons are patched after each step: 10, 20, 50, then 50 more at a time."""
    most = min(most, scope.size)
    steps = [*FIRST_STEPS, *range(CHUNK, most, CHUNK), most]
    return sorted({step for step in steps if step <= most})


def iterated(found: Contrast, scope: Scope, steps: Sequence[int]) -> dict[str, Any]:
    """A few neurons patched, gradient and delta taken again there, and so on: until no score is above 0."""
    import torch

    goal = found.source.activations
    mask = torch.zeros(len(found.runs), found.layout.total, dtype=torch.bool)
    gradient, state = found.runs.gradient(scope)
    points, before = [], 0
    for k in steps:
        scores = (goal - state.activations) * gradient * ~mask
        mask |= first_of(ranking(scores, scope, k - before, positive=True), k - before, mask.shape[1])
        gradient, state = found.runs.gradient(scope, Patch(goal, mask))
        points.append(said(state) | _drift(found, state) | {"count": mask.sum(1).tolist()})
        before = k
    return {"k": list(steps), **_columns(points)}


def directions(first: Contrast, second: Contrast, scope: Scope, ranks: Sequence[int]) -> list[dict[str, Any]]:
    """Delta's projection on its first r directions, times alpha: both found on the first rows, tried on the second.

    Directions are the right singular vectors of the first rows' deltas (rows, W), not centred: the mean counts. Alpha
    is the one whose mean margin comes closest to that of the full patch: further is easy, and says nothing of it.
    """
    goal = float(first.runs.run(first.whole(scope)).margin.double().mean())
    before = float(first.clean.margin.double().mean())
    points = []
    for rank in ranks:
        basis = _basis(first, scope, rank)
        by_alpha = {}
        for alpha in ALPHAS:
            state = first.runs.run(_along(first, scope, basis, alpha))
            by_alpha[alpha] = float(state.margin.double().mean())
        best = min(ALPHAS, key=lambda alpha: (abs(by_alpha[alpha] - goal), alpha))
        point = said(second.runs.run(_along(second, scope, basis, best)))
        plain = second.runs.run(_along(second, scope, basis, 1.0))
        inside = second.delta[:, scope.slice].double()
        kept = (inside @ basis.double()).square().sum() / inside.square().sum().clamp_min(1e-30)
        points.append(
            {"rank": rank, "alpha": best, "first": _part(by_alpha[best] - before, goal - before), **point}
            | {"plain": plain.margin.tolist(), "variance": float(kept)}
        )
    return points


def chosen_rank(points: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of what `directions` gave the fewest that keep `KEEPS` of the ceiling on the first rows; all, if none do."""
    return next((one for one in points if one["first"] >= KEEPS), points[-1])


def off_target(
    neutral: Contrast,
    scope: Scope,
    ks: Sequence[int],
    orders: dict[str, torch.Tensor],
    mean: torch.Tensor,
    low: tuple[Contrast, int, float],
) -> dict[str, Any]:
    """KL(A || patched) of the next token at prompts that are about something else, in nats, prompt by prompt.

    `orders`: shared rankings (1, K); each neuron takes what it does in B at that prompt, those of "fixed" what A does
    there plus `mean` (D,). `low`: the rows that directions are of, how many, alpha.
    """
    found: dict[str, Any] = {}
    for name, order in orders.items():
        values = neutral.clean.activations + mean if name == "fixed" else neutral.source.activations
        order = order.expand(len(neutral.runs), -1)
        found[name] = []
        for k in ks:
            found[name].append(_kl(neutral, neutral.runs.run(masked(order, k, values))))
        first, rank, alpha = low
    patch = _along(neutral, scope, _basis(first, scope, rank), alpha)
    found["directions"] = _kl(neutral, neutral.runs.run(patch))
    found["full"] = _kl(neutral, neutral.runs.run(neutral.whole(scope)))
    found["b"] = _kl(neutral, neutral.source)
    return found


def _basis(found: Contrast, scope: Scope, rank: int) -> torch.Tensor:
    """(W, rank)"""
    import torch

    _, _, rows = torch.linalg.svd(found.delta[:, scope.slice].double(), full_matrices=False)
    basis: torch.Tensor = rows[:rank].T.float()
    return basis


def _part(effect: float, ceiling: float) -> float:
    return effect / ceiling if ceiling else 0.0


def _along(found: Contrast, scope: Scope, basis: torch.Tensor, alpha: float) -> Patch:
    values = found.clean.activations.clone()
    values[:, scope.slice] += alpha * (found.delta[:, scope.slice] @ basis) @ basis.T
    return Patch(values, found.whole(scope).mask)


def _kl(found: Contrast, state: State) -> list[float]:
    import torch

    before, after = (torch.log_softmax(one.logits.double(), -1) for one in (found.clean, state))
    values: list[float] = (before.exp() * (before - after)).sum(-1).tolist()
    return values


def said(state: State) -> dict[str, Any]:
    return {"margin": state.margin.tolist(), "top": [int(one) for one in state.top]}


def _drift(found: Contrast, state: State) -> dict[str, Any]:
    """Cosine of all neurons' activations with B's, and of how they moved with how B's differ: 1 is B itself."""
    from torch.nn.functional import cosine_similarity

    moved = state.activations - found.clean.activations
    return {
        "cosine": cosine_similarity(state.activations, found.source.activations, dim=1).tolist(),
        "moved": cosine_similarity(moved, found.delta, dim=1).tolist(),
    }


def _columns(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One dict of lists, k by k, of a list of dicts."""
    return {key: [point[key] for point in points] for key in points[0]}
