"""A registry's base and vectors, opened for the personas at hand and closed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pv.registry.errors import BaseMismatch, MissingBase, StorageError
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.fingerprint import Progress, fingerprint
from pv.vecstore.checkpoints.hub import fetch
from pv.vecstore.merge.build import Built, build, build_id
from pv.vecstore.vectors.base import Base, open_base
from pv.vecstore.vectors.vector import Vector, open_vector

__all__ = ["Opened", "checkpoint_of", "opened", "record_build"]


@dataclass(frozen=True, slots=True)
class Opened:
    base: Base
    vectors: Mapping[str, Vector]


@contextmanager
def opened(
    registry: Registry, commit: str, personas: Iterable[Persona], *, packs: PackStore | None = None
) -> Iterator[Opened]:
    """The base of `commit`, and every vector that `personas` name. Raises MissingBase, NotFoundError.

    Vectors that are not in the registry yet are looked for in `packs`.
    """
    with ExitStack() as stack:
        try:
            base = stack.enter_context(open_base(registry.base(commit), registry.packs, fetch=fetch))
        except MissingBase as error:
            names = sorted(registry.persona(commit).behaviours)
            stand = f"; on it stand {', '.join(names)}" if names else ""
            raise MissingBase(f"{error}{stand}", hint=error.hint) from error
        vectors = {}
        for vector_id in sorted({v for persona in personas for v in persona.vectors}):
            found = registry.packs if packs is None or registry.packs.has(vector_id) else packs
            vectors[vector_id] = stack.enter_context(open_vector(vector_id, base, found))
        yield Opened(base, vectors)


@contextmanager
def checkpoint_of(
    registry: Registry,
    commit: str,
    persona: Persona,
    *,
    threads: int = 2,
    progress: Progress | None = None,
    packs: PackStore | None = None,
) -> Iterator[Path]:
    """A folder that holds the persona's checkpoint while the block runs.

    An empty persona whose base lies in a folder is that folder, once its bytes have been checked.
    """
    with opened(registry, commit, [persona], packs=packs) as at:
        origin = at.base.checkpoint
        # Beside the weights of a hub lies what nobody has looked at: only a local folder is handed on.
        local = "path" in at.base.manifest.origin
        plain = not persona.behaviours and persona.output.dtype == "base"
        if plain and local and origin is not None and origin.path.is_dir():
            table = fingerprint(origin, threads=threads, progress=progress)
            if table == dict(at.base.manifest.tensors):
                yield origin.path
                return
        with registry.packs.scratch("build") as tmp:
            made = build(
                persona,
                at.base,
                at.vectors,
                tmp / build_id(persona)[:12],
                side_files=registry.base_files(commit),
                threads=threads,
                progress=progress,
            )
            record_build(registry, made)
            yield tmp / build_id(persona)[:12]


def record_build(registry: Registry, made: Built) -> bool:
    """Note the weights' id under the build id; False where the registry cannot be written to.

    Raises BaseMismatch if an earlier build gave others.
    """
    known = registry.record(made.build).get("weights")
    if known is not None and known != made.weights:
        raise BaseMismatch(
            f"build {made.build[:12]} gave weights {made.weights[:12]}, an earlier one gave {known[:12]}",
            hint="this should never happen: run `pv fsck`, and report it",
        )
    if known is None:
        try:
            registry.update_record(made.build, {"weights": made.weights})
        except StorageError:  # the build is whole all the same, and a record can be made again
            return False
    return True
