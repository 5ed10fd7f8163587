"""Attention heads: which part of a projection is which head's, by the numbers in config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pv.registry.errors import UsageError
from pv.vecstore.merge.diff import Movement, place
from pv.vecstore.tensors.array import Raw

__all__ = ["Head", "HeadCount", "Split"]

_PROJECTION = re.compile(r"(?:.*\.)?([qkvo])_proj\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class Head:
    """How far one head's part of a projection (q, k, v or o) moved. Of k and v, the heads are the shared ones."""

    projection: str
    head: int
    moved: Movement

    @property
    def where(self) -> str:
        """ "layer 3 q 5" """
        layer = place(self.moved.where)[0]
        return f"{'' if layer is None else f'layer {layer} '}{self.projection} {self.head}"

    def to_json(self) -> dict[str, Any]:
        layer = place(self.moved.where)[0]
        return {"layer": layer, "projection": self.projection, "head": self.head, **self.moved.to_json()}


@dataclass(frozen=True, slots=True)
class Split:
    """A projection in `count` equal heads: along its rows, or (o) along its columns."""

    projection: str
    count: int
    columns: int  # of the tensor
    by_columns: bool

    def parts(self, raw: Raw) -> Iterator[tuple[int, Raw]]:
        """(head, its elements) of whole rows of a tensor that is split by columns, flat."""
        cut = raw.reshape(-1, self.count, self.columns // self.count)
        return ((head, cut[:, head].reshape(-1)) for head in range(self.count))

    def whole(self, raw: Raw) -> Iterator[tuple[int, Raw]]:
        """(head, its elements) of a whole tensor, flat."""
        return self.parts(raw) if self.by_columns else enumerate(raw.reshape(self.count, -1))


@dataclass(frozen=True, slots=True)
class HeadCount:
    """How many heads a model's config says there are; keys and values may have fewer."""

    heads: int
    shared: int

    @staticmethod
    def of(config: bytes | None, whose: str) -> HeadCount:
        """Read from a config.json. Raises UsageError if it does not say."""
        try:
            found = json.loads(config or b"")
        except (ValueError, RecursionError):
            found = None
        for inner in (found, *(found.values() if isinstance(found, Mapping) else ())):
            if not isinstance(inner, Mapping):
                continue
            heads = _count(inner.get("num_attention_heads"))
            shared = _count(inner.get("num_key_value_heads", heads))
            if heads is not None and shared is not None:
                return HeadCount(heads, shared)
        raise UsageError(
            f"how many heads {whose} has is not known: no config.json that says num_attention_heads",
            hint="leave --heads out, or put the model's config.json beside its weights",
        )

    def split(self, name: str, shape: tuple[int, ...]) -> Split | None:
        """How a tensor is split; None for what is no projection, or does not come out even."""
        found = _PROJECTION.fullmatch(name)
        if found is None or len(shape) not in (1, 2) or 0 in shape:
            return None
        by_columns = found[1] == "o"
        count = self.shared if found[1] in "kv" else self.heads
        if (by_columns and len(shape) == 1) or shape[1 if by_columns else 0] % count:
            return None
        return Split(found[1], count, shape[1] if len(shape) == 2 else 1, by_columns)


def _count(value: object) -> int | None:
    """A number of heads; None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 20 else None
