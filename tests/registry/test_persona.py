from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from support.registries import BASE, personas, vector

from pv.registry.combine import Combine
from pv.registry.errors import FormatError, UnknownBehaviour, UsageError
from pv.registry.persona import ENGINE, ENGINES, Behaviour, Persona, Term, check_name

V = vector(1).id
PLAIN = Persona(BASE.id, {"a": Behaviour(1.0, (Term(1.0, V),))})


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw may wait for a busy machine
@given(personas)
def test_round_trip(persona: Persona) -> None:
    again = Persona.from_bytes(persona.to_bytes())
    assert again.to_bytes() == persona.to_bytes()
    assert again.id == persona.id
    assert again.vectors == persona.vectors


def test_numbers_have_one_spelling() -> None:
    one = PLAIN.with_behaviour("a", Behaviour(1, (Term(1, V),)))
    assert one.to_bytes() == PLAIN.to_bytes()
    nothing = PLAIN.with_behaviour("a", Behaviour(-0.0, (Term(1.0, V),)))
    assert nothing.to_bytes() == PLAIN.with_behaviour("a", Behaviour(0.0, (Term(1.0, V),))).to_bytes()


def test_a_persona_is_a_value() -> None:
    more = PLAIN.with_behaviour("b", Behaviour(0.5, (Term(1.0, V),)))
    assert set(PLAIN.behaviours) == {"a"}
    assert more.without("b").to_bytes() == PLAIN.to_bytes()
    with pytest.raises(UnknownBehaviour, match="no behaviour 'c'") as caught:
        PLAIN.without("c")
    assert caught.value.hint == "it has: a"


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a/b", "a..b", "a.lock", "a.", "é", "a" * 65, "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *folders, last = path.split("/")
        place: Any = document
        for key in folders:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[int(last) if isinstance(place, list) else last] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        put("schema", 2), put("schema", "1"), put("engine", 3), put("engine", 0), put("engine", "1"),
        put("engine", True), put("engine", None), put("engine", [1]),
        put("base", "x"), put("base", V.upper()), put("base", None), put("more", 1),
        drop("schema"), drop("base"), drop("behaviours"), drop("combine"), drop("output"), drop("engine"),
        put("behaviours", []), put("behaviours", None), put("behaviours/..", {}), put("behaviours/a", 1),
        put("behaviours/a", {}), put("behaviours/a/weight", "1"), put("behaviours/a/weight", True),
        put("behaviours/a/weight", None), put("behaviours/a/weight", 1e31), put("behaviours/a/more", 1),
        put("behaviours/a/terms", []), put("behaviours/a/terms", {}), put("behaviours/a/terms/0", [1]),
        put("behaviours/a/terms/0", [1, V, 2]), put("behaviours/a/terms/0/0", False),
        put("behaviours/a/terms/0/1", "../../x"), put("behaviours/a/modules", []),
        put("behaviours/a/modules", {"x": "1"}),
        put("combine", "add"), put("combine", {}), put("combine/method", "mix"), put("combine/density", 1),
        put("combine", {"method": "ties", "density": 0}), put("combine", {"method": "ties", "elect": "all"}),
        put("output", None), put("output/dtype", "fp8"), put("output/rounding", "up"), put("output/seed", -1),
        put("output/seed", 1.5), put("output/seed", True), put("output/seed", 1 << 53), put("output/more", 1),
    ],
)  # fmt: skip
def test_strict_reading(change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(PLAIN.to_bytes())
    change(document)
    with pytest.raises(FormatError):
        Persona.from_json(document)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_read_as_it_is_and_kept(engine: int) -> None:
    document = {**json.loads(PLAIN.to_bytes()), "engine": engine}
    persona = Persona.from_json(document)
    assert persona.engine == engine
    assert persona.with_behaviour("b", Behaviour(0.5, (Term(1.0, V),))).without("a").engine == engine
    assert persona.with_output(dtype="fp16").checked().without_behaviours().engine == engine
    assert (persona.id == PLAIN.id) == (engine == ENGINE)
    assert max(ENGINES) == ENGINE


@given(personas)
def test_alone_and_without_behaviours_it_is_written_as_the_persona_is(persona: Persona) -> None:
    """The merge method is no part of how the base is written, nor of what one behaviour does alone."""
    base = persona.without_behaviours()
    assert base.to_bytes() == Persona(persona.base, output=persona.output, engine=persona.engine).to_bytes()
    for name, behaviour in persona.behaviours.items():
        alone = persona.alone(name)
        assert alone.behaviours == {name: Behaviour(1.0, behaviour.terms)}
        assert alone.without_behaviours().to_bytes() == base.to_bytes()
    with pytest.raises(UnknownBehaviour):
        persona.alone("no-such")


def test_a_newer_schema_says_upgrade() -> None:
    document = {**json.loads(PLAIN.to_bytes()), "schema": 9}
    with pytest.raises(FormatError) as caught:
        Persona.from_json(document)
    assert "upgrade" in str(caught.value.hint)


def test_combine_spells_out_every_switch() -> None:
    assert Combine.of("ties").to_json() == {
        "method": "ties", "density": 0.2, "elect": "unweighted", "merge": "mean", "lambda": 1,
    }  # fmt: skip
    for bad in ({"density": 2.0}, {"density": True}, {"elect": "x"}, {"unknown": 1}):
        with pytest.raises(UsageError):
            Combine.of("ties", **bad)
