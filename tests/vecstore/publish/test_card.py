"""The model card: what it says, that the Hub's own parser reads it, and that nobody's data breaks it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from support.loopback_routes import card_errors

from pv.registry.combine import Combine
from pv.registry.manifest import BaseManifest, TensorRow
from pv.registry.persona import Behaviour, Output, Persona, Term
from pv.registry.provenance import Captured, Derived, Provenance, Trained, TrainingData, Unknown
from pv.registry.steering import Steering, SteeringTerm
from pv.vecstore.publish.card import CardFacts, model_card
from pv.vecstore.publish.markdown import yaml_string

HUB = BaseManifest(
    {"w": TensorRow("BF16", (2, 2), "0" * 64)},
    {"kind": "hub", "repo": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "abcdef0123" * 4},
)
LOCAL = replace(HUB, origin={"kind": "path", "path": "/home/alice/secret project/smollm2/"})
V1, V2, V3 = "1" * 64, "2" * 64, "3" * 64
PERSONA = Persona(
    HUB.id,
    {
        "listening": Behaviour(1.0, (Term(1.0, V1),)),
        "concise": Behaviour(-0.5, (Term(1.0, V2), Term(-1.0, V3)), {"*.mlp.*": 0.25}),
        "shouting": Behaviour(0.0, (Term(1.0, V3),)),
    },
    Combine.of("add"),
    Output("bf16", "stochastic", 7),
)
OPTIONS = {"optimizer": "apollo", "epochs": 3, "lr": 1e-4, "seed": 0, "rank": 32}
LISTENING = Trained(TrainingData("/home/alice/rows/listening.jsonl", "d" * 64, 48), OPTIONS, {}, None, 0)
PROVENANCE: dict[str, Provenance] = {V1: LISTENING, V2: Captured("C:\\Users\\alice\\tuned")}
SCORE: dict[str, Any] = {
    "data": "listening.heldout.jsonl",
    "data_id": "e" * 64,
    "n": 24,
    "margin": {"mean": 12.5, "low": 11.0, "high": 14.0},
    "base_margin": {"mean": -1.25, "low": -2.0, "high": 0.0},
    "effect": {"mean": 13.75, "low": 12.0, "high": 15.5},
}
FACTS = CardFacts(PERSONA, HUB, "b" * 64, "c" * 64, PROVENANCE, [SCORE], {"model.safetensors": "a" * 64})


def with_behaviours(**behaviours: Behaviour) -> CardFacts:
    return replace(FACTS, persona=replace(PERSONA, behaviours=behaviours))


def tokens(card: str) -> list[Token]:
    """Everything that a GitHub-flavoured renderer would make of the card's text, flat."""
    text = ModelCard(card).text
    flat: list[Token] = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text):
        flat += [token, *(token.children or [])]
    return flat


def shape(card: str) -> list[str]:
    """The card's structure without its words: what may not depend on anybody's data."""
    return [token.type for token in tokens(card) if token.type not in ("text", "softbreak")]


def cells(card: str) -> list[str]:
    found = tokens(card)
    return [after.content for token, after in pairwise(found) if token.type == "td_open"]


# What it says


def test_the_hub_reads_the_front_matter_back() -> None:
    card = ModelCard(model_card(replace(FACTS, licence="apache-2.0")))
    data = card.data.to_dict()
    assert data == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "merge",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["pv", "personavec", "merge", "add", "concise", "listening"],
    }
    again = ModelCard(str(card))  # the client's own writing of it
    assert again.data.to_dict() == data and again.text == card.text
    assert card_errors(str(card)) == []


def test_the_recipe_in_words() -> None:
    card = model_card(FACTS)
    rows = cells(card)
    assert "`listening`" in rows and "-0.5 (negated); `*.mlp.*` × 0.25" in rows and "0 (left out)" in rows
    assert "1 × `222222222222`, -1 × `333333333333`" in rows
    trained = "trained on 48 rows of `listening.jsonl`, `3` epochs, `apollo`, lr `0.0001`, seed `0`"
    assert trained in rows and "captured from `tuned`; not recorded" in rows
    assert "Combined with `add`" in card and "as bf16, `stochastic` rounding, seed 7" in card
    assert "with 2 behaviours" in card  # one of the three has no weight


