"""Every test here has a home of its own: no git configuration and no identity but what it sets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_kit import new_registry

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
