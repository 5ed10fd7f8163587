"""Apollo and Apollo-Mini beside AdamW on a tiny language model, each at the best of the same learning rates.

The model learns this project's own documentation, byte by byte; the loss is that of the last tenth, never trained on.
Every optimizer has the same rates, steps, batches and initial weights, over several seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.kit import Bars
from pv.vecstore.train.apollo import Apollo, ApolloMini

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SEEDS, STEPS, BATCH, LENGTH, HIDDEN = (0, 1, 2), 300, 16, 64, 64
RANK = HIDDEN // 8
DOCS = Path(__file__).resolve().parent.parent / "docs"
KINDS: dict[str, Callable[[Any, float, int], torch.optim.Optimizer]] = {
    "adamw": lambda named, lr, seed: torch.optim.AdamW(named, lr=lr, weight_decay=0.0),
    "apollo": lambda named, lr, seed: Apollo(named, lr=lr, rank=RANK, seed=seed),
    "apollo, gaussian": lambda named, lr, seed: Apollo(
        named, lr=lr, rank=RANK, seed=seed, projection="gaussian"
    ),
    "apollo-mini": lambda named, lr, seed: ApolloMini(named, lr=lr, seed=seed),
}


def main() -> bool:
    bars = Bars()
    torch.set_num_threads(1)
    text = torch.frombuffer(
        bytearray(b"".join(p.read_bytes() for p in sorted(DOCS.glob("*.md")))), dtype=torch.uint8
    )
    cut = len(text) * 9 // 10
    best: dict[str, list[float]] = {}
    for kind in KINDS:
        losses = {lr: [_loss(kind, lr, seed, text[:cut], text[cut:]) for seed in SEEDS] for lr in RATES}
        lr, best[kind] = min(losses.items(), key=lambda item: statistics.mean(item[1]))
        print(
            f"  {kind}: {', '.join(f'{lr:g}: {statistics.mean(x):.3f}' for lr, x in losses.items())}",
            flush=True,
        )
        apart = [a - b for a, b in zip(best[kind], best["adamw"], strict=True)]
        spread = statistics.stdev(apart) if len(apart) > 1 else 0.0
        bars.say(
            f"{kind}, best rate {lr:g}", f"{statistics.mean(best[kind]):.3f} nats, {statistics.mean(apart):+.3f} ± "
            f"{spread:.3f}", "validation loss no worse than AdamW's", kind == "adamw" or statistics.mean(apart) <= 0.01,
        )  # fmt: skip
    return bars.all_hold


def _loss(kind: str, lr: float, seed: int, train: torch.Tensor, held: torch.Tensor) -> float:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256, hidden_size=HIDDEN, intermediate_size=3 * HIDDEN, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
        )
    )  # fmt: skip
    optimizer = KINDS[kind](list(model.named_parameters()), lr, seed)
    order = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 30) * (1 - step / STEPS)
        _nll(model, _batch(train, order)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    fixed = torch.Generator().manual_seed(99)
    with torch.no_grad():
        return statistics.mean(float(_nll(model, _batch(held, fixed))) for _ in range(20))


def _batch(text: torch.Tensor, order: torch.Generator) -> torch.Tensor:
    at = torch.randint(len(text) - LENGTH, (BATCH,), generator=order)
    return torch.stack([text[i : i + LENGTH] for i in at.tolist()]).long()


def _nll(model: Any, ids: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=ids, labels=ids).loss
    return found
