"""Every test here has a home of its own: no git configuration and no identity but what it sets.

`registry` and `made` are copies of registries that were made once; `hub` is a Hub on 127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.registries import BUILD, Made, add, new_registry, scale

from pv.registry.registry import Registry


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("GIT_") or name in ("EMAIL", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    (folder / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one registry is that the others are copies of."""
    return tmp_path_factory.mktemp("template")


@pytest.fixture
def registry(tmp_path: Path, template: Path, home: Path) -> Iterator[Registry]:
    if not (template / ".pv").exists():
        new_registry(template).close()
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    with Registry.find(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made once. Damage a copy."""
    folder = tmp_path_factory.mktemp("original")
    os.environ.setdefault("EMAIL", "ada@example.org")
    with new_registry(folder) as registry:
        add(registry, "a", 1)
        registry.create_branch("side", switch=True)
        side = add(registry, "b", 2)
        registry.switch("main")
        tag = registry.resolve("HEAD")
        registry.tag("v1")
        main = registry.change("scale a 2", "m", scale("a", 2.0))
        registry.update_record(BUILD, {"weights": "w"})
        registry.undo()
        registry.redo()
    return Made(folder / ".pv", main, side, tag)


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    shutil.copytree(original.root, tmp_path / ".pv")
    return Made(tmp_path / ".pv", original.main, original.side, original.tag)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from support.loopback_hub import isolated_client, loopback_hub

    with isolated_client(monkeypatch, tmp_path / "home"), loopback_hub(tmp_path / "hub") as hub:
        yield hub
