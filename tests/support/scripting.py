"""docs/scripting.md as data: its sections, its types, and whether an answer has the type that is written there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.commands import Said
from support.shapes import Type, check, parse

__all__ = ["TEXT", "TYPES", "Answer", "blocks", "keeps_to_it", "problems", "section", "type_name"]

Answer = Callable[..., dict[str, Any]]

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "scripting.md").read_text(encoding="utf-8")
PATTERNS = {
    "Sha1": "/[0-9a-f]{40}/",
    "Sha256": "/[0-9a-f]{64}/",
    "Time": r"/\d{4}(-\d\d){2}T(\d\d:){2}\d\d[+-]\d\d:\d\d/",
}


def blocks(text: str) -> list[str]:
    return re.findall(r"```ts\n(.*?)```", text, flags=re.DOTALL)


def type_name(command: str) -> str:
    return "".join(word.capitalize() for word in re.split("[- ]", command))


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


TYPES = parse("\n".join(blocks(TEXT)))
CHECKED = {**TYPES, **{name: Type(pattern) for name, pattern in PATTERNS.items()}}


def problems(value: Any, name: str) -> list[str]:
    return check(value, TYPES[name], CHECKED)


def keeps_to_it(said: Said, command: str) -> list[str]:
    """What is wrong with an answer to `--json`, or with the error in its place."""
    if said.out:
        found = problems(said.json, type_name(command))
        return found + ([f"stderr: {said.err}"] if said.err else [])
    error = json.loads(said.err)  # nothing else with -q
    wrong = error.get("error", {}).get("exit_code") != said.code
    return problems(error, "Failure") + ([f"the exit code is {said.code}"] if wrong else [])
