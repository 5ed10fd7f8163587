"""A sweep made of numbers: effects that grow with the coefficient, most in the middle, until text breaks.

`from support.sweeps import made_sweep`. The same arguments give the same sweep.
"""

from __future__ import annotations

import numpy as np

from pv.vecstore.evaluate.damage import Neutral
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import bootstrap, share
from pv.vecstore.evaluate.steering_sweep import Measured, Place, Sweep, cell_of
from pv.vecstore.models.generate import Reply

__all__ = ["LOOP", "SAID", "made_sweep", "measured"]

SAID = Reply("All is well.", tuple(range(8)), "stop")
LOOP = Reply("la la la la", (1,) * 24, "length")
ROWS, PROMPTS, TEXTS = 20, 12, 6


def measured(shift: float = 0.0, lost: float = 0.0, broken: int = 0) -> Measured:
    """Margins moved by about `shift`, `lost` nats a token on answers and texts, and so many of 12 replies broken."""
    noise = np.random.default_rng(0).standard_normal((3, ROWS))
    chosen = -40 + 3 * noise[0] + shift * (1 + 0.3 * noise[1])
    margins = Margins(chosen, -38 + 3 * noise[2], np.full(ROWS, 20.0), np.full(ROWS, 20.0))
    tokens = np.repeat([30.0, 60.0], TEXTS)
    each = -2 - lost * (1 + 0.2 * np.random.default_rng(1).standard_normal(2 * TEXTS))
    zero = np.zeros(2 * TEXTS)
    neutral = Neutral(
        zero, each * tokens, zero, zero, tokens, zero, lost * tokens, np.repeat([0.0, 1.0], TEXTS)
    )
    return Measured(margins, neutral, [LOOP] * broken + [SAID] * (PROMPTS - broken))


def made_sweep(
    layers: tuple[int, ...] = (3, 9, 15, 21, 27),
    coefficients: tuple[float, ...] = (-2, -1, 0.5, 1, 2, 4, 8),
    *,
    limit: float = 0.05,
) -> Sweep:
    before = measured()
    cells = []
    for layer in layers:
        for c in coefficients:
            place = Place(f"model.layers.{layer}", layer)
            gain = 6 * np.exp(-(((layer - 14) / 7) ** 2))
            after = measured(gain * np.tanh(c / 3), 0.012 * c * c * gain / 4, 12 if abs(c) * gain > 30 else 0)
            cells.append(cell_of(place, c, f"{layer:032x}{abs(hash(c)):032x}", 0.1 * abs(c), after, before))
    won = share(int((before.margins.margin > 0).sum()), ROWS)
    return Sweep(
        "c" * 40, "formal", "f" * 64, "all", "add", "formal.heldout.jsonl", "d" * 64, "a part of pv's neutral set",
        "e" * 64, 12, PROMPTS, 48, limit, bootstrap(before.margins.margin), won, share(0, PROMPTS), tuple(cells),
    )  # fmt: skip
