"""A base at hand: its manifest, and weights that are checked against it as they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from pv.registry import ids
from pv.registry.errors import BaseMismatch, CorruptPack, IntegrityError, MissingBase, NotFoundError
from pv.registry.manifest import BaseManifest, TensorRow
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import Checkpoint, Spec, Weights
from pv.vecstore.checkpoints.fingerprint import fingerprint, row_of
from pv.vecstore.packs.codecs import chunks
from pv.vecstore.packs.codecs.layout import LAYOUTS, Raw
from pv.vecstore.packs.pack import Pack, Part, write_pack
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.formats import to_f32

__all__ = ["Base", "base_manifest", "differences", "open_base", "origin_in_words", "pin"]


@dataclass(frozen=True, slots=True)
class Base(AbstractContextManager["Base"]):
    """`raw` trusts what it reads (at an origin with a copy: once seen to be right), `verified` never does."""

    manifest: BaseManifest
    weights: Weights
    close: Callable[[], None]

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Elements start to stop as storage integers."""
        layout = LAYOUTS[self.manifest.tensors[name].dtype]
        end = None if stop is None else stop * layout.itemsize
        return np.frombuffer(self.weights.read(name, start * layout.itemsize, end), layout.storage)

    def verified(self, name: str) -> Raw:
        """A whole tensor whose bytes hash to the manifest's id. Raises BaseMismatch."""
        if isinstance(self.weights, _Spared):
            return self.weights.whole(name)
        row, raw = self.manifest.tensors[name], self.raw(name)
        if ids.tensor_id(row.dtype, row.shape, raw.data) != row.id:
            raise BaseMismatch(
                f"the base on disk has changed: tensor {name!r} is not what base {self.manifest.id[:12]} holds",
                hint=f"put back what was at {origin_in_words(self.manifest)}",
            )
        return raw

    def f32(self, name: str) -> F32:
        """A whole tensor, flat and verified. Raises BaseMismatch."""
        return to_f32(self.verified(name), self.manifest.tensors[name].dtype)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the base came from, if that is at hand; whether it still is the base is another question."""
        if isinstance(self.weights, _Spared):
            return self.weights.checkpoint
        return self.weights if isinstance(self.weights, Checkpoint) else None

    def __exit__(self, *_: object) -> None:
        self.close()


def origin_in_words(manifest: BaseManifest) -> str:
    origin = manifest.origin
    if origin.get("kind") == "hub":
        return f"hf://{origin.get('repo')}@{origin.get('revision')}"
    path = origin.get("path", "unknown")
    return path if path.isprintable() else repr(path)  # a stranger's manifest may say anything


def open_base(
    manifest: BaseManifest, packs: PackStore, *, fetch: Callable[[str, str], Path] | None = None
) -> Base:
    """The base from where it came from, else from the pack it was pinned in, else fetched from its hub.

    With a pin, a tensor that has changed at its origin is read from there: not even an origin that is trained
    on in place takes the base away. `fetch(repo, revision)` gives a local folder. Raises MissingBase, BaseMismatch,
    and what is wrong with the checkpoint at its place if nothing stands in for it.
    """
    pinned = packs.path(manifest.id) if packs.has(manifest.id) else None
    mismatch: IntegrityError | None = None
    path = manifest.origin.get("path")
    if path is not None:
        try:
            checkpoint = Checkpoint(Path(path))
        except NotFoundError:
            pass
        except IntegrityError as error:  # damaged: a pinned copy may stand in
            mismatch = error
        else:
            mismatch = _shape_mismatch(manifest, checkpoint)
            if mismatch is None and pinned is not None:
                spared = _Spared(manifest, checkpoint, pinned)
                return Base(manifest, spared, spared.close)
            if mismatch is None:
                return Base(manifest, checkpoint, checkpoint.close)
            checkpoint.close()
    if pinned is not None:
        copy = _Pinned(pinned, manifest.id)
        return Base(manifest, copy, copy.close)
    if manifest.origin.get("kind") == "hub" and fetch is not None:
        checkpoint = Checkpoint(fetch(manifest.origin["repo"], manifest.origin["revision"]))
        mismatch = _shape_mismatch(manifest, checkpoint)
        if mismatch is None:
            return Base(manifest, checkpoint, checkpoint.close)
        checkpoint.close()
    raise mismatch or MissingBase(
        f"base {manifest.id[:12]} is not at hand: it came from {origin_in_words(manifest)}",
        hint="put it back there, or a link to where it is now",
    )


def _shape_mismatch(manifest: BaseManifest, checkpoint: Checkpoint) -> BaseMismatch | None:
    """A cheap look at names, dtypes and shapes; the bytes are checked as they are read."""
    wanted = {name: Spec(row.dtype, row.shape) for name, row in manifest.tensors.items()}
    if wanted == dict(checkpoint.specs):
        return None
    found = {name: TensorRow(s.dtype, s.shape, "0" * 64) for name, s in checkpoint.specs.items()}
    lines = "; ".join(differences(manifest.tensors, found, content=False)[:6])
    return BaseMismatch(
        f"{checkpoint.path} is not base {manifest.id[:12]}: {lines}",
        hint="the checkpoint there was replaced: put the right one back",
    )


def differences(
    ours: Mapping[str, TensorRow], theirs: Mapping[str, TensorRow], *, content: bool = True
) -> list[str]:
    """What keeps two tensor tables from being the same, a line each."""
    lines = [f"{name!r} is missing" for name in sorted(ours.keys() - theirs.keys())]
    lines += [f"{name!r} is not in the base" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        if a.shape != b.shape:
            lines.append(f"{name!r} has shape {list(b.shape)}, the base has {list(a.shape)}")
        elif a.dtype != b.dtype:
            lines.append(f"{name!r} is {b.dtype}, the base has {a.dtype}")
        elif content and a.id != b.id:
            lines.append(f"{name!r} has other values")
    return lines


def pin(
    weights: Weights,
    manifest: BaseManifest,
    packs: PackStore,
    *,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Keep a copy of the base in the registry, so that it cannot get lost. Raises BaseMismatch."""
    parts = [
        Part(name, "w", row.dtype, row.shape, _reader(weights, name, row.dtype))
        for name, row in manifest.tensors.items()
    ]
    with packs.writer() as out:
        made = write_pack(
            out.file,
            parts,
            lambda rows: BaseManifest(
                {name: row for (name, _), row in rows.items()},
                manifest.origin,
                manifest.files,
                manifest.pinned,
            ),
            threads=threads,
            progress=progress,
        )
        if made.id != manifest.id:
            raise BaseMismatch("the base changed while it was being pinned", hint="run the command again")
        out.commit(manifest.id)


