"""Two checkpoints that may have nothing to do with each other, and what of them can be held against one another.

Experts are matched in whichever layout they were saved; nothing is refused, what does not fit is listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pv.registry.errors import CheckpointRefused
from pv.registry.manifest import Spec
from pv.vecstore.checkpoints.align import is_buffer
from pv.vecstore.checkpoints.checkpoint import Weights
from pv.vecstore.checkpoints.compare import Difference, differences
from pv.vecstore.checkpoints.moe import Piece, relaid, twin
from pv.vecstore.checkpoints.names import is_vocabulary
from pv.vecstore.checkpoints.pieces import read_pieces
from pv.vecstore.tensors.formats import FLOATS

__all__ = ["Shared", "Together", "together"]


@dataclass(frozen=True, slots=True)
class Shared:
    """A tensor that both have, under the name and shape that it has in the first.

    `shape` is what is compared: all of it, or the first rows, where one vocabulary is larger.
    """

    name: str
    shape: tuple[int, ...]
    a: str
    b: str  # dtypes

    @property
    def numel(self) -> int:
        return Spec(self.a, self.shape).numel

    @property
    def floats(self) -> bool:
        return {self.a, self.b} <= FLOATS


@dataclass(frozen=True, slots=True)
class Together:
    """`apart` is what is not, or not wholly, compared."""

    shared: tuple[Shared, ...]
    apart: tuple[Difference, ...]
    _b: Weights
    _pieces: Mapping[str, tuple[Piece, ...]]

    def dtypes(self) -> dict[tuple[str, str], int]:
        """How many of the shared tensors have which dtypes, in a and in b."""
        return dict(sorted(Counter((one.a, one.b) for one in self.shared).items()))

    def read_b(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes of b's tensor, under a's name."""
        return read_pieces(self._b, self._pieces[name], start, stop)


def together(a: Weights, b: Weights) -> Together:
    """Match the tensors of two checkpoints; reads nothing but what their headers said."""
    ours, theirs = _without_buffers(a.specs), _without_buffers(b.specs)
    pieces: dict[str, tuple[Piece, ...]] = {
        name: (Piece(name, 0, theirs[name].nbytes),) for name in ours.keys() & theirs.keys()
    }
    shapes = {name: (ours[name].shape, theirs[name].shape) for name in pieces}
    dtypes = {name: theirs[name].dtype for name in pieces}
    try:
        moved = relaid(theirs, ours)
    except CheckpointRefused:
        moved = {}  # experts that do not fit are listed by name
    for name in ours.keys() - pieces.keys() - moved.keys():
        if (other := twin(name)) is not None and other in theirs and other not in ours:
            moved[name] = (Piece(other, 0, theirs[other].nbytes),)
            shapes[name] = ours[name].shape, theirs[other].shape
    for name, parts in moved.items():
        pieces[name], dtypes[name] = parts, theirs[parts[0].name].dtype
        shapes.setdefault(name, (ours[name].shape, ours[name].shape))
    used = {piece.name for parts in pieces.values() for piece in parts}

    shared, apart = [], []
    for name in sorted(pieces):
        mine, other_shape = shapes[name]
        if mine == other_shape:
            shared.append(Shared(name, mine, ours[name].dtype, dtypes[name]))
        elif is_vocabulary(name) and mine[1:] == other_shape[1:] and mine and other_shape:
            rows = min(mine[0], other_shape[0])
            shared.append(Shared(name, (rows, *mine[1:]), ours[name].dtype, dtypes[name]))
            apart.append(
                Difference(
                    name, f"has {mine[0]} rows in a and {other_shape[0]} in b: the first {rows} are compared"
                )
            )
        else:
            apart.append(Difference(name, f"has shape {list(mine)} in a and {list(other_shape)} in b"))
    missing = differences(
        {name: spec for name, spec in ours.items() if name not in pieces},
        {name: spec for name, spec in theirs.items() if name not in used},
    )
    only = [Difference(one.name, f"is only in {'a' if one.name in ours else 'b'}") for one in missing]
    return Together(tuple(shared), (*apart, *only), b, pieces)


def _without_buffers(specs: Mapping[str, Spec]) -> dict[str, Spec]:
    return {name: spec for name, spec in specs.items() if not is_buffer(name, spec)}
