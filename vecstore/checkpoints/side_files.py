"""What lies beside the weights and belongs to the model: config, tokenizer, chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pv.registry.errors import CheckpointRefused
from pv.registry.manifest import is_plain_file_name
from pv.vecstore.checkpoints.object_store import KNOWN_FILES, ObjectFolder

__all__ = [
    "EXPORT",
    "MAX_SIDE_BYTES",
    "MERGE",
    "RECIPE",
    "STEERING",
    "STEERING_WEIGHTS",
    "SUFFIXES",
    "is_side_file",
    "side_files",
]

SUFFIXES = (".json", ".txt", ".jinja", ".model", ".tiktoken")
RECIPE, EXPORT, MERGE = "persona.json", "export.json", "pv-merge.json"  # of pv's own: they belong to no model
STEERING, STEERING_WEIGHTS = "steering.json", "steering.safetensors"
_OURS = (RECIPE, EXPORT, MERGE, STEERING)
MAX_SIDE_BYTES = 64 << 20
MAX_SIDE_BYTES_IN_ALL = 256 << 20


def side_files(where: Path | ObjectFolder) -> dict[str, bytes]:
    """Config, tokenizer and chat template beside the weights: what a model needs besides tensors.

    No code (`*.py`), no weights, no card, nothing hidden, nothing that pv wrote. Raises CheckpointRefused for a
    link that leaves the folder (a checkpoint from a stranger must not bring in files of ours), and for what is
    too large to be kept in a history: what a model needs must not get lost silently.
    """
    if isinstance(where, ObjectFolder):
        return _stored(where)
    folder = where.parent if where.is_file() else where
    found: dict[str, bytes] = {}
    for file in sorted(folder.iterdir()):
        if not is_side_file(file.name) or file.name in _OURS or not file.is_file():
            continue
        if not _stays(file, folder):
            raise CheckpointRefused(
                f"{file} is a link to {file.resolve()}, outside the checkpoint",
                hint="if it belongs to the model, put a copy of the file in the link's place",
            )
        size = file.stat().st_size
        _check_size(str(file), size, found)
        found[file.name] = file.read_bytes()
    return found


def _stored(folder: ObjectFolder) -> dict[str, bytes]:
    """Those of a folder in an object store; of a web server, which cannot list them, those of KNOWN_FILES."""
    if folder.file is not None:
        folder = ObjectFolder(folder.url.rpartition("/")[0])
    names = folder.names()
    found: dict[str, bytes] = {}
    for name in sorted(KNOWN_FILES if names is None else names):
        if is_side_file(name) and name not in _OURS:
            _check_size(folder.where(name), 0 if names is None else names[name], found)
            if (data := folder.get(name, MAX_SIDE_BYTES)) is not None:
                found[name] = data
    return found


def _check_size(file: str, size: int, found: Mapping[str, bytes]) -> None:
    if size > MAX_SIDE_BYTES or size + sum(map(len, found.values())) > MAX_SIDE_BYTES_IN_ALL:
        raise CheckpointRefused(
            f"{file} ({size} bytes) is too much to keep beside weights: {MAX_SIDE_BYTES >> 20} MiB a file, "
            f"{MAX_SIDE_BYTES_IN_ALL >> 20} MiB in all",
            hint="if the model does not need it, move it out of the folder",
        )


def is_side_file(name: str) -> bool:
    """Whether a file of that name may lie beside weights: nothing that runs, nothing that replaces them."""
    return name.endswith(SUFFIXES) and not name.endswith(".index.json") and is_plain_file_name(name)


def _stays(file: Path, folder: Path) -> bool:
    """Whether a file lies in the folder, or is a blob of the Hub cache that the folder is a snapshot in."""
    home, target = folder.resolve(), file.resolve()
    in_cache = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    return target.is_relative_to(home) or in_cache
