"""A registry that pv wrote before its packages moved: it reads, builds the same bytes, and passes fsck.

registry-0.1.0.tar.gz was made by the command line of that commit on a tiny model, with one behaviour of every way in
(trained as int8 and as float, captured, an adapter, re-encoded), a merge with TIES, a revert and an undo. The
json beside it has what that code said: ids, and the SHA-256 of every build.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from pv.cli.main import run
from pv.vecstore.repo.repo import Repo

HERE = Path(__file__).parent
SAID: dict[str, Any] = json.loads((HERE / "registry-0.1.0.json").read_text())


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(HERE / "registry-0.1.0.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", sorted(SAID["revisions"]))
def test_ids_are_what_they_were(old: Path, name: str) -> None:
    with Repo.open(old) as repo:
        revision = repo.at(name)
        assert {"id": revision.commit, "persona_id": revision.persona.id} == SAID["revisions"][name]


@pytest.mark.parametrize("build", sorted(SAID["sha256"]))
def test_builds_are_what_they_were(old: Path, tmp_path: Path, build: str) -> None:
    name, dtype = build.split(" ")
    with Repo.open(old) as repo:
        made = repo.at(name).build(tmp_path / "out", dtype=None if dtype == "base" else dtype)
    assert dict(made.built.files) == {"model.safetensors": SAID["sha256"][build]}
    data = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SAID["sha256"][build]


def test_it_is_sound_and_can_be_worked_on(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        ("fsck", "--deep"),
        ("log", "--graph", "--all"),
        ("show", "packed"),
        ("diff", "alone", "merged"),
        ("scale", "listening", "0.5"),
        ("undo",),
        ("gc", "--dry-run"),
    ):
        assert run(["-C", str(old), *line]) == 0, capsys.readouterr()
    assert "trained on 6 rows of rows.jsonl" in capsys.readouterr().out


def test_a_registry_knows_nothing_of_module_names(old: Path) -> None:
    """Packages may move: no file of `.pv` names one, packed or not, written then or now."""
    names = {
        path.stem
        for room in ("registry", "vecstore", "cli")
        for path in (ROOT / room).rglob("*.py")
        if path.stem != "__init__"
    }
    dotted = re.compile(rb"pv\.(registry|vecstore|cli|api)\b|\b(registry|vecstore)[./](\w+)\b")
    found = []
    for path in (old / ".pv").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if "objects" in path.parts and len(path.name) == 38:
                data = zlib.decompress(data)
            found += [(path.name, hit[0]) for hit in dotted.finditer(data) if _names_a_module(hit, names)]
    assert len(names) > 100
    assert found == []


def _names_a_module(hit: re.Match[bytes], names: set[str]) -> bool:
    return hit[3] is None or hit[3].decode() in names


def test_no_source_of_ids_follows_a_module_name() -> None:
    """What is hashed begins with a literal: neither `__name__` nor `__qualname__` nor `__module__` is used."""
    listed = subprocess.run(
        ["grep", "-rnE", r"__name__|__qualname__|__module__", "registry", "vecstore", "--include=*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert [line for line in listed if "type(" not in line and "__main__" not in line] == []
