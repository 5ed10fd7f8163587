"""A registry's base and vectors, opened for the personas at hand and closed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pv.registry.errors import MissingBase, RemoteError
from pv.registry.manifest import VectorManifest
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.download import fetch
from pv.vecstore.vectors.base import Base, open_base
from pv.vecstore.vectors.vector import Vector, open_vector

__all__ = ["Opened", "opened"]


@dataclass(frozen=True, slots=True)
class Opened:
    base: Base
    vectors: Mapping[str, Vector]

    @property
    def manifests(self) -> dict[str, VectorManifest]:
        return {vector_id: vector.manifest for vector_id, vector in self.vectors.items()}


@contextmanager
def opened(
    registry: Registry, commit: str, personas: Iterable[Persona] = (), *, packs: PackStore | None = None
) -> Iterator[Opened]:
    """The base of `commit`, and every task vector that `personas` name. Raises MissingBase, NotFoundError,
    RemoteError.

    Vectors that are not in the registry yet are looked for in `packs`.
    """
    with ExitStack() as stack:
        try:
            manifest = registry.base(commit)
            moved = registry.places.of(manifest.id)
            base = stack.enter_context(open_base(manifest, registry.packs, fetch=fetch, moved=moved))
        except (MissingBase, RemoteError) as error:
            names = sorted(registry.persona(commit).behaviours)
            stand = f"; behaviours on this base: {', '.join(names)}" if names else ""
            raise type(error)(f"{error}{stand}", hint=error.hint) from error
        vectors = {}
        for vector_id in sorted({v for persona in personas for v in persona.task_vectors}):
            found = registry.packs if packs is None or registry.packs.has(vector_id) else packs
            vectors[vector_id] = stack.enter_context(open_vector(vector_id, base, found))
        yield Opened(base, vectors)
