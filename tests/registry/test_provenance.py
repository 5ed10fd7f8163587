"""Provenance: one writer and one reader, which agree; and what others wrote loses nobody a command."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry import canonical
from pv.registry.errors import FormatError
from pv.registry.provenance import (
    Captured,
    Derived,
    Extracted,
    Imported,
    Merged,
    Pairs,
    Provenance,
    Trained,
    TrainedOn,
    TrainingData,
    Unknown,
    checked,
    from_bytes,
    read,
)
from pv.registry.provenance_ways import also, as_behaviour, origin, origins, together, ways
from pv.registry.provenance_ways import trained as training

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
IDS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NUMBERS = st.floats(0, 1e9).map(lambda x: x + 0.0)
VALUES = st.one_of(WORDS, st.integers(-(2**53) + 1, 2**53 - 1), st.booleans(), st.none())
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
EXTRA = st.dictionaries(WORDS.map(lambda word: f"later {word}"), VALUES, max_size=2)
PACKS = st.lists(IDS, max_size=2).map(tuple)

trained = st.builds(
    Trained,
    st.builds(TrainingData, WORDS, IDS, st.integers(0, 10**6), st.booleans()),
    OBJECTS,
    OBJECTS,
    st.none() | st.tuples(NUMBERS, NUMBERS),
    st.integers(0, 10**9),
    PACKS,
    st.none() | OBJECTS,
    EXTRA,
)
COMMITS = st.text("0123456789abcdef", min_size=40, max_size=40)
captured = st.builds(
    Captured, WORDS, st.none() | OBJECTS, PACKS, st.none() | st.builds(TrainedOn, COMMITS, IDS), EXTRA
)
first = st.one_of(trained, captured, OBJECTS.map(Unknown))
derived = st.builds(
    Derived, IDS, WORDS, NUMBERS, NUMBERS, first, st.none() | OBJECTS, PACKS, EXTRA, st.none() | IDS
)
SUMS = st.lists(st.tuples(NUMBERS.map(lambda x: x - 5), IDS), min_size=1, max_size=2).map(tuple)
merged = st.builds(
    Merged,
    WORDS,
    st.lists(SUMS, max_size=3).map(tuple),
    WORDS,
    WORDS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.none() | OBJECTS,
    st.dictionaries(WORDS, NUMBERS, max_size=2),
    PACKS,
    EXTRA,
)


extracted = st.builds(
    Extracted,
    WORDS,
    WORDS,
    st.builds(Pairs, WORDS, IDS, st.integers(0, 10**6)),
    OBJECTS,
    OBJECTS,
    PACKS,
    EXTRA,
)
imported = st.builds(Imported, WORDS, WORDS, PACKS, EXTRA)


@given(first, st.integers(0, 3))
def test_a_vector_is_from_where_the_first_was_however_often_it_was_encoded(
    known: Provenance, times: int
) -> None:
    here = known
    for _ in range(times):
        here = Derived("0" * 64, "int8", 0.1, 0.1, here)
    assert origin(here) is known
    assert training(here) is (known if isinstance(known, Trained) else None)


@given(st.one_of(trained, captured, derived, merged, extracted, imported))
def test_what_is_written_is_read(provenance: Provenance) -> None:
    data = canonical.dumps(provenance.to_json())
    assert from_bytes(data, "it") == provenance == checked(data, "it")
    assert canonical.dumps(from_bytes(data, "it").to_json()) == data


@given(
    st.recursive(
        VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
    )
)
def test_a_document_of_another_form_is_kept_as_it_is(value: Any) -> None:
    for kind in ("trained", "captured", "derived", "merged", "extracted", "imported", "imagined", None):
        document = {"kind": kind, "source": value, "data": value, "error": value, "derived_from": value}
        provenance = read(document)
        assert provenance.to_json() == document or not isinstance(provenance, Unknown)
        read(provenance.to_json())


def test_what_was_measured_of_an_extraction_has_a_bound() -> None:
    pairs = Pairs("formal.jsonl", "ab" * 32, 20)
    large = {"each": ["x" * 100] * 1000}
    for more in ({"quality": large}, {"settings": large}, {"quality": {"x": float("nan")}}):
        with pytest.raises(FormatError):
            Extracted("mean", "reply", pairs, **more)
    document = {**Extracted("mean", "reply", pairs).to_json(), "quality": large}
    assert read(document) == Unknown(document)


def test_a_part_that_is_wrong_makes_the_whole_unknown() -> None:
    good = Derived("a" * 64, "int8", 0.5, 0.25).to_json()
    assert isinstance(read(good), Derived)
    parts: list[dict[str, Any]] = [{"derived_from": "a"}, {"encoding": 8}, {"error": {}}, {"error": None}]
    for wrong in (*parts, {"original": "no"}, {"original_vector": "a"}):
        found = read({**good, **wrong})
        assert isinstance(found, Unknown) and found.document == {**good, **wrong}


def test_operands_that_are_none_make_the_whole_unknown() -> None:
    good = Merged("tsv", (((1.0, "a" * 64),),), "tsv(a)", "float", 0.5, 0.25, 2.0, 1.0).to_json()
    assert isinstance(read(good), Merged)
    wrong: Any
    for wrong in (None, 1, [1], [[1]], [[[1]]], [[["a" * 64, 1]]], [[[1, "a"]]], [[[1, "a" * 64, 2]]]):
        found = read({**good, "of": wrong})
        assert isinstance(found, Unknown) and found.document == {**good, "of": wrong}


def test_a_commit_that_is_none_makes_the_whole_unknown() -> None:
    good = Captured("sft", on=TrainedOn("a" * 40, "b" * 64)).to_json()
    assert good["on"] == {"commit": "a" * 40, "persona": "b" * 64} and isinstance(read(good), Captured)
    wrong: Any
    for wrong in ({}, [], "HEAD", {"commit": "HEAD", "persona": "b" * 64}, {**good["on"], "more": 1}):
        found = read({**good, "on": wrong})
        assert isinstance(found, Unknown) and found.document == {**good, "on": wrong}


def test_gc_insists_on_ids() -> None:
    data = canonical.dumps({"kind": "captured", "source": "x", "packs": ["../../etc/passwd", "b" * 64]})
    assert from_bytes(data, "it").packs == ("b" * 64,)
    with pytest.raises(FormatError, match="packs must be a list of ids"):
        checked(data, "it")
    with pytest.raises(FormatError, match="is not a JSON object"):
        from_bytes(b"[]", "it")


BUILDS = st.one_of(trained, captured, derived)


@given(BUILDS, st.lists(st.tuples(BUILDS, st.sampled_from(["a", "b"])), max_size=4))
def test_what_else_becomes_known_of_a_vector_is_added(
    first: Provenance, others: list[tuple[Provenance, str]]
) -> None:
    known = first
    for other, name in others:
        known = together(known, other, name)
        assert together(known, other, name) == known, "once"
    assert ways(known)[0].to_json() | {"packs": 0} == first.to_json() | {"packs": 0}
    for other, name in others:
        held = [one.origin for one in also(known) if one.behaviour == name]
        assert _said(other) in [_said(first), *map(_said, held)]
        assert set(other.packs) <= set(known.packs), "gc keeps them"
        assert {_said(one) for one in ways(as_behaviour(known, name))} == {_said(one) for one in ways(known)}
    data = canonical.dumps(known.to_json())
    assert from_bytes(data, "it") == known == checked(data, "it")


@given(
    st.recursive(
        VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
    )
)
def test_other_ways_in_another_form_are_passed_over(value: Any) -> None:
    good = Captured("b")
    for listed in (
        value,
        [value],
        [{"as": value, "origin": value}],
        [{"as": "b", "origin": good.to_json()}, value],
    ):
        known = read({"kind": "captured", "source": "a", "also": listed})
        assert ways(known) and origins(known) and as_behaviour(known, "b") and together(known, good, "c")


def _said(known: Provenance) -> str:
    return str(sorted({k: v for k, v in known.to_json().items() if k != "packs"}.items()))
