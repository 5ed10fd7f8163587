"""A base at hand: its manifest, and weights that are checked against it as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pv.registry import ids
from pv.registry.disk.closing import Closing
from pv.registry.errors import BaseMismatch, IntegrityError, MissingBase, NotFoundError, RemoteError
from pv.registry.manifest import BaseManifest, Spec, TensorRow
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import Checkpoint, Weights, read_raw
from pv.vecstore.checkpoints.compare import differences
from pv.vecstore.checkpoints.fingerprint import fingerprint
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32, Raw
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.vectors.origin import base_in_words, origin_in_words, place_in_words
from pv.vecstore.vectors.pieces import PIECE
from pv.vecstore.vectors.pinned import Pinned, Spared

__all__ = [
    "Base",
    "BaseTensor",
    "Fetch",
    "base_manifest",
    "open_base",
]

Fetch = Callable[[str, str], Path]
"""(repository, commit) of a Hub to a local folder."""


@dataclass(frozen=True)
class BaseTensor:
    """One tensor of a base, read once: its bytes hash to the id in `row`. `raw` is flat storage integers."""

    name: str
    row: TensorRow
    raw: Raw

    @cached_property
    def f32(self) -> F32:
        """Its values, flat. Made once, however many vectors ask."""
        return to_f32(self.raw, self.row.dtype)


@dataclass(frozen=True, slots=True)
class Base(Closing):
    """`raw` trusts what it reads (at an origin with a copy: once seen to be right), `tensor` never does."""

    manifest: BaseManifest
    weights: Weights
    close: Callable[[], None]

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Elements start to stop as storage integers."""
        return read_raw(self.weights, name, start, stop)

    def tensor(self, name: str) -> BaseTensor:
        """A whole tensor whose bytes hash to the manifest's id. Raises BaseMismatch."""
        row = self.manifest.tensors[name]
        if isinstance(self.weights, Spared):
            return BaseTensor(name, row, self.weights.whole(name))
        raw = self.raw(name)
        if ids.tensor_id(row.dtype, row.shape, raw.data) != row.id:
            raise self._changed(name)
        return BaseTensor(name, row, raw)

    @property
    def light(self) -> bool:
        """What is added to it comes out of packs, which are decoded PIECE elements at a time."""
        return False

    def pieces(self, name: str, step: int = PIECE) -> Iterator[Raw]:
        """A tensor in pieces of `step` elements, in order. With the last one all are right; raises BaseMismatch."""
        row = self.manifest.tensors[name]
        if row.numel <= step or isinstance(self.weights, Spared):
            raw = self.tensor(name).raw
            yield from (raw[start : start + step] for start in range(0, max(row.numel, 1), step))
            return
        digest = ids.tensor_hash(row.dtype, row.shape)
        for start in range(0, row.numel, step):
            raw = self.raw(name, start, min(start + step, row.numel))
            digest.update(raw.data)
            if start + step >= row.numel and digest.hexdigest() != row.id:
                raise self._changed(name)
            yield raw

    def _changed(self, name: str) -> BaseMismatch:
        return BaseMismatch(
            f"the base on disk has changed: tensor {name!r} is not what base {base_in_words(self.manifest)} holds",
            hint=f"put back what was at {origin_in_words(self.manifest)}",
        )

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the base came from, if that is at hand; whether it still is the base is another question."""
        if isinstance(self.weights, Spared):
            return self.weights.checkpoint
        return self.weights if isinstance(self.weights, Checkpoint) else None


def open_base(
    manifest: BaseManifest,
    packs: PackStore,
    *,
    fetch: Fetch | None = None,
    moved: Mapping[str, str] | None = None,
) -> Base:
    """The base from where it is, else from the pack it was pinned in, else fetched from its hub.

    It is looked for at its origin, but first at the origin that it has `moved` to. With a pin, a tensor that has
    changed there is read from the pin: not even an origin that is trained on in place takes the base away. Raises
    MissingBase, BaseMismatch, RemoteError, and what is wrong with the checkpoint at its place if nothing stands in.
    """
    pinned = packs.path(manifest.id) if packs.has(manifest.id) else None
    places = [place for place in (moved, manifest.origin) if place]
    mismatch: IntegrityError | None = None
    for path in (place["path"] for place in places if "path" in place):
        try:
            checkpoint = Checkpoint(Path(path))
        except NotFoundError:
            continue
        except IntegrityError as error:  # damaged: a pinned copy may stand in
            mismatch = error
            continue
        mismatch = _shape_mismatch(manifest, checkpoint)
        if mismatch is None and pinned is not None:
            spared = Spared(manifest, checkpoint, pinned)
            return Base(manifest, spared, spared.close)
        if mismatch is None:
            return Base(manifest, checkpoint, checkpoint.close)
        checkpoint.close()
    if pinned is not None:
        copy = Pinned(pinned, manifest.id)
        return Base(manifest, copy, copy.close)
    for place in (place for place in places if place.get("kind") == "hub" and fetch is not None):
        checkpoint = Checkpoint(_fetched(manifest, place, fetch))
        mismatch = _shape_mismatch(manifest, checkpoint)
        if mismatch is None:
            return Base(manifest, checkpoint, checkpoint.close)
        checkpoint.close()
    looked = " nor at ".join(dict.fromkeys(place_in_words(place) for place in places))
    raise mismatch or MissingBase(
        f"base {base_in_words(manifest)} was not found at {looked}",
        hint="`pv base move DIR` says where it is now",
    )


def _fetched(manifest: BaseManifest, place: Mapping[str, str], fetch: Fetch | None) -> Path:
    assert fetch is not None
    try:
        return fetch(place["repo"], place["revision"])
    except NotFoundError as error:
        raise MissingBase(
            f"base {base_in_words(manifest)}: {error}", hint="`pv base move DIR` says where it is now"
        ) from error
    except RemoteError as error:
        raise RemoteError(f"base {base_in_words(manifest)}: {error}", hint=error.hint) from error


def _shape_mismatch(manifest: BaseManifest, checkpoint: Checkpoint) -> BaseMismatch | None:
    """A cheap look at names, dtypes and shapes; the bytes are checked as they are read."""
    wanted = {name: Spec(row.dtype, row.shape) for name, row in manifest.tensors.items()}
    if wanted == dict(checkpoint.specs):
        return None
    lines = "; ".join(str(one) for one in differences(wanted, checkpoint.specs)[:6])
    return BaseMismatch(
        f"{checkpoint.path} is not base {base_in_words(manifest)}: {lines}",
        hint="the checkpoint there was replaced: put the right one back",
    )


def base_manifest(
    checkpoint: Checkpoint,
    origin: dict[str, str],
    files: tuple[str, ...],
    *,
    pinned: bool,
    threads: int = 2,
    progress: Progress | None = None,
) -> BaseManifest:
    """Hash a checkpoint into the manifest of a base."""
    return BaseManifest(fingerprint(checkpoint, threads=threads, progress=progress), origin, files, pinned)
