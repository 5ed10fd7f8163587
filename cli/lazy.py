"""The subcommands of a group, each imported when it is asked for."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Iterator, Mapping

import click

__all__ = ["Below"]


class Below(Mapping[str, click.Command]):
    """`command` of the module NAME of a package, by name: to list the names imports none of them.

    Where NAME is a word of Python's, as `import` is, the module is called `import_`.
    """

    def __init__(self, package: str, names: tuple[str, ...]) -> None:
        self._package, self._names = package, names

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._names:
            raise KeyError(name)
        file = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
        module = importlib.import_module(f"{self._package}.{file}")
        command: click.Command = module.command
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
