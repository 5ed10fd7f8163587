"""A checkpoint or adapter in an object store, copied to this machine: for what reads it more than once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from pv.registry.disk import durable
from pv.registry.errors import PvError
from pv.registry.manifest import is_plain_file_name
from pv.vecstore.checkpoints.checkpoint import INDEX, MAX_INDEX_BYTES, stored_files
from pv.vecstore.checkpoints.object_store import BLOCK, ObjectFolder, ObjectRanges
from pv.vecstore.checkpoints.place import Place
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.progress import Added, Report, counted, stage

__all__ = ["brought"]

_ADAPTER = "adapter_model.safetensors"


@contextmanager
def brought(
    place: Place, scratch: Callable[[], AbstractContextManager[Path]], progress: Report | None = None
) -> Iterator[Place]:
    """The place, on this machine while the block runs: in a folder that `scratch` makes, if it is in a store.

    An error of the block names the address, not the copy. Raises NotFoundError, RemoteError, StorageError.
    """
    store = place.where
    if not isinstance(store, ObjectFolder):
        yield place
        return
    with scratch() as parent:
        folder = parent / (store.name if is_plain_file_name(store.name) else "checkpoint")
        here = folder / store.file if store.file else folder
        with store, durable.storage_errors(folder):
            folder.mkdir(parents=True)
            _fetch(store, folder, progress)
        try:
            yield replace(place, where=here)
        except PvError as error:
            error.args = (str(error).replace(str(here), str(store)), *error.args[1:])
            error.hint = error.hint and error.hint.replace(str(here), str(store))
            raise


def _fetch(store: ObjectFolder, folder: Path, progress: Report | None) -> None:
    beside = {} if store.file else side_files(store)
    with contextlib.ExitStack() as opened:
        weights = [opened.enter_context(store.open(name)) for name in _weights(store, beside)]
        advance = counted(stage(progress, f"fetching {store}"), sum(one.size for one in weights))
        for one in weights:
            _copy(one, folder / one.name, advance)
    index = None if store.file else store.get(INDEX, MAX_INDEX_BYTES)
    for name, data in {**beside, **({} if index is None else {INDEX: index})}.items():
        (folder / name).write_bytes(data)


def _weights(store: ObjectFolder, beside: dict[str, bytes]) -> list[str]:
    if "adapter_config.json" in beside:
        return [_ADAPTER]
    return stored_files(store)


def _copy(source: ObjectRanges, target: Path, advance: Added) -> None:
    with target.open("wb") as file:
        for start in range(0, source.size, BLOCK):
            data = source.read(start, min(BLOCK, source.size - start), stretch=(0, source.size))
            file.write(data)
            advance(len(data))
