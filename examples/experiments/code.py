"""Which code a figure comes from. Comments, docstrings, layout and imports have no part in it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pv.vecstore

__all__ = ["measuring", "own", "rooms"]


@cache
def rooms(*names: str) -> str:
    """Of packages of vecstore."""
    folder = Path(str(pv.vecstore.__file__)).parent
    return _id(_parsed(file) for name in names for file in sorted((folder / name).rglob("*.py")))


@cache
def own(*names: str) -> str:
    """Of modules beside this one."""
    return _id(_parsed(Path(__file__).with_name(f"{name}.py")) for name in names)


@cache
def measuring(name: str) -> str:
    """Of an experiment's `measure`, and what that uses of its module: another table needs no other cells."""
    tree = _parsed(Path(__file__).with_name(f"{name}.py"))
    wanted = {"measure"}
    while found := [node for node in tree.body if _names(node) & wanted]:
        now = wanted | {one.id for node in found for one in ast.walk(node) if isinstance(one, ast.Name)}
        if now == wanted:
            break
        wanted = now
    tree.body = found
    return _id([tree])


def _id(trees: Iterator[ast.Module] | list[ast.Module]) -> str:
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(ast.dump(tree).encode() + b"\n")
    return digest.hexdigest()[:16]


def _parsed(file: Path) -> ast.Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _says_only(one)]  # type: ignore[attr-defined]
    return tree


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}


def _says_only(node: ast.AST) -> bool:
    """A docstring, or an import."""
    said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return said or isinstance(node, ast.Import | ast.ImportFrom)
