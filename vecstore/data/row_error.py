"""What is wrong with one row, and the words for the values in it."""

from __future__ import annotations

from pv.registry.errors import DataError

__all__ = ["RowError", "kind"]


class RowError(DataError):
    """What is wrong with one row; who reads the file says which row it is."""


def kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        bytes: "bytes",
        type(None): "null",
    }
    if isinstance(value, list) and not value:
        return "an empty list"
    return names.get(type(value), "a number")
