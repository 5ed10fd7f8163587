"""What a build needs of a base and of a vector, wherever their bytes are: in a registry, or in folders."""

from __future__ import annotations

from typing import Protocol

from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.vecstore.tensors.array import F32, Raw
from pv.vecstore.vectors.base import BaseTensor

__all__ = ["BaseSource", "VectorSource"]


class BaseSource(Protocol):
    """The tensors that a build starts from."""

    @property
    def manifest(self) -> BaseManifest: ...

    def tensor(self, name: str) -> BaseTensor:
        """A whole tensor, read once."""
        ...


class VectorSource(Protocol):
    """What is added to some of them. See `vectors.vector`."""

    @property
    def manifest(self) -> VectorManifest: ...

    @property
    def base(self) -> BaseSource: ...

    def tau(self, name: str, base: BaseTensor | None = None) -> F32: ...

    def kept(self, name: str, base: BaseTensor) -> tuple[TensorRow, Raw]: ...

    def needs_base(self, name: str) -> bool: ...
