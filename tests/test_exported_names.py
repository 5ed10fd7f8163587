"""The names that `import pv` gives: one list, the same wherever it is written, and nothing loaded to have it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pv
from pv.registry import errors


def test_the_list_is_sorted_and_is_what_dir_shows() -> None:
    assert pv.__all__ == sorted(set(pv.__all__))
    assert dir(pv) == pv.__all__


@pytest.mark.parametrize("name", pv.__all__)
def test_every_name_resolves(name: str) -> None:
    assert getattr(pv, name) is not None


def test_a_star_import_brings_them_all() -> None:
    space: dict[str, object] = {}
    exec("from pv import *", space)
    assert space.keys() - {"__builtins__"} == set(pv.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pv' has no attribute 'nope'"):
        pv.nope  # noqa: B018


def test_a_type_checker_is_told_of_each_where_it_is() -> None:
    """`__getattr__` makes any name pass there, so one that is missing in the block would go unnoticed."""
    tree = ast.parse(Path(pv.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    told: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        told |= {alias.asname or alias.name: node.module for alias in node.names}
    here = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    here |= {ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert told.keys() | {name for name in here if name in pv.__all__} == set(pv.__all__)
    for name, module in told.items():
        assert getattr(pv, name) is getattr(import_module(module), name)


def test_every_error_is_exported() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.PvError) and not name.startswith("_")
    }
    assert classes == set(errors.__all__)
    assert classes <= set(pv.__all__)
    assert all(getattr(pv, name) is getattr(errors, name) for name in classes)


def test_importing_pv_loads_nothing_heavy() -> None:
    code = "import sys, pv; dir(pv); print(*sorted(m for m in sys.modules if m.split('.')[0] in sys.argv))"
    heavy = ["numpy", "torch", "transformers", "click", "rich", "git", "huggingface_hub"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
