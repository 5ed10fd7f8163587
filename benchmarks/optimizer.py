"""Apollo beside torch's AdamW on the matrices and norms of a 135M model: seconds and bytes; and what a sketch does.

Times are medians of rounds in which every optimizer steps once, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.kit import Bars
from pv.vecstore.train.apollo import Apollo, ApolloMini

SHAPES = {"q": (576, 576), "k": (192, 576), "v": (192, 576), "o": (576, 576),
          "gate": (1536, 576), "up": (1536, 576), "down": (576, 1536), "norm1": (576,), "norm2": (576,)}  # fmt: skip
LAYERS, ROUNDS, RANK = 30, 15, 32
Named = list[tuple[str, torch.nn.Parameter]]


def main() -> bool:
    bars = Bars()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        _times(bars, threads)
    torch.set_num_threads(1)
    _shrinking(bars)
    _bytes(bars)
    return bars.all_hold


def _model() -> Named:
    named = [
        (f"{i}.{name}", torch.randn(shape) * 0.02) for i in range(LAYERS) for name, shape in SHAPES.items()
    ]
    found = [(name, torch.nn.Parameter(value)) for name, value in named]
    for _, p in found:
        p.grad = torch.randn_like(p) * 1e-3
    return found


def _times(bars: Bars, threads: int) -> None:
    named = _model()
    params = [p for _, p in named]
    adamw = torch.optim.AdamW(params, lr=1e-4, fused=True)

    def clipped() -> None:
        torch.nn.utils.clip_grad_norm_(params, 1e9)
        adamw.step()

    steps: dict[str, Callable[[], object]] = {
        "adamw fused": adamw.step,
        "adamw fused and clip_grad_norm_": clipped,
        "adamw foreach": torch.optim.AdamW(params, lr=1e-4, foreach=True).step,
        f"apollo {RANK}": Apollo(named, lr=1e-4, rank=RANK).step,
        f"apollo {RANK}, max_norm": Apollo(named, lr=1e-4, rank=RANK, max_norm=1e9).step,
        f"apollo {RANK}, gaussian": Apollo(named, lr=1e-4, rank=RANK, projection="gaussian").step,
        "apollo-mini": ApolloMini(named, lr=1e-4).step,
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(ROUNDS + 2):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn > 1:
                taken[name].append(time.perf_counter() - started)
    for name, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, taken["adamw fused"], strict=True))
        asked = name in (f"apollo {RANK}", "apollo-mini")
        bars.say(
            f"{name}, {threads} thread{'s' * (threads > 1)}",
            f"{statistics.median(seconds) * 1e3:.0f} ms, {ratio:.2f} of fused",
            "<= 1.5 of AdamW(fused=True)" if asked else "",
            ratio <= 1.5 or not asked,
        )


def _shrinking(bars: Bars) -> None:
    """s_R / s: the factors from a sketch beside those of the whole gradient, for gradients of many kinds."""
    for shape in ((512, 512), (512, 1408), (1408, 512)):
        for rank in (8, 64, 256):
            found = factor_ratio(shape, rank)
            theory = math.sqrt(rank / min(shape))
            error = found / theory - 1
            bars.say(
                f"s_R / s, {shape[0]} x {shape[1]}, rank {rank}", f"{found:.3f}, theory {theory:.3f}",
                "within 3 %", abs(error) <= 0.03,
            )  # fmt: skip


def factor_ratio(shape: tuple[int, int], rank: int, steps: int = 10) -> float:
    """‖s_R ⊙ G‖ / ‖s ⊙ G‖ at the last of some steps: s is Apollo's own, with the whole gradient as sketch."""
    k = min(shape)
    sizes = []
    for r in (rank, k):
        generator = torch.Generator().manual_seed(0)
        p = torch.nn.Parameter(torch.zeros(shape))
        optimizer = Apollo([("w", p)], lr=1.0, rank=r, scale=1.0, growth=1e9)
        for _ in range(steps):
            before = p.detach().clone()
            p.grad = torch.randn(shape, generator=generator)
            optimizer.step()
        sizes.append(float((p.detach() - before).norm()))
    return sizes[0] / sizes[1]


def _bytes(bars: Bars) -> None:
    """Moments of the matrices: 2·c·r floats each, beside AdamW's 2·c·k."""
    for rank, expected in ((72, 72 / 576), (RANK, RANK / 576)):
        named = [(name, p) for name, p in _model() if p.ndim == 2]
        ours, theirs = Apollo(named, lr=1e-4, rank=rank), torch.optim.AdamW([p for _, p in named], lr=1e-4)
        sizes = []
        for optimizer in (ours, theirs):
            optimizer.step()
            kept = (x for state in optimizer.state.values() for x in state.values())
            sizes.append(sum(x.numel() * x.element_size() for x in kept if x.ndim))
        formula = sum(8 * max(p.shape) * min(rank, *p.shape) for _, p in named)
        bars.say(
            f"state of apollo {rank}", f"{sizes[0] / 2**20:.1f} MiB, {sizes[0] / sizes[1]:.3f} of AdamW's",
            f"= 2·c·r floats; <= 1/4 at rank n/8 ({expected:.3f} of a square)",
            sizes[0] == formula and (rank > 72 or sizes[0] <= sizes[1] / 4),
        )  # fmt: skip
