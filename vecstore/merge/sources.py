"""What a build needs of a base and of a vector, wherever their bytes are: in a registry, or in folders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pv.registry.manifest import BaseManifest, VectorManifest
from pv.vecstore.tensors.array import F32, Raw
from pv.vecstore.vectors.base import BaseTensor
from pv.vecstore.vectors.pieces import PIECE, Pieces

__all__ = ["BaseSource", "VectorSource"]


class BaseSource(Protocol):
    """The tensors that a build starts from. A row of the manifest without an id: nobody has hashed the tensor."""

    @property
    def manifest(self) -> BaseManifest: ...

    def tensor(self, name: str) -> BaseTensor:
        """A whole tensor, read once."""
        ...

    @property
    def light(self) -> bool:
        """Whether its tensors and its vectors' may be read in pieces of any size, and again at no cost but that."""
        ...

    def pieces(self, name: str, step: int = PIECE) -> Iterator[Raw]:
        """The same, `step` elements at a time: PIECE, if it is not `light`."""
        ...


class VectorSource(Protocol):
    """What is added to some of them. See `vectors.vector`."""

    @property
    def manifest(self) -> VectorManifest: ...

    @property
    def base(self) -> BaseSource: ...

    def tau(self, name: str, base: BaseTensor | None = None) -> F32: ...

    def pieces(self, name: str) -> Pieces: ...

    def needs_base(self, name: str) -> bool: ...
