"""What lies beside the weights of a checkpoint, held against what should.

Loaders look for files by name, and act on those they find: another tokenizer, `generation_config.json`, an adapter, a
second set of weights, code. So every file counts, except those that no loader opens (`is_harmless`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from pv.vecstore.checkpoints.checkpoint import INDEX, Checkpoint
from pv.vecstore.checkpoints.compare import Difference

__all__ = ["beside", "is_harmless", "strangers"]

_PAPERS = {"license", "licence", "notice", "copying", "authors", "citation", "changelog"}
_TEXT = {"", ".txt", ".md", ".rst", ".cff", ".bib"}
_LOOKED_AT = {".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf"}
_HIDDEN = {".gitattributes", ".gitignore", ".DS_Store"}
_FOLDERS = {".git", ".cache"}  # of a clone; of a download with huggingface_hub


def is_harmless(name: str) -> bool:
    """Whether a file of that name changes nothing for whoever loads the folder: papers, pictures, git's own files."""
    stem, suffix = Path(name).stem.lower(), Path(name).suffix.lower()
    return name in _HIDDEN or suffix in _LOOKED_AT or (stem in _PAPERS and suffix in _TEXT)


def beside(
    checkpoint: Checkpoint, expected: Mapping[str, bytes], *, may_lack: Iterable[str] = ()
) -> Iterator[Difference]:
    """What is other than `expected` {name: bytes} in the checkpoint's folder, besides the weights that were read."""
    folder = checkpoint.path
    lacking = {name for name in expected if not (folder / name).exists()}
    for name in sorted(lacking.difference(may_lack)):
        yield Difference(name, "is missing")
    for name in sorted(expected.keys() - lacking):
        if not _holds(folder / name, expected[name]):
            yield Difference(name, "differs")
    yield from strangers(checkpoint, expected.keys())


def strangers(checkpoint: Checkpoint, expected: AbstractSet[str]) -> Iterator[Difference]:
    """What is in the checkpoint's folder besides the weights that were read and the files that are expected there."""
    folder = checkpoint.path
    read = {file.name for file in checkpoint.files}
    for path in sorted(folder.iterdir()):
        if path.name == INDEX and path.is_file():
            if not _plain_index(path, checkpoint):
                yield Difference(INDEX, "says more than which file holds which tensor")
        elif path.name in expected or path.name in read:
            continue
        elif path.is_dir():
            if path.name not in _FOLDERS:
                yield Difference(f"{path.name}/", "is not part of the build")
        elif not is_harmless(path.name):
            yield Difference(path.name, "is not part of the build")


def _holds(file: Path, data: bytes) -> bool:
    return file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data


def _plain_index(path: Path, checkpoint: Checkpoint) -> bool:
    """Opening the checkpoint has held `weight_map` against the shards; what is left are two sums."""
    index = json.loads(path.read_bytes())
    numbers = index.get("metadata") or {}
    specs = checkpoint.specs.values()
    sums = {
        "total_size": sum(spec.nbytes for spec in specs),
        "total_parameters": sum(spec.numel for spec in specs),
    }
    known = {"metadata", "weight_map"}.issuperset(index) and isinstance(numbers, dict)
    return known and all(value == sums.get(key) for key, value in numbers.items())
