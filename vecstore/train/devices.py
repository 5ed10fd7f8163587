"""Where a run computes, in which dtype, and whether it will fit: asked before anything is begun."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

__all__ = [
    "Estimate",
    "compute_dtype",
    "estimate",
    "free_memory",
    "out_of_memory",
    "pick_device",
    "weights_memory",
]

F32 = 4
LESS = (
    "less at a time: --micro-tokens 512; activations computed again: --gradient-checkpointing; "
    "fewer numbers that are trained: --adapter lora:16"
)


def pick_device(name: str) -> torch.device:
    """Raises UsageError for one that is not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, here in there.items() if here)
    if not there.get(name, False):
        why = (
            "this torch was built without it"
            if name == "cuda" and torch.version.cuda is None
            else "none is found"
        )
        raise UsageError(
            f"no device {name!r} here: {why}",
            hint=f"there is: {', '.join(kind for kind, here in there.items() if here)}; --device auto takes the best",
        )
    return torch.device(name, torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products; masters, moments and sums stay in fp32. Raises UsageError."""
    import torch

    has = device.type == "cpu" or (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    if name == "bf16" and not has:
        raise UsageError(f"{device.type} does not compute in bf16 here", hint="leave --dtype out")
    if name == "auto" and device.type == "cpu":
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        name = "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"
    half = name == "bf16" or (name == "auto" and device.type == "cuda" and has)
    return torch.bfloat16 if half else torch.float32


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes on the device at the worst moment, by what they are for, and seconds for all steps; rough."""

    parts: Mapping[str, int]
    free: int | None
    seconds: float

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    def checked(self, device: torch.device) -> Estimate:
        """Raises UsageError if it cannot fit."""
        if self.free is not None and self.needed > self.free:
            told = ", ".join(f"{name} {_size(nbytes)}" for name, nbytes in self.parts.items() if nbytes)
            raise UsageError(
                f"training needs about {_size(self.needed)} of memory on {device.type}, {_size(self.free)} are free "
                f"({told})",
                hint=LESS,
            )
        return self

    def __str__(self) -> str:
        free = "" if self.free is None else f" of {_size(self.free)} that are free"
        return f"it takes about {_size(self.needed)} of memory{free}, and about {_duration(self.seconds)}"


def weights_memory(
    shapes: Iterable[tuple[int, ...]], trained: Iterable[tuple[int, ...]], options: TrainOptions
) -> dict[str, int]:
    """What is known before a model is loaded: weights, gradients and the optimizer's state."""
    trained = list(trained)
    numbers = sum(map(math.prod, trained))
    state = 2 * numbers if options.optimizer == "adamw" else sum(_apollo(s, options.rank) for s in trained)
    return {
        "weights": F32 * sum(map(math.prod, shapes)),
        "gradients": F32 * numbers,
        "optimizer": F32 * state,
    }


def estimate(
    model: Any,
    parts: Mapping[str, int],
    data: list[Encoded],
    options: TrainOptions,
    device: torch.device,
    free: int | None,
) -> Estimate:
    """The model is loaded, on the CPU; `free` was so before. What runs at a time is at most a row or `micro_tokens`."""
    text = model.config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    answers = [len(row.chosen) + len(row.rejected or ()) for row in data]
    whole = [len(row.context) + n for row, n in zip(data, answers, strict=True)]
    share = 1.0 if not options.frozen_context else max(a / w for a, w in zip(answers, whole, strict=True))
    at_once = max(max(whole), min(options.micro_tokens, options.batch * max(whole)))
    with_gradient = math.ceil(at_once * share)
    layer = 10 * hidden + 4 * inner
    kept = layers * hidden + layer if options.gradient_checkpointing else layers * layer
    activations = F32 * with_gradient * kept
    logits = F32 * 4 * with_gradient * int(text.vocab_size)
    total = sum(p.numel() for p in model.parameters())
    steps = options.steps(len(data))
    rows = steps * min(options.batch, len(data))
    gradient_share = sum(answers) / sum(whole) if options.frozen_context else 1.0
    tokens = rows * sum(whole) / len(data)
    flops = 2 * total * tokens * (1 + gradient_share * (3 if options.gradient_checkpointing else 2))
    return Estimate({**parts, "activations": activations, "logits": logits}, free, flops / _speed(device))


def free_memory(device: torch.device) -> int | None:
    """Bytes that may be taken on it; None where nobody says."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    found = [_meminfo(), _cgroup()]
    return min((n for n in found if n is not None), default=None)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether that is what a RuntimeError of torch's says."""
    import torch

    words = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "out of memory" in words
        or "can't allocate memory" in words
    )


def _apollo(shape: tuple[int, ...], rank: int) -> int:
    """Numbers of its state: two moments of (channels, rank)."""
    if len(shape) not in (2, 3) or min(shape[-2:]) <= 1:
        return 2 * math.prod(shape)
    return 2 * math.prod(shape[:-2]) * max(shape[-2:]) * min(rank, *shape[-2:])


def _speed(device: torch.device) -> float:
    """Floating-point operations a second, of a product of about the size of a model's; half of it is hoped for."""
    import torch

    side = 384 if device.type == "cpu" else 2048
    a = torch.ones(side, side, device=device)
    float((a @ a)[0, 0])
    began = time.perf_counter()
    for _ in range(4):
        b = a @ a
    float(b[0, 0])
    return 0.5 * 4 * 2 * side**3 / max(time.perf_counter() - began, 1e-9)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _cgroup() -> int | None:
    """What a container may still take."""
    folder = Path("/sys/fs/cgroup")
    for names in ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"):
        here = folder if names[0] == "memory.max" else folder / "memory"
        try:
            most, used = ((here / name).read_text().strip() for name in names)
            if most.isdigit() and int(most) < 1 << 60:
                return max(0, int(most) - int(used))
        except (OSError, ValueError):
            continue
    return None


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
