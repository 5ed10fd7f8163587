"""docs/python.md, run as it stands: every block, in order, in one interpreter, with a Hub on 127.0.0.1."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import isolate, write_rows
from support.loopback_hub import client_env, loopback_hub
from support.tiny import tiny_checkpoint
from support.vectors import nudged, read_all, save

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "python.md"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
CHECKS = """
import json
same = open("out/model.safetensors", "rb").read() == open("again/model.safetensors", "rb").read()
print("\\n" + json.dumps({"tau": [str(tau.dtype), list(tau.shape), bool((tau != 0).any())], "same": same}))
"""


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)


def test_what_the_document_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)
    base = tiny_checkpoint(tmp_path / "base")
    save(tmp_path / "my-sft-run", nudged(read_all(base / "model.safetensors"), 7))
    for name in ("listening", "listening.heldout", "pirate", "pirate.heldout"):
        write_rows(tmp_path / f"{name}.jsonl", 4)
    with loopback_hub(tmp_path / "hub") as hub:
        hub.create(BASE)
        hub.put(BASE, {file.name: file.read_bytes() for file in base.iterdir()})
        script = tmp_path / "shown.py"
        script.write_text("\n".join([*blocks(), CHECKS]))
        env = {**os.environ, **client_env(hub, tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout.splitlines()[-1])
    assert checks == {"tau": ["float32", [96, 48], True], "same": True}
    assert "['pirate']" in done.stdout  # the conflict was met, and named


def test_every_option_of_train_is_in_the_document_with_its_default() -> None:
    from dataclasses import fields

    from pv.vecstore.train.options import TrainOptions

    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", DOCUMENT.read_text(), re.MULTILINE)
    found = {
        name: default
        for names, defaults in rows
        for name, default in zip(re.findall("`(.*?)`", names), re.findall("`(.*?)`", defaults), strict=False)
    }
    wanted = {field.name: repr(field.default) for field in fields(TrainOptions)}
    assert {name: found.get(name) for name in wanted} == wanted


def test_every_verb_is_in_the_document() -> None:
    import pv

    words = set(re.findall(r"[a-z_]+", DOCUMENT.read_text()))
    for shown in (pv.Repo, pv.Revision):
        public = {name for name in vars(shown) if not name.startswith("_")}
        assert public - {"open", "path", "close", "command", "name", "registry"} <= words