def test_the_switches_of_a_combine_rule() -> None:
    persona = PERSONA.with_combine(Combine.of("ties", density=0.3))
    card = model_card(replace(FACTS, persona=persona))
    assert "`density` `0.3`" in card and "`elect` `unweighted`" in card
    assert "ties" in ModelCard(card).data.to_dict()["tags"]


def test_the_scores() -> None:
    wide = SCORE | {"effect": {"mean": 0.5, "low": -1.0, "high": 2.0}}
    down = {"data": "/x/y.jsonl", "n": 8, "effect": {"mean": -2.0, "low": -3.0, "high": -1.0}, "margin": -9.0}
    card = model_card(replace(FACTS, scores=[SCORE, wide, down]))
    first = [
        "`listening.heldout.jsonl`",
        "24",
        "-1.25",
        "12.50",
        "+13.75",
        "+12.00 to +15.50",
        "stronger than in the base",
    ]
    third = ["`y.jsonl`", "8", "–", "-9.00", "-2.00", "-3.00 to -1.00", "weaker than in the base"]
    rows = cells(card)
    assert first == rows[rows.index(first[0]) :][:7] and third == rows[rows.index(third[0]) :][:7]
    assert "inconclusive" in rows and "base is the control" in card.replace("\n", " ")


def asked(name: str) -> dict[str, Any]:
    """Tasks as a score notes them."""
    three = {"mean": 0.5, "low": 0.4, "high": 0.6}
    part = {"task": name, "n": 60, "accuracy": three, "base_accuracy": three, "accuracy_change": three}
    return {"questions": f"/home/a/{name}", "parts": [part]}


def test_right_answers_are_a_note() -> None:
    card = model_card(replace(FACTS, scores=[SCORE | {"tasks": asked("sums")}]))
    assert "\n- `listening.heldout.jsonl`: right answers to `sums` 30 of 60 (base: 30) (`sums`)\n" in card


def test_no_scores_are_said_to_be_none() -> None:
    assert "None were measured" in model_card(replace(FACTS, scores=()))


@pytest.mark.parametrize("effect", [None, "high", {}, {"mean": float("nan"), "low": "x", "high": True}])
def test_a_score_with_holes_is_shown_with_holes(effect: Any) -> None:
    card = model_card(replace(FACTS, scores=[{"data": "rows", "n": "many", "effect": effect}]))
    rows = cells(card)
    assert rows[rows.index("`rows`") :][:7] == ["`rows`", "–", "–", "–", "–", "– to –", "–"]


def test_the_ids() -> None:
    rows = cells(model_card(FACTS))
    for value in (PERSONA.id, "b" * 64, "c" * 64, HUB.id, "a" * 64):
        assert f"`{value}`" in rows


def test_a_local_base_is_named_without_its_path() -> None:
    card = model_card(replace(FACTS, base=LOCAL))
    assert "A local checkpoint named `smollm2`" in card
    assert "base_model" not in ModelCard(card).data.to_dict()
    for leak in ("alice", "secret", "/home", "Users", "rows/"):
        assert leak not in card
    assert "A local checkpoint, with" in model_card(replace(FACTS, base=replace(HUB, origin={})))


def test_the_repository_appears_in_the_snippet() -> None:
    assert 'from_pretrained("alice/my-persona")' in model_card(replace(FACTS, repo="alice/my-persona"))
    assert 'from_pretrained("path/to/this/folder")' in model_card(FACTS)
    hostile = 'x"); import os; os.system("true'
    assert "import os" not in model_card(replace(FACTS, repo=f"{hostile}/{hostile}")).split("## Use")[1]


def test_an_empty_persona_is_the_base() -> None:
    assert "these are the base's weights" in model_card(replace(FACTS, persona=Persona(HUB.id)))


def test_the_same_facts_give_the_same_card() -> None:
    turned = dict(reversed(list(PERSONA.behaviours.items())))
    assert model_card(with_behaviours(**turned)) == model_card(FACTS)


def test_a_licence_that_is_no_identifier() -> None:
    card = model_card(replace(FACTS, licence="My licence\n---\nx: y"))
    assert ModelCard(card).data.to_dict()["license"] == "other"


# Strangers' data

HOSTILE = (
    '"\n---\nlicense: mit\n---\n# Hacked',
    "a: b\n- c",
    "`` ` ``` <script>alert(1)</script>",
    "| a | b |\n|---|---|\n",
    "](https://evil.example) ![x](https://evil.example/x.png)",
    "\\| \\` \\",
    "<!-- ",
    "```\nfence",
    "\u202eright to left\u2028line\x85next\x00\x1b[31m\ufeff",
    "\ud800 lone",
    "{{ 7 * 7 }} &lt; https://evil.example www.evil.example",
    "x" * 5000,
    "",
    "   ",
)


