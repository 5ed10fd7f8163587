"""What differs between two personas, and how a persona's parts are put into words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from support.registries import personas

from pv.registry.changes import FIELDS, Change, changes
from pv.registry.combine import Combine
from pv.registry.conflict import Origin
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.words import (
    ago,
    behaviour_line,
    change_line,
    combine_words,
    module_words,
    number,
    origin_words,
    output_words,
    persona_line,
    ref_name,
    revision_words,
    switch_words,
    term_list,
    terms_words,
    value_words,
)

A, B = "a" * 64, "b" * 64
ONE = Behaviour(1.0, (Term(1.0, A),))
EMPTY = Persona("c" * 64)
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@given(personas, personas)
def test_changes_are_what_differs_and_nothing_else(before: Persona, after: Persona) -> None:
    found = changes(before, after)
    assert (found == ()) == (before.to_bytes() == after.to_bytes())
    assert changes(before, before) == ()
    assert [(c.name, c.after, c.before) for c in changes(after, before)] == [
        (c.name, c.before, c.after) for c in found
    ]
    rebuilt = before
    for change in found:
        assert change.to_json()["before"] != change.to_json()["after"]
        assert change_line(change)[:2] in ("+ ", "- ", "~ ")
        if change.kind == "field":
            assert change.name in FIELDS
        elif isinstance(change.after, Behaviour):
            rebuilt = rebuilt.with_behaviour(change.name, change.after)
        else:
            rebuilt = rebuilt.without(change.name)
    fields = {c.name for c in found if c.kind == "field"}
    assert rebuilt.behaviours == after.behaviours
    assert ("combine" in fields) == (before.combine.to_json() != after.combine.to_json())


@given(personas, personas)
def test_a_line_says_what_differs(before: Persona, after: Persona) -> None:
    """Two values that differ never look alike: the line is not `a -> a`."""
    for change in changes(before, after):
        left, arrow, right = change_line(change).removeprefix(f"~ {change.name}  ").partition(" -> ")
        assert not arrow or left != right


def test_changes_come_by_name_then_by_field() -> None:
    before = Persona(EMPTY.base, {"b": ONE, "a": ONE})
    after = replace(
        EMPTY,
        base="d" * 64,
        behaviours={"c": ONE, "a": replace(ONE, weight=0.5)},
        combine=Combine.of("ties"),
        output=Output("fp32", "nearest", 7),
    )
    found = changes(before, after)
    assert [change.name for change in found] == [
        "a", "b", "c", "base", "combine", "output.dtype", "output.rounding", "output.seed",
    ]  # fmt: skip
    assert [change_line(change) for change in found] == [
        "~ a  weight 1 -> 0.5",
        "- b 1",
        "+ c 1",
        "~ base  cccccccccccc -> dddddddddddd",
        "~ combine  add -> ties (density 0.2, elect unweighted, merge mean, lambda 1)",
        "~ output.dtype  base -> fp32",
        "~ output.rounding  stochastic -> nearest",
        "~ output.seed  0 -> 7",
    ]
    assert found[1].to_json() == {"name": "b", "kind": "behaviour", "before": ONE.to_json(), "after": None}
    assert found[4].to_json()["after"]["method"] == "ties"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (ONE, replace(ONE, terms=(Term(1.0, B),)), "vector aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        (ONE, Behaviour(-2.0, (Term(1.0, B),)), "weight 1 -> -2, vector aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        (ONE, replace(ONE, modules={"*.mlp.*": 0.5}), "modules none -> *.mlp.* × 0.5"),
        (replace(ONE, weight=0.1234567), replace(ONE, weight=0.12345678), "weight 0.1234567 -> 0.12345678"),
        (
            ONE,
            replace(ONE, terms=(Term(1.0, A), Term(-1.0, B))),
            "vector aaaaaaaaaaaa -> 1 × aaaaaaaaaaaa, -1 × bbbbbbbbbbbb",
        ),
    ],
)
def test_a_behaviour_that_changed(before: Behaviour, after: Behaviour, words: str) -> None:
    assert change_line(Change("x", "behaviour", before, after)) == f"~ x  {words}"


def test_a_switch_that_changed() -> None:
    one, other = Combine.of("ties"), Combine.of("ties", density=0.3, merge="sum")
    line = change_line(Change("combine", "field", one, other))
    assert line == "~ combine  ties: density 0.2 -> 0.3, merge mean -> sum"


def test_behaviours_in_one_line() -> None:
    contrast = Behaviour(0.5, (Term(1.0, A), Term(-1.0, B)))
    assert behaviour_line("x", ONE) == "x 1"
    assert behaviour_line("x", contrast) == "x 0.5 × (1·aaaaaaaa, -1·bbbbbbbb)"
    assert behaviour_line("x", replace(ONE, modules={"*.mlp.*": 0.5})) == "x 1 (*.mlp.* × 0.5)"
    assert persona_line(EMPTY) == "(base)"
    assert persona_line(Persona(A, {"b": ONE, "a": contrast})).startswith("a 0.5 × (")


def test_rules_and_outputs() -> None:
    assert combine_words(Combine.of("add")) == "add"
    assert combine_words(Combine.of("ties", density=0.3)).startswith("ties (density 0.3, elect unweighted")
    assert switch_words(Combine.of("add")) == ""
    assert switch_words(Combine.of("ties"), str.upper).startswith("DENSITY 0.2, ELECT UNWEIGHTED")
    assert [output_words(output) for output in (Output(), Output("bf16", "nearest"), Output("fp32"))] == [
        "in the base's dtype, rounded stochastically (seed 0)",
        "in bf16, rounded to nearest",
        "in fp32, which needs no rounding",
    ]


def test_a_side_in_words() -> None:
    assert value_words(None) == "(absent)"
    assert value_words("bf16") == "bf16"
    assert value_words(7) == "7"
    assert value_words(A) == "aaaaaaaaaaaa"
    assert value_words(replace(ONE, weight=2.0)) == "weight 2, vector aaaaaaaaaaaa"
    by_module = replace(ONE, modules={"mlp": 0.5, "attn": 2.0})
    assert value_words(by_module) == "weight 1, vector aaaaaaaaaaaa, modules attn × 2, mlp × 0.5"
    assert terms_words((Term(2.0, A),)) == "vector 2 × aaaaaaaaaaaa"
    assert term_list((Term(1.0, A),), lambda text: f"`{text}`") == "`aaaaaaaaaaaa`"
    assert module_words({}) == module_words(None) == "none"
    assert module_words({"a": 1.0}, lambda text: f"`{text}`") == "`a` × 1"


def test_numbers_keep_every_digit() -> None:
    assert [number(x) for x in (1.0, -0.5, 1e-7, 1e6, 0.1 + 0.2, 1e300)] == [
        "1", "-0.5", "1e-07", "1000000", "0.30000000000000004", "1e+300",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(seconds=125), "2 min ago"),
        (timedelta(hours=3, minutes=59), "3 h ago"),
        (timedelta(days=1), "1 day ago"),
        (timedelta(days=29), "29 days ago"),
        (timedelta(days=40), "2026-03-25"),
        (timedelta(days=-2), "2026-05-06"),
    ],
)
def test_how_long_ago(before: timedelta, words: str) -> None:
    assert ago(NOW - before, NOW) == words


def test_where_a_value_comes_from() -> None:
    origin = Origin("e" * 40, "Commit formal", "dora", NOW - timedelta(minutes=2))
    assert origin_words(origin, NOW) == 'from "Commit formal", dora, 2 min ago'
    assert origin.to_json()["time"] == "2026-05-04T11:58:00+00:00"


def test_a_revision_and_its_commit() -> None:
    commit = "6e53664a2459" + "0" * 28
    assert revision_words("HEAD~3", commit) == "HEAD~3 (6e53664a2459)"
    assert revision_words("6e53", commit) == revision_words(commit, commit) == "6e53664a2459"


def test_a_ref_as_people_name_it() -> None:
    refs = ("refs/heads/a/b", "refs/tags/v1", "refs/remotes/origin/main", "refs/pv/ops")
    assert [ref_name(ref) for ref in refs] == ["a/b", "tag: v1", "origin/main", "pv: ops"]
