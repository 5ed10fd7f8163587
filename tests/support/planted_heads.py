"""A tiny model whose heads, some or all, are trained to like one answer more: where the change is, is known.

`from support.planted_heads import ROWS, planted`. The same arguments give the same model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.probe.attribution import gradients
from pv.vecstore.probe.parts import parts_of
from support.tiny import tiny_model, tiny_tokenizer

__all__ = ["LAYERS", "ROWS", "planted", "weights"]

LAYERS = 4
STEPS = 6
WORDS = (
    *("bread", "rain", "geese", "moon", "music", "maps", "salt", "bridge"),
    *("tea", "cars", "ships", "trees", "hills", "birds", "clocks", "rivers"),
)


def _rows() -> Rows:
    lines = [
        {"prompt": f"Of {word}?", "chosen": f"Yes {word}.", "rejected": f"No, {word}."} for word in WORDS
    ]
    return parse_rows("".join(json.dumps(line) + "\n" for line in lines).encode(), source="planted.jsonl")


ROWS = _rows()


def planted(sizes: Mapping[tuple[int, int], float], rest: float = 0.0) -> tuple[Any, Any]:
    """(A, B): B's heads were moved up the gradient of the margin, those in `sizes` so far, all others `rest`."""
    import torch

    a = tiny_model(layers=LAYERS).eval()
    b, parts, tokenizer = copy.deepcopy(a), parts_of(a), tiny_tokenizer()
    names = {one.name for part in parts.heads for one in part.slices}
    own = dict(b.named_parameters())
    for _ in range(STEPS):
        gradient = gradients(b, tokenizer, ROWS, names, lambda *_: None)
        with torch.no_grad():
            for part in parts.heads:
                size = sizes.get((part.layer or 0, part.index or 0), rest) / STEPS
                for one in part.slices if size else ():
                    step = one.of(gradient[one.name])
                    one.of(own[one.name]).add_(step * (size / step.norm()))
    return a, b


def weights(model: Any) -> dict[str, Any]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