def test_a_packed_vector_keeps_its_lineage() -> None:
    packed = Derived(V1, "lowrank:8", 0.5, 0.1, LISTENING)
    card = model_card(replace(FACTS, provenance={V1: packed, V2: Unknown({"kind": "told"})}))
    assert "trained on 48 rows of `listening.jsonl`" in card and "; kept as `lowrank:8`" in card
    assert "not recorded" in card and "effect not measured in this encoding" in card


def poisoned(text: str) -> CardFacts:
    """The facts with `text` in every place that a stranger can write to."""
    whole = text.encode("utf-8", "replace").decode()  # a persona with half a character has no id
    behaviour = Behaviour(1.0, (Term(1.0, whole),), {whole: 0.5})
    data, options = TrainingData(text or "x", "", 1), {"lr": text, "seed": text}
    return CardFacts(
        replace(PERSONA, behaviours={whole: behaviour}, combine=Combine(whole, {whole: whole})),
        replace(HUB, origin={"kind": "path", "path": text}),
        build_id=text,
        weights_id=text,
        provenance={whole: Derived("f" * 64, text, 0.1, 0.1, Trained(data, options, {}, None, 0))},
        scores=[
            {"data": text, "n": 1, "effect": {"mean": 1, "low": text, "high": text}, "tasks": asked(text)}
        ],
        sums={text: text},
    )


SHAPE = shape(model_card(poisoned("x")))


def check_poisoned(text: str) -> None:
    card = model_card(poisoned(text))
    card.encode("utf-8")
    data = ModelCard(card).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert data["tags"][:3] == ["pv", "personavec", "merge"] and len(data["tags"]) <= 5
    assert all(isinstance(tag, str) and tag for tag in data["tags"])
    assert card_errors(card) == []
    hollow = not text.rstrip("\\/")  # a path of nothing names nothing: one code span fewer
    assert shape(card) == SHAPE or (hollow and "html" not in " ".join(shape(card)))
    assert all(ch.isprintable() or ch == "\n" for ch in card)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_changes_no_structure(text: str) -> None:
    check_poisoned(text)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters() | st.sampled_from("`|\\\n<>[]()#-*_:\"'{}&!"), max_size=30))
def test_no_text_changes_the_structure(text: str) -> None:
    check_poisoned(text)


def test_a_hub_id_that_is_none_is_not_passed_on() -> None:
    base = replace(HUB, origin={"kind": "hub", "repo": "a/b\nlicense: mit", "revision": "x"})
    card = model_card(replace(FACTS, base=base))
    assert "license" not in ModelCard(card).data.to_dict() and "base_model" not in card


@given(st.text())
def test_a_yaml_string_reads_back(text: str) -> None:
    assert yaml.safe_load(yaml_string(text)) == text
    assert "\n" not in yaml_string(text)


def test_half_a_character_becomes_the_replacement_character() -> None:
    assert yaml.safe_load(yaml_string("a\ud800")) == "a\ufffd"


def test_steering_says_what_is_in_the_weights_and_how_the_rest_is_applied() -> None:
    terms = {
        "formal": SteeringTerm(2.0, V1),
        "brief": SteeringTerm(-0.5, V2, ("model.layers.3",), "reply"),
        "gone": SteeringTerm(1.0, V3, retired_by="listening"),
    }
    persona = replace(PERSONA, steering=Steering.of("add", terms))
    baked = model_card(replace(FACTS, persona=persona))
    assert baked.count("yes, as biases") == 2 and "listed(model" not in baked and "gone" not in baked
    card = model_card(replace(FACTS, persona=persona, unbaked={"brief": "it is <b>for</b> the reply"}))
    assert card.count("yes, as biases") == 1 and "no: it is" in card and "<b>" not in card
    assert "`model.layers.3`; the reply" in card and "with listed(model" in card and "steering.json" in card
    alone = replace(
        FACTS, persona=replace(persona, behaviours={}, steering=Steering.of("add", {"f": terms["formal"]}))
    )
    assert "these are the base's weights, but for the biases below." in model_card(alone)
    assert "these are the base's weights." in model_card(replace(alone, unbaked={"f": "no"}))
    assert "Steering" not in model_card(FACTS)
