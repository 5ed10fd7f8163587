"""Documents for `pv build --from-mergekit`, and the models of them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from support.commands import World, tensors, write_tensors

__all__ = ["Document", "document", "f32", "make_models", "snapshot", "write"]

Document = dict[str, Any]


def make_models(made: World, folder: Path) -> Path:
    """base, a and b beside each other: b's fine-tune is a's, doubled."""
    shutil.copytree(made.base, folder / "base")
    shutil.copytree(made.tuned, folder / "a")
    shutil.copytree(made.base, folder / "b")
    table, moved = tensors(made.base), tensors(made.tuned)
    for name, (dtype, shape, raw) in table.items():
        both = [
            (np.frombuffer(x, np.uint16).astype(np.uint32) << 16).view(np.float32)
            for x in (raw, moved[name][2])
        ]
        out = (2 * both[1] - both[0]).view(np.uint32) >> 16
        table[name] = (dtype, shape, out.astype(np.uint16).tobytes())
    write_tensors(folder / "b" / "model.safetensors", table)
    return folder


def document(**changes: Any) -> Document:
    """Task arithmetic of a and b; a change to None takes the key out."""
    whole: Document = {
        "merge_method": "task_arithmetic",
        "base_model": "./base",
        "models": [
            {"model": "./a", "parameters": {"weight": 0.5}},
            {"model": "./b", "parameters": {"weight": 0.25}},
        ],
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


def write(folder: Path, document: Document | str) -> Path:
    file = folder / "merge.yml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return file


def f32(raw: bytes) -> Any:
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }
