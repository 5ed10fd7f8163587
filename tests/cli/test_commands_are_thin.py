"""A command is options in, a verb, and its result on the screen: read from the source of every command."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pv.registry.persona import Persona

COMMANDS = sorted((Path(__file__).parents[2] / "cli" / "commands").rglob("*.py"))
LONGEST = 45
VERBS = "pv.vecstore.repo"
VALUES = (  # what a command may read of the floors below: words, choices and frozen values
    "pv.cli",
    "pv.registry.changes",
    "pv.registry.combine",
    "pv.registry.errors",
    "pv.registry.exit_codes",
    "pv.registry.persona",
    "pv.registry.provenance",
    "pv.registry.steering",
    "pv.registry.words",
    "pv.vecstore.publish.lineage",
    "pv.vecstore.publish.words",
    "pv.vecstore.train.options",
)
EDITS = {name for name in vars(Persona) if name.startswith("with")}


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a command imports when it runs: what stands under TYPE_CHECKING it only names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from imported(node)


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.stem)
def test_no_function_is_long(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST, f"{file.name}: {node.name}"


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.stem)
def test_it_calls_verbs_and_does_nothing_itself(file: Path) -> None:
    tree = ast.parse(file.read_text())
    for module in imported(tree):
        if module.startswith("pv."):
            assert module.startswith((VERBS, *VALUES)), f"{file.name} imports {module}"
    assert not EDITS & {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20
    assert {"with_engine", "without"} <= EDITS