def _reader(weights: Weights, name: str, dtype: str) -> Callable[[int, int], Raw]:
    layout = LAYOUTS[dtype]
    return lambda start, stop: np.frombuffer(
        weights.read(name, start * layout.itemsize, stop * layout.itemsize), layout.storage
    )


class _Pinned:
    """A base read out of its pack, in pieces."""

    def __init__(self, path: Path, base_id: str) -> None:
        self.pack = Pack(path, expect=base_id)
        self.close = self.pack.close
        assert isinstance(self.pack.manifest, BaseManifest)
        self.specs = {name: Spec(row.dtype, row.shape) for name, row in self.pack.manifest.tensors.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        spec = self.specs[name]
        size = LAYOUTS[spec.dtype].itemsize
        end = spec.numel * size if stop is None else stop
        if start >= end:
            return memoryview(b"")
        first, last = start // size // chunks.CHUNK, (end - 1) // size // chunks.CHUNK
        pieces = [self.pack.chunk(name, "w", number) for number in range(first, last + 1)]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        offset = first * chunks.CHUNK * size
        return memoryview(whole.view(np.uint8).data)[start - offset : end - offset]


class _Spared:
    """A base at its origin, with its pinned copy: of a tensor that has changed at the origin, the copy is read."""

    def __init__(self, manifest: BaseManifest, checkpoint: Checkpoint, pinned: Path) -> None:
        self.checkpoint, self.specs = checkpoint, checkpoint.specs
        self._manifest, self._path = manifest, pinned
        self._pinned: _Pinned | None = None
        self._sources: dict[str, Weights] = {}
        self._opening = Lock()
        self._hashing = {name: Lock() for name in self.specs}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        """The origin's bytes if they were right when the tensor was first asked for. Raises BaseMismatch."""
        with self._hashing[name]:
            if name not in self._sources:
                same = row_of(self.checkpoint, name) == self._manifest.tensors[name]
                self._sources[name] = self.checkpoint if same else self._copy(name)
        return self._sources[name].read(name, start, stop)

    def whole(self, name: str) -> Raw:
        """A whole tensor: from the origin if these very bytes are right. Raises BaseMismatch."""
        row = self._manifest.tensors[name]
        raw = np.frombuffer(self.checkpoint.read(name), LAYOUTS[row.dtype].storage)
        if ids.tensor_id(row.dtype, row.shape, raw.data) == row.id:
            return raw
        return np.frombuffer(self._copy(name).read(name), LAYOUTS[row.dtype].storage)

    def _copy(self, name: str) -> Weights:
        try:
            with self._opening:
                if self._pinned is None:
                    self._pinned = _Pinned(self._path, self._manifest.id)
            for _ in self._pinned.pack.stream(name, "w"):
                pass  # which ends with comparing its id
        except CorruptPack as error:
            raise BaseMismatch(
                f"the base on disk has changed: tensor {name!r} is not what base {self._manifest.id[:12]} holds, "
                "and the copy of it in the registry is damaged",
                hint=f"put back what was at {origin_in_words(self._manifest)}, and run `pv fsck --repair`",
            ) from error
        return self._pinned

    def close(self) -> None:
        self.checkpoint.close()
        if self._pinned is not None:
            self._pinned.close()


def base_manifest(
    checkpoint: Checkpoint,
    origin: dict[str, str],
    files: tuple[str, ...],
    *,
    pinned: bool,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> BaseManifest:
    """Hash a checkpoint into the manifest of a base."""
    return BaseManifest(fingerprint(checkpoint, threads=threads, progress=progress), origin, files, pinned)
