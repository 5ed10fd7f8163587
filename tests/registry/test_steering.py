"""Steering terms in a persona: one spelling, strictly read, and no id of a persona without them changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.registries import BASE, personas, vector
from support.steering import steered, terms

from pv.registry import ids
from pv.registry.changes import changes
from pv.registry.errors import FormatError, NotFoundError, UsageError
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.steering import Condition, Steering, SteeringTerm
from pv.registry.words import change_line, persona_line

V, W, X = (f"{n:064x}" for n in (10, 11, 12))
PLAIN = Persona(BASE.id, {"b": Behaviour(1.0, (Term(1.0, vector(1).id),))})
TERM = SteeringTerm(2.0, V, ("model.layers.14",))
STEERED = PLAIN.with_steering("formal", TERM)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(steered(personas))
def test_round_trip(persona: Persona) -> None:
    again = Persona.from_bytes(persona.to_bytes())
    assert again.to_bytes() == persona.to_bytes()
    assert (again.id, again.vectors, again.recipe.id) == (persona.id, persona.vectors, persona.recipe.id)
    assert persona.to_json()["schema"] == (2 if persona.steering.terms else 1)
    assert changes(persona, again) == ()


@given(personas)
def test_without_terms_it_is_what_it_was(persona: Persona) -> None:
    document = persona.to_json()
    assert document["schema"] == 1 and "steering" not in document
    assert persona.recipe is persona and persona.vectors == persona.task_vectors
    there_and_back = persona.with_steering("formal", TERM).without_steering("formal")
    assert there_and_back.to_bytes() == persona.to_bytes()


@given(terms, st.dictionaries(st.sampled_from(["tested"]), st.just({"n": 1}), min_size=1))
def test_a_recipe_has_neither_evidence_nor_what_is_retired(term: SteeringTerm, known: dict[str, Any]) -> None:
    with_evidence = PLAIN.with_steering("x", replace(term, evidence=known))
    without = PLAIN.with_steering("x", replace(term, evidence={}))
    assert with_evidence.id != without.id and with_evidence.recipe == without
    retired = PLAIN.with_steering("x", replace(term, retired_by="b"))
    assert retired.recipe == PLAIN and retired.recipe.id == PLAIN.id
    assert set(term.vectors) <= set(retired.vectors), "its vector is kept all the same"


def test_what_is_not_steering_is_left_of_one_alone() -> None:
    assert STEERED.alone("b").steering == Steering() == STEERED.without_behaviours().steering
    assert STEERED.is_base == PLAIN.is_base


def test_the_ids_are_these() -> None:
    """Written down, so that no later change moves them."""
    assert PLAIN.id == ids.persona_id(json.loads(PLAIN.to_bytes()))
    assert json.loads(STEERED.to_bytes())["steering"] == {
        "rule": "add",
        "terms": {
            "formal": {
                "coefficient": 2, "vector": V, "sites": ["model.layers.14"], "positions": "all", "when": None,
                "evidence": {}, "retired_by": None,
            }
        },
    }  # fmt: skip


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *folders, last = path.split("/")
        place: Any = document
        for key in folders:
            place = place[key]
        place[last] = value

    return change


def take(path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *folders, last = path.split("/")
        place: Any = document
        for key in folders:
            place = place[key]
        del place[last]

    return change


ONE = "steering/terms/formal"
WHEN = {"vector": W, "site": "model.layers.3", "above": 0.1}


@pytest.mark.parametrize(
    "change",
    [
        put("schema", 1), put("schema", 3), put("schema", True), take("steering"), put("steering", None),
        put("steering", []), put("steering/terms", {}), put("steering/terms", []), put("steering/rule", "sum"),
        put("steering/rule", 1), put("steering/more", 1), take("steering/rule"),
        put("steering/terms/a b", {}), put("steering/terms/..", {}),
        put(f"{ONE}/coefficient", "1"), put(f"{ONE}/coefficient", True), put(f"{ONE}/coefficient", 1e31),
        put(f"{ONE}/vector", "../../x"), put(f"{ONE}/vector", None), put(f"{ONE}/more", 1), take(f"{ONE}/evidence"),
        put(f"{ONE}/sites", []), put(f"{ONE}/sites", ["b", "a"]), put(f"{ONE}/sites", ["a", "a"]),
        put(f"{ONE}/sites", ["a" * 257]), put(f"{ONE}/sites", [""]), put(f"{ONE}/sites", ["a\nb"]),
        put(f"{ONE}/sites", [1]), put(f"{ONE}/sites", "a"), put(f"{ONE}/sites", [f"{n:05}" for n in range(10_001)]),
        put(f"{ONE}/positions", "some"), put(f"{ONE}/positions", None), put(f"{ONE}/positions", ["all"]),
        put(f"{ONE}/when", {}), put(f"{ONE}/when", {**WHEN, "above": 1.5}), put(f"{ONE}/when", {**WHEN, "site": ""}),
        put(f"{ONE}/when", {**WHEN, "vector": "x"}), put(f"{ONE}/when", {**WHEN, "more": 1}),
        put(f"{ONE}/evidence", []), put(f"{ONE}/evidence", {"proved": {}}), put(f"{ONE}/evidence", {"tested": 1}),
        put(f"{ONE}/evidence", {"tested": {"x": "y" * 70_000}}),
        put(f"{ONE}/retired_by", "nobody"), put(f"{ONE}/retired_by", 1), put(f"{ONE}/retired_by", ["b"]),
    ],
)  # fmt: skip
def test_what_a_stranger_may_not_write(change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(STEERED.to_bytes())
    Persona.from_json(document)
    change(document)
    with pytest.raises(FormatError):
        Persona.from_bytes(json.dumps(document).encode())


def test_too_many_terms_are_refused() -> None:
    document = json.loads(STEERED.to_bytes())
    document["steering"]["terms"] = {f"t{n}": document["steering"]["terms"]["formal"] for n in range(1001)}
    with pytest.raises(FormatError, match="1001 terms are more than 1000"):
        Persona.from_json(document)


def test_schema_1_has_no_such_key() -> None:
    with pytest.raises(FormatError, match="exactly"):
        Persona.from_json({**json.loads(PLAIN.to_bytes()), "steering": {"rule": "add", "terms": {}}})


@pytest.mark.parametrize(
    "values",
    [
        {"coefficient": 1.0},
        {"vector": W},
        {"sites": None},
        {"positions": "reply"},
        {"when": Condition(W, "a", 0.1)},
    ],
)
def test_what_was_known_is_of_the_term_as_it_was(values: dict[str, Any]) -> None:
    known = replace(TERM, evidence={"tested": {"effect": 1}})
    assert known.changed(**values).evidence == {}
    assert known.changed(coefficient=2.0, sites=["model.layers.14"] * 2) == known
    assert known.changed(retired_by="b").evidence == known.evidence


def test_the_rule_is_one_of_all_terms_and_empties_what_is_known() -> None:
    persona = PLAIN.with_steering("formal", replace(TERM, evidence={"tested": {}}))
    other = persona.with_steering_rule("preserve-norm")
    assert other.steering.rule == "preserve-norm" and other.steering_term("formal").evidence == {}
    assert persona.with_steering_rule("add") is persona
    assert other.without_steering("formal").to_bytes() == PLAIN.to_bytes()
    with pytest.raises(UsageError, match="no steering rule 'mean'"):
        persona.with_steering_rule("mean")
    with pytest.raises(UsageError, match="no steering term here for a rule"):
        PLAIN.with_steering_rule("preserve-norm")


def test_a_behaviour_that_retired_a_term_stays() -> None:
    retired = PLAIN.with_steering("formal", replace(TERM, retired_by="b"))
    with pytest.raises(UsageError, match="b has retired the steering term formal") as caught:
        retired.without("b")
    assert "pv steer drop formal" in (caught.value.hint or "")
    assert retired.renamed("b", "c").steering_term("formal").retired_by == "c"
    assert retired.renamed("b", "c").checked().without_steering("formal").without("c") == Persona(BASE.id)
    with pytest.raises(UsageError, match="is retired by 'nobody'"):
        PLAIN.with_steering("formal", replace(TERM, retired_by="nobody")).checked()
    with pytest.raises(NotFoundError, match="no steering term 'x'"):
        PLAIN.without_steering("x")


def test_changes_in_words() -> None:
    known = replace(TERM, evidence={"tested": {"effect": 1}})
    found = {
        "formal": known,
        "sad": replace(TERM, sites=None, positions="reply", when=Condition(W, "model.layers.3", 0.25)),
    }
    after = replace(PLAIN, steering=Steering("preserve-norm", found))
    assert [change_line(one) for one in changes(PLAIN, after)] == [
        "+ steering formal  2 × vector 00000000 at model.layers.14, all positions",
        "+ steering sad  2 × vector 00000000 at all its sites, the reply, if the cosine with 00000000 at "
        "model.layers.3 is above 0.25",
        "~ steering.rule  add -> preserve-norm",
    ]
    (change,) = changes(
        STEERED, PLAIN.with_steering("formal", known.changed(coefficient=-0.5, positions="prompt"))
    )
    assert change_line(change) == "~ steering formal  coefficient 2 -> -0.5, all positions -> the prompt"
    (change,) = changes(STEERED, PLAIN.with_steering("formal", known))
    assert change_line(change) == "~ steering formal  tested"
    (change,) = changes(PLAIN.with_steering("formal", replace(known, retired_by="b")), STEERED)
    assert change_line(change) == "~ steering formal  no longer retired by b, no longer tested"
    assert change.to_json()["kind"] == "steering"
    assert persona_line(after) == "b 1  steering formal 2  steering sad 2"
    assert persona_line(Persona(BASE.id)) == "(base)"
