"""Folders as `pv build` leaves them, and a way to push one to the loopback Hub.

`from support.pushes import REPO, TARGET, build, push`. The same arguments give the same bytes.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pv.registry.remote.address import HubTarget
from pv.registry.remote.push import Pushed, push_folder
from support.loopback_hub import HubState

__all__ = ["CARD", "REPO", "TARGET", "build", "contents", "push", "safetensors", "write"]

REPO = "alice/persona"
TARGET = HubTarget(REPO)
CARD = "---\ntags: [pv]\nbase_model: org/base\nbase_model_relation: merge\n---\n\n# A persona\n"


def safetensors(seed: int, size: int) -> bytes:
    """A well-formed safetensors file of one U8 tensor."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(size)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def build(folder: Path, seed: int = 0, size: int = 50_000, card: str = CARD) -> Path:
    """A folder as `pv build` leaves it."""
    return write(
        folder,
        {
            "README.md": card.encode(),
            "config.json": b'{"model_type": "llama"}\n',
            "model.safetensors": safetensors(seed, size),
            "persona.json": b'{"schema":1,"seed":%d}' % seed,
            "tokenizer/tokenizer.json": b'{"version": "1.0"}',
        },
    )


def push(hub: HubState, folder: Path, target: HubTarget = TARGET, **options: Any) -> Pushed:
    options = {"token": "hf_write", "endpoint": hub.endpoint, "message": "push", **options}
    return push_folder(folder, target, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
