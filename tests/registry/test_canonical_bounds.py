"""Bounds on JSON from a stranger: checked before anything is built, and never met by what is in a text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry import canonical
from pv.registry.canonical import MAX_BYTES, MAX_CONTAINERS, MAX_DEPTH, MAX_MEMBERS, MAX_VALUES
from pv.registry.errors import FormatError


def nested(depth: int, kinds: str) -> bytes:
    text = "1"
    for i in range(depth):
        text = f"[{text},0]" if kinds[i % len(kinds)] == "l" else f'{{"a":{text},"b":[]}}'
    return text.encode()


@pytest.mark.parametrize("kinds", ["l", "o", "lo", "llooo"])
def test_depth(kinds: str) -> None:
    """An object of the kit holds an empty list, which is one deeper."""
    canonical.loads(nested(MAX_DEPTH - 1, kinds))
    with pytest.raises(FormatError, match=f"nested more than {MAX_DEPTH} deep"):
        canonical.loads(nested(MAX_DEPTH + 1, kinds))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" + "[]," * MAX_CONTAINERS + "0]", "lists and objects"),
        ("[" + "{}," * MAX_CONTAINERS + "0]", "lists and objects"),
        ("{" + '"a":0,' * (MAX_MEMBERS + 1) + "}", "members"),
        ("[" + "0," * (MAX_VALUES + 1) + "0]", "values"),
        ('"' * (2 * MAX_VALUES + 1), "texts"),
        (" " * (MAX_BYTES + 1), "bytes are more than"),
    ],
    ids=["lists", "objects", "members", "values", "texts", "bytes"],
)
def test_too_much_of_anything(text: str, message: str) -> None:
    """How little memory that takes is measured in tests/attacks."""
    with pytest.raises(FormatError, match=message):
        canonical.loads(text.encode(), what="it")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2_000_000,
        '"' * 2_000_000,
        "\\" * 2_000_000,
        '\\"[' * 1_000_000,
        '\\\\"{:,' * 1_000_000,
        "\U0001f600" * 1_000_000,
    ],
)
def test_what_is_in_a_text_is_not_counted(text: str) -> None:
    assert canonical.loads(json.dumps({text: [text]}).encode()) == {text: [text]}


documents = st.recursive(
    st.text(st.sampled_from('[]{}:,"\\ a\u2028'), max_size=8) | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)


@given(documents, st.booleans())
def test_any_text_may_be_in_a_document(value: object, ascii_only: bool) -> None:
    assert canonical.loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\udc00\\ud800", "a\\uD83Db", "\\\\\\ud800"])
def test_half_a_surrogate_pair(half: str) -> None:
    for text in (f'"{half}"', f'{{"{half}":1}}', f'[{{"a":["{half}"]}}]'):
        with pytest.raises(FormatError, match="half a surrogate pair"):
            canonical.loads(text.encode())


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\\\ud800"', '"\\u00e9"', '"\\\\\\\\udfff"'])
def test_whole_pairs_and_backslashes(text: str) -> None:
    assert canonical.loads(text.encode()) == json.loads(text)


def test_no_integer_has_a_sign_at_zero() -> None:
    assert isinstance(canonical.loads(b"-0"), float)
    assert canonical.dumps(canonical.loads(b"-0")) == b"0"


def test_a_bracket_that_is_missing_is_reported_where_it_is() -> None:
    with pytest.raises(FormatError, match=r"line 3 column 1"):
        canonical.loads(b'{"a":\n [1, 2\n}')


def test_a_long_key_is_not_repeated() -> None:
    key = "k" * 1_000_000
    with pytest.raises(FormatError) as caught:
        canonical.loads(f'{{"{key}":1,"{key}":1}}'.encode())
    assert len(str(caught.value)) < 200


def test_nesting_without_end_has_no_canonical_form() -> None:
    value: object = 0
    for _ in range(100_000):
        value = [value]
    with pytest.raises(FormatError, match="nested too deep"):
        canonical.dumps(value)
