"""What the documents say is so: generated parts are current, named files exist, named commands are commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pv.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {name for names in COMMANDS.values() for name in names}


def test_the_generated_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_cli.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_shown_exist(document: Path) -> None:
    shown = re.findall(
        r"^(?:\$ )?pv ([a-z][a-z-]*)", document.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert set(shown) <= NAMES, sorted(set(shown) - NAMES)


def test_the_two_commands_come_first() -> None:
    code = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code is not None
    assert [line.split("#")[0].strip() for line in code[1].splitlines()] == ["make demo", "make test"]
