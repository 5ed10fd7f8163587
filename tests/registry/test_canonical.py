from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry import canonical
from pv.registry.errors import FormatError

SAFE = (1 << 53) - 1
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_round_trip_and_one_spelling(value: object) -> None:
    data = canonical.dumps(value)
    again = canonical.loads(data)
    assert again == value
    assert canonical.dumps(again) == data
    assert canonical.dumps(canonical.loads(json.dumps(value, indent=1).encode())) == data


@given(st.dictionaries(st.text(max_size=6), st.integers(0, 9), max_size=6))
def test_key_order_does_not_matter(value: dict[str, int]) -> None:
    assert canonical.dumps(dict(reversed(value.items()))) == canonical.dumps(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        (1.0, "1"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (0.1, "0.1"),
        (1e-7, "1e-7"),
        (
            {"\u20ac": 1, "\U0001f600": 2, "\ufb33": 3},
            '{"\u20ac":1,"\U0001f600":2,"\ufb33":3}',
        ),  # UTF-16 order
        ('\x07\n"\\/é', '"\\u0007\\n\\"\\\\/é"'),
    ],
)
def test_spelling_of_rfc_8785(value: object, text: str) -> None:
    assert canonical.dumps(value) == text.encode()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 1 << 60, "\ud800", {1: 2}, {"a": b"b"}, {1, 2}]
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(FormatError):
        canonical.dumps(value)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[1,]", b"{'a':1}", b"[1] [2]", b"[1]x", b'{"a":1,"a":1}', b'{"x":{"a":1,"a":2}}',
        b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"[-1e400]", b"1" + b"0" * 30, b'"\xff"', b"\xef\xbb\xbf{}",
        b"\x00", b'"\n"', b"[" * 100_000, b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_strict_reading(data: bytes) -> None:
    with pytest.raises(FormatError, match="the thing"):
        canonical.loads(data, what="the thing")


@given(st.binary(max_size=40) | st.text('[]{}",:0123456789.eE+-ntf \\u', max_size=30).map(str.encode))
def test_reading_never_fails_otherwise(data: bytes) -> None:
    try:
        value = canonical.loads(data)
    except FormatError:
        return
    assert json.loads(data) == value
