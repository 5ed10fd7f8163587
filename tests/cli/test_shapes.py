"""The types that docs/scripting.md is written in: what they accept, and that they refuse the rest."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from support.shapes import check, parse

SHAPES = parse(
    """
    type Point = {          // a comment with { a brace
      x: number
      y?: number | null
      tags: string[]
      pair: [number, Word]
      [name: string]: boolean
    }
    type Word = "up" | "down" | -1 | true
    type Tree = { value: unknown, below?: Tree[][] }
    """
)
POINT: dict[str, Any] = {"x": 1, "tags": [], "pair": [0.5, "up"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Point", POINT),
        ("Point", {**POINT, "y": None, "tags": ["a", "b"], "other": False}),
        ("Word", -1),
        ("Word", True),
        ("Tree", {"value": [{}], "below": [[{"value": None}], []]}),
    ],
)
def test_a_value_that_has_the_type(name: str, value: Any) -> None:
    assert check(value, SHAPES[name], SHAPES) == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("Point", {**POINT, "x": "1"}, '$.x: "1" is no number'),
        ("Point", {**POINT, "x": True}, "$.x: true is no number"),
        ("Point", {**POINT, "x": math.nan}, "$.x: NaN is no number"),
        ("Point", {**POINT, "x": None}, "$.x: null is no number"),
        ("Point", {**POINT, "y": "1"}, '$.y: "1" is no number'),
        ("Point", {**POINT, "tags": "a"}, '$.tags: "a" is no []'),
        ("Point", {**POINT, "tags": ["a", 1]}, "$.tags[1]: 1 is no string"),
        ("Point", {**POINT, "pair": [1, "up", 2]}, "$.pair: 3 items, not 2"),
        ("Point", {**POINT, "pair": [1, "left"]}, '$.pair[1]: "left" is no "up"'),
        ("Point", {**POINT, "other": 1}, "$.other: 1 is no boolean"),
        ("Point", {"tags": [], "pair": [1, "up"]}, "$.x: missing"),
        ("Point", [POINT], "$: [{"),
        ("Word", 1, "$: 1 is no "),
        ("Word", False, "$: false is no "),
        ("Word", "true", '$: "true" is no '),
        ("Word", {}, "$: {} is no "),
        ("Tree", {"value": 1, "extra": 1}, "$.extra: unknown key"),
        ("Tree", {"value": 1, "below": [[{"value": 1}, {"below": []}]]}, "$.below[0][1].value: missing"),
    ],
)
def test_a_value_that_has_not(name: str, value: Any, problem: str) -> None:
    found = check(value, SHAPES[name], SHAPES)
    assert len(found) == 1 and found[0].startswith(problem), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type A = B", "not declared: B"),
        ("type A = string type A = number", "declared twice"),
        ("type A = { a: string, a: number }", "key a is there twice"),
        ("type A = { a: string", "expected, not the end"),
        ("type A = [string", ", or ] expected, not the end"),
        ("type A = string |", "a word expected, not the end"),
        ("type A = { [name: number]: string }", "string expected, not number"),
        ("type A = string & number", "cannot be read: '&"),
        ("interface A {}", "type expected, not interface"),
    ],
)
def test_a_text_that_declares_no_types(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(text)
