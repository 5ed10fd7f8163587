"""Steering vectors in the store: the directions that are added to a model's activations, one a site.

A site is a name for a place in a model; what it means is known where there is a model. Here it is a key.

    manifest = write_steering({"model.layers.14": direction}, base_id, packs)
    open_steering(manifest.id, base_id, packs)["model.layers.14"]     # (d,) float32, the bits that were written
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pv.registry.errors import BaseMismatch, CorruptPack, FormatError, NotFoundError, UsageError
from pv.registry.manifest import STEERING, Spec, VectorManifest, is_direction
from pv.registry.packs.store import PackStore
from pv.registry.steering import MAX_SITES, is_site
from pv.vecstore.packs.read import Pack
from pv.vecstore.packs.write import Part
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.encode import write_vector
from pv.vecstore.vectors.vector import slicer

__all__ = ["open_steering", "read_directions", "write_steering"]


def write_steering(directions: Mapping[str, F32], base_id: str, packs: PackStore) -> VectorManifest:
    """Keep directions {site: float32, the shape of an activation there without batch and position} in a pack.

    Raises UsageError for what cannot be one: no numbers, other than float32, infinite ones, or all zero.
    """
    if not 0 < len(directions) <= MAX_SITES:
        raise UsageError(f"a steering vector has 1 to {MAX_SITES} sites, not {len(directions)}")
    parts = []
    for site, direction in sorted(directions.items()):
        _check(site, direction)
        raw = np.ascontiguousarray(direction, "<f4").reshape(-1).view("<u4")
        parts.append(Part(site, "direction", "F32", direction.shape, slicer(raw)))
    if not any(direction.any() for direction in directions.values()):
        raise UsageError(
            "every direction is zero: adding it does nothing",
            hint="the two sides do not differ at these sites",
        )
    return write_vector(parts, base_id, STEERING, packs)


def _check(site: str, direction: F32) -> None:
    if not is_site(site):
        raise UsageError(
            f"{site[:80]!r} cannot name a site", hint="a site is called as a module is: model.layers.14"
        )
    if direction.dtype != np.float32 or not is_direction(Spec("F32", direction.shape)):
        raise UsageError(
            f"the direction at {site} is {direction.dtype} of shape {direction.shape}, not float32 numbers"
        )
    if not np.isfinite(direction).all():
        raise UsageError(f"the direction at {site} has numbers that are not finite")


def open_steering(vector_id: str, base_id: str, packs: PackStore) -> dict[str, F32]:
    """The directions {site: float32} of a steering vector of this base, their ids checked.

    Raises NotFoundError without a pack, BaseMismatch for another base's, FormatError for a task vector, CorruptPack.
    """
    if not packs.has(vector_id):
        raise NotFoundError(
            f"vector {vector_id[:12]} is not in this registry's packs", hint="`pv fsck` says what is affected"
        )
    with Pack(packs.path(vector_id), expect=vector_id) as pack:
        manifest = pack.manifest
        if not isinstance(manifest, VectorManifest):
            raise CorruptPack(f"{pack.path} is not a vector", hint="run `pv fsck`")
        if not manifest.is_steering:
            raise FormatError(
                f"vector {vector_id[:12]} is a task vector: it changes weights, it steers no activation",
                hint="`pv steer extract` makes a steering vector",
            )
        if manifest.base != base_id:
            raise BaseMismatch(
                f"vector {vector_id[:12]} was measured in base {manifest.base[:12]}, this is {base_id[:12]}",
                hint="a steering vector means nothing in another model: extract it again in this one",
            )
        return read_directions(pack, manifest)


def read_directions(pack: Pack, manifest: VectorManifest) -> dict[str, F32]:
    """Every direction of an opened pack of a steering vector. Raises CorruptPack, also for infinite numbers."""
    found: dict[str, F32] = {}
    for site, parts in sorted(manifest.tensors.items()):
        direction = pack.read(site, "direction").view(np.float32).reshape(parts["direction"].shape)
        if not np.isfinite(direction).all():
            raise CorruptPack(f"{pack.path}: the direction at {site[:80]!r} has numbers that are not finite")
        found[site] = direction
    return found
