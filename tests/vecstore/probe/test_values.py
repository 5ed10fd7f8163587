"""Values to JSON and back: what is of another type is refused, and said to be where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest

from pv.registry.errors import FormatError
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.values import read, written


class Of(TypedDict, total=False):
    of: int


class Used(Of):
    n: int


@dataclass(frozen=True)
class Inner:
    name: str
    kind: Literal["a", "b"]
    pair: tuple[int, float]


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    share: Interval | float | None
    used: Mapping[str, Used]
    sure: bool = True


ONE = Outer(
    (Inner("x", "a", (1, 2.0)),), Interval(0.5, 0.25, 1.0, 8), {"rows": {"n": 3}, "more": {"n": 4, "of": 2}}
)


def test_what_is_written_is_read() -> None:
    noted = json.loads(json.dumps({**written(ONE), "headline": "said beside it"}, sort_keys=True))
    assert read(Outer, noted) == ONE
    assert (
        read(Outer, {**noted, "share": 1}).share == 1.0
        and read(Outer, {**noted, "share": None}).share is None
    )
    pair = read(Inner, {"name": "x", "kind": "b", "pair": [1, 2]}).pair  # canonical JSON has 2 for 2.0
    assert [type(one) for one in pair] == [int, float]


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("inner", {}, "found.inner"),
        ("inner", [{"name": "x", "kind": "c", "pair": [1, 2]}], "found.inner.0.kind"),
        ("inner", [{"name": "x", "kind": "a", "pair": [1]}], "found.inner.0.pair"),
        ("inner", [{"name": "x", "kind": "a", "pair": [-1, 2]}], "found.inner.0.pair.0"),
        ("inner", [{"name": "x", "kind": "a"}], "found.inner.0"),
        ("share", True, "found.share"),
        ("share", 1e300, "found.share"),
        ("share", {"mean": 1.0}, "found.share"),
        ("used", {"rows": {"of": 3}}, "found.used"),
        ("used", {"rows": {"n": 3, "of": "2"}}, "found.used.of"),
        ("sure", 1, "found.sure"),
    ],
)
def test_what_is_of_another_type_is_named(key: str, value: Any, where: str) -> None:
    with pytest.raises(FormatError, match=rf"^{where} is not what a probe notes"):
        read(Outer, {**written(ONE), key: value})
