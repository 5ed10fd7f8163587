"""The algebra of merging personas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries import BASE, behaviours, combines, outputs, vector
from support.registries import personas as without_steering
from support.steering import steered, terms

from pv.registry.combine import Combine
from pv.registry.conflict import Conflict
from pv.registry.errors import UnknownBehaviour, UsageError
from pv.registry.history.threeway import reconcile, revert
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.steering import Steering, SteeringTerm

Side = Literal["ours", "theirs"]
Edit = tuple[str, Behaviour | SteeringTerm | None]
personas = steered(without_steering)
active = steered(without_steering, retired=False)
edits = st.tuples(st.sampled_from(["a", "b", "c"]), st.none() | behaviours) | st.tuples(
    st.sampled_from(["steering a", "steering c"]), st.none() | terms
)


def apply(persona: Persona, changes: list[Edit]) -> Persona:
    for name, value in changes:
        term = name.removeprefix("steering ")
        if isinstance(value, Behaviour):
            persona = persona.with_behaviour(name, value)
        elif isinstance(value, SteeringTerm):
            persona = persona.with_steering(term, value)
        elif term != name and term in persona.steering.terms:
            persona = persona.without_steering(term)
        elif term == name and name in persona.behaviours:
            persona = persona.without(name)
    return persona


def values(persona: Persona) -> dict[str, object]:
    """Everything that can change on its own, by name."""
    fields = {
        "combine": persona.combine.to_json(),
        **{f"o.{k}": v for k, v in persona.output.to_json().items()},
    }
    terms = {f"s.{name}": term.to_json() for name, term in persona.steering.terms.items()}
    return {**fields, **terms, **{f"b.{name}": b.to_json() for name, b in persona.behaviours.items()}}


def key_of(conflict: Conflict) -> str:
    short = {"behaviour": "b.", "steering": "s.", "field": ""}[conflict.kind]
    return f"{short}{conflict.name}".replace("output.", "o.")


def same(a: Persona, b: Persona) -> bool:
    return a.to_bytes() == b.to_bytes()


@given(personas)
def test_merging_with_oneself_changes_nothing(p: Persona) -> None:
    assert same(reconcile(p, p, p).persona, p)
    assert reconcile(None, p, p).conflicts == ()


@given(personas, personas)
def test_a_side_that_did_nothing_takes_the_other(before: Persona, after: Persona) -> None:
    for ours, theirs in ((before, after), (after, before), (after, after)):
        result = reconcile(before, ours, theirs)
        assert result.conflicts == ()
        assert same(result.persona, after)


@given(personas, personas, personas)
def test_sides_may_be_exchanged(before: Persona, ours: Persona, theirs: Persona) -> None:
    one, other = reconcile(before, ours, theirs), reconcile(before, theirs, ours)
    assert [(c.name, c.ours, c.theirs) for c in one.conflicts] == [
        (c.name, c.theirs, c.ours) for c in other.conflicts
    ]
    if not one.conflicts:
        assert same(one.persona, other.persona)


@given(personas, personas, personas)
def test_against_the_definition(before: Persona, ours: Persona, theirs: Persona) -> None:
    result = reconcile(before, ours, theirs)
    b, o, t, merged = values(before), values(ours), values(theirs), values(result.persona)
    disputed = {k for k in {*b, *o, *t} if o.get(k) != t.get(k) and b.get(k) not in (o.get(k), t.get(k))}
    taken: dict[str, Any] = {
        k: t.get(k) if o.get(k) == b.get(k) else o.get(k) for k in {*b, *o, *t} - disputed
    }
    sure = {k for k, value in taken.items() if value is not None} | (disputed & o.keys() & t.keys())
    lost = {
        k
        for k, value in taken.items()
        if k.startswith("s.") and value and value["retired_by"] and f"b.{value['retired_by']}" not in sure
    }
    found = {key_of(c) for c in result.conflicts if c.name != "steering.rule"}
    assert found == disputed | lost
    for k in {*b, *o, *t, *merged} - disputed - lost:
        assert merged.get(k) == (t.get(k) if o.get(k) == b.get(k) else o.get(k))


@given(active, st.lists(edits, max_size=3), st.lists(edits, max_size=3))
def test_edits_of_different_names_commute(before: Persona, left: list[Edit], right: list[Edit]) -> None:
    touched = {name for name, _ in left}
    right = [change for change in right if change[0] not in touched]
    result = reconcile(before, apply(before, left), apply(before, right))
    assert result.conflicts == ()
    assert same(result.persona, apply(apply(before, left), right))


@given(personas, personas)
def test_reverting_the_last_commit_gives_its_parent(parent: Persona, commit: Persona) -> None:
    result = revert(commit, parent, commit)
    assert result.conflicts == ()
    assert same(result.persona, parent)


@given(active, st.lists(edits, max_size=3), st.lists(edits, max_size=3))
def test_reverting_an_older_commit_keeps_what_came_after(
    parent: Persona, commit: list[Edit], after: list[Edit]
) -> None:
    touched = {name for name, _ in commit}
    after = [change for change in after if change[0] not in touched]
    middle = apply(parent, commit)
    result = revert(middle, parent, apply(middle, after))
    assert result.conflicts == ()
    assert same(result.persona, apply(parent, after))


@given(personas, personas, personas, st.sampled_from(["ours", "theirs"]))
def test_take_settles_every_conflict(before: Persona, ours: Persona, theirs: Persona, side: Side) -> None:
    conflicts = reconcile(before, ours, theirs).conflicts
    try:
        result = reconcile(before, ours, theirs, {c.take: side for c in conflicts})
    except (
        UsageError
    ) as error:  # a term of a side whose behaviour, which retired it, only the other side has dropped
        assert "is retired by" in str(error) and error.hint
        return
    assert result.conflicts == ()
    for c in conflicts:
        found = (
            result.persona.steering.rule
            if c.name == "steering.rule"
            else values(result.persona).get(key_of(c))
        )
        assert found == c.to_json()[side] or not result.persona.steering.terms
    Persona.from_bytes(result.persona.to_bytes())


V, W = vector(1).id, vector(2).id
EMPTY = Persona(BASE.id)
ONE = Behaviour(1.0, (Term(1.0, V),))
TWO = Behaviour(2.0, (Term(1.0, W),))


def test_weight_and_terms_are_one_value() -> None:
    before = EMPTY.with_behaviour("a", ONE)
    ours = EMPTY.with_behaviour("a", replace(ONE, weight=0.5))
    theirs = EMPTY.with_behaviour("a", replace(ONE, terms=TWO.terms))
    (conflict,) = reconcile(before, ours, theirs).conflicts
    assert conflict == Conflict("a", "behaviour", ONE, ours.behaviours["a"], theirs.behaviours["a"])
    assert conflict.to_json()["ours"] == {"weight": 0.5, "terms": [[1, V]], "modules": None}


@pytest.mark.parametrize("name", ["engine", "combine", "base"])
def test_a_behaviour_may_be_called_as_a_field_is(name: str) -> None:
    before, ours, theirs = (
        EMPTY.with_behaviour(name, b) for b in (ONE, replace(ONE, weight=0.5), replace(TWO, weight=3))
    )
    assert reconcile(before, ours, theirs, {name: "theirs"}).persona.behaviours == theirs.behaviours
    assert reconcile(before, ours, theirs, {name: "ours*2"}).persona.behaviours == before.behaviours
    one_sided = reconcile(before, EMPTY, theirs, {name: 2.0})
    assert one_sided.persona.behaviour(name) == replace(theirs.behaviour(name), weight=2.0)
    for take in ("ours", "theirs", "ours*2"):
        assert reconcile(before, ours, theirs, {name: take}).conflicts == ()


def test_where_neither_side_has_that_behaviour_any_more_the_field_is_meant() -> None:
    before = EMPTY.with_behaviour("combine", ONE)
    theirs = replace(EMPTY, combine=Combine.of("ties", density=0.4))
    ours = replace(EMPTY, combine=Combine.of("ties", density=0.3))
    assert same(reconcile(before, ours, theirs, {"combine": "theirs"}).persona, theirs)
    with pytest.raises(UsageError, match="only a behaviour has a weight"):
        reconcile(before, ours, theirs, {"combine": 0.5})


def test_removed_here_and_changed_there_is_a_conflict() -> None:
    result = reconcile(EMPTY.with_behaviour("a", ONE), EMPTY, EMPTY.with_behaviour("a", TWO))
    (conflict,) = result.conflicts
    assert (conflict.ours, conflict.theirs) == (None, TWO)
    assert same(result.persona, EMPTY)


def test_the_combine_rule_is_one_value_and_output_is_field_by_field() -> None:
    ours = replace(EMPTY, combine=Combine.of("ties", density=0.3), output=Output("bf16"))
    theirs = replace(EMPTY, combine=Combine.of("ties", density=0.4), output=Output(seed=7))
    result = reconcile(EMPTY, ours, theirs)
    assert [c.name for c in result.conflicts] == ["combine"]
    assert result.persona.output == Output("bf16", "stochastic", 7)
    assert reconcile(EMPTY, ours, theirs, {"combine": "theirs"}).persona.combine == theirs.combine
    assert (result.conflicts[0].ours, result.conflicts[0].theirs) == (ours.combine, theirs.combine)


@given(combines, combines, outputs, outputs)
def test_without_a_common_past_what_both_have_must_agree(
    c: Combine, d: Combine, o: Output, p: Output
) -> None:
    ours = Persona(BASE.id, {"a": ONE, "b": ONE}, c, o)
    theirs = Persona(BASE.id, {"b": TWO, "c": TWO}, d, p)
    result = reconcile(None, ours, theirs)
    found = {conflict.name for conflict in result.conflicts}
    assert found >= {"b"}
    assert ("combine" in found) == (c.to_json() != d.to_json())
    assert ("output.seed" in found) == (o.seed != p.seed)
    assert set(result.persona.behaviours) == {"a", "b", "c"}


def test_another_base_is_a_conflict_that_cannot_be_taken() -> None:
    other = replace(EMPTY, base="f" * 64)
    for before in (EMPTY, other, None):
        result = reconcile(before, EMPTY, other)
        assert [c.name for c in result.conflicts] == ["base"]
        assert result.persona.base == BASE.id
    with pytest.raises(UsageError, match="belongs to one base"):
        reconcile(EMPTY, EMPTY, other, {"base": "theirs"})


def test_taking_a_weight() -> None:
    ours, theirs = EMPTY.with_behaviour("a", ONE), EMPTY.with_behaviour("a", replace(ONE, weight=3.0))
    assert reconcile(EMPTY, ours, theirs, {"a": 0.25}).persona.behaviours["a"] == replace(ONE, weight=0.25)
    assert reconcile(EMPTY, ours, EMPTY, {"a": -1.0}).persona.behaviours["a"] == replace(ONE, weight=-1.0)
    assert reconcile(ours, EMPTY, theirs, {"a": 2}).persona.behaviours["a"] == replace(ONE, weight=2.0)
    assert reconcile(theirs, theirs, theirs, {"a": 3}).persona.behaviours["a"].weight == 3.0
    with pytest.raises(UnknownBehaviour) as caught:
        reconcile(ours, EMPTY, EMPTY, {"a": 1.0})
    assert caught.value.hint == "leave --take a out"


def test_a_weight_alone_does_not_say_which_vector() -> None:
    ours, theirs = EMPTY.with_behaviour("a", ONE), EMPTY.with_behaviour("a", TWO)
    modules = EMPTY.with_behaviour("a", replace(ONE, modules={"*.mlp.*": 0.5}))
    for other in (theirs, modules):
        with pytest.raises(UsageError, match="does not say of which") as caught:
            reconcile(EMPTY, ours, other, {"a": 1.0})
        assert "--take 'a=theirs*0.5'" in str(caught.value.hint)
    both = {
        choice: reconcile(EMPTY, ours, theirs, {"a": choice}).persona.behaviours["a"]
        for choice in ("ours*0.5", "theirs*-0.25", "theirs*0")
    }
    assert both == {
        "ours*0.5": replace(ONE, weight=0.5),
        "theirs*-0.25": replace(TWO, weight=-0.5),
        "theirs*0": replace(TWO, weight=0.0),
    }
    with pytest.raises(UnknownBehaviour, match="ours has no 'a'"):
        reconcile(ours, EMPTY, theirs, {"a": "ours*0.5"})
    huge = EMPTY.with_behaviour("a", replace(TWO, weight=1e20))
    with pytest.raises(UsageError, match="the weight would be") as refused:
        reconcile(EMPTY, ours, huge, {"a": "theirs*1e20"})
    assert refused.value.hint == "give a smaller factor, as in --take 'a=theirs*0.5'"


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("nobody", "ours"),
        ("a", "mine"),
        ("a", True),
        ("a", float("nan")),
        ("a", float("inf")),
        ("combine", 0.5),
        ("combine", "theirs*0.5"),
        ("a", "ours"),  # both sides have it alike: it would do nothing
        ("a", "theirs"),
        ("combine", "ours"),
        ("output.seed", "theirs"),
        ("a", "ours*"),
        ("a", "ours*nan"),
        ("a", "ours*1e31"),
        ("a", "mine*2"),
        ("a", "*2"),
        ("a", "theirs*much"),
        ("a", None),
    ],
)
def test_takes_that_make_no_sense(name: str, choice: object) -> None:
    ours = EMPTY.with_behaviour("a", ONE)
    with pytest.raises(UsageError, match=f"--take {name}"):
        reconcile(EMPTY, ours, ours, {name: choice})  # type: ignore[dict-item]


FORMAL = SteeringTerm(1.0, V, ("model.layers.1",))
STEERED = EMPTY.with_behaviour("b", ONE).with_steering("formal", FORMAL)


def with_term(persona: Persona, name: str, **values: object) -> Persona:
    return persona.with_steering(name, persona.steering_term(name).changed(**values))


def test_a_steering_term_is_one_value_and_its_name_one_of_its_own() -> None:
    before = STEERED.with_behaviour("formal", ONE)
    ours = with_term(before, "formal", coefficient=2.0)
    theirs = with_term(before, "formal", positions="reply").with_behaviour("formal", TWO)
    (conflict,) = reconcile(before, ours, theirs).conflicts
    assert (conflict.name, conflict.kind, conflict.take) == ("formal", "steering", "steering.formal")
    taken = reconcile(before, ours, theirs, {"steering.formal": "theirs"})
    assert taken.conflicts == () and same(taken.persona, theirs)
    with pytest.raises(UsageError, match="nothing to choose"):
        reconcile(before, ours, replace(theirs, behaviours=before.behaviours), {"formal": "theirs"})
    with pytest.raises(UsageError, match="only a behaviour has a weight"):
        reconcile(before, ours, theirs, {"steering.formal": 0.5})
    with pytest.raises(UsageError, match=r"nothing here has that name") as caught:
        reconcile(before, ours, theirs, {"steering.nothing": "ours"})
    assert "steering.formal" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="named twice"):
        reconcile(STEERED, STEERED, STEERED, {"formal": "ours", "steering.formal": "ours"})


def test_a_term_may_be_called_as_anything_else_is() -> None:
    """Whatever the names are, each conflict is settled by what it says it is called."""
    before = EMPTY
    for name in ("rule", "engine", "steering.rule", "base", "steering.x", "x"):
        before = before.with_steering(name, FORMAL)
    before = before.with_behaviour("rule", ONE).with_behaviour("steering.x", ONE).with_behaviour("x", ONE)
    ours, theirs = before, before
    for name in before.steering.terms:
        ours, theirs = with_term(ours, name, coefficient=2.0), with_term(theirs, name, coefficient=3.0)
    conflicts = reconcile(before, ours, theirs).conflicts
    assert len({c.take for c in conflicts}) == len(before.steering.terms)
    assert same(reconcile(before, ours, theirs, {c.take: "theirs" for c in conflicts}).persona, theirs)


def test_a_side_without_terms_says_nothing_of_their_rule() -> None:
    other = STEERED.with_steering_rule("preserve-norm")
    none = EMPTY.with_behaviour("b", ONE)
    assert reconcile(none, none, other).persona == other
    assert reconcile(
        other, none, with_term(other, "formal", coefficient=3.0).with_steering("sad", FORMAL)
    ).conflicts
    added = other.with_steering("sad", FORMAL)
    assert reconcile(other, none, added).persona.steering == Steering("preserve-norm", {"sad": FORMAL})
    (conflict,) = reconcile(none, STEERED, added.without_steering("formal")).conflicts
    assert (conflict.name, conflict.ancestor, conflict.ours, conflict.theirs) == (
        "steering.rule", None, "add", "preserve-norm",
    )  # fmt: skip
    taken = reconcile(none, STEERED, added.without_steering("formal"), {"steering.rule": "theirs"}).persona
    assert taken.steering.rule == "preserve-norm" and set(taken.steering.terms) == {"formal", "sad"}


def test_a_term_is_not_left_retired_by_what_is_gone() -> None:
    ours = STEERED.without("b")
    theirs = with_term(STEERED, "formal", retired_by="b")
    for one, other, side in ((ours, theirs, "theirs"), (theirs, ours, "ours")):
        (conflict,) = reconcile(STEERED, one, other).conflicts
        assert (conflict.name, conflict.kind) == ("formal", "steering")
        with pytest.raises(UsageError, match="b would be gone") as caught:
            reconcile(STEERED, one, other, {"formal": side})
        assert f"--take b={side}" in (caught.value.hint or "")
        kept = reconcile(STEERED, one, other, {"formal": side, "b": side})
        assert kept.conflicts == () and same(kept.persona, theirs)
    assert same(reconcile(STEERED, ours, theirs, {"formal": "ours"}).persona, ours)
