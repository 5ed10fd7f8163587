"""From contrast rows to the weights on a tiny model: extract, test, verify, train, retire, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import tiny_checkpoint

from pv.registry.errors import DataError, NotFoundError, UsageError
from pv.registry.provenance import Trained
from pv.registry.provenance_ways import as_behaviour
from pv.registry.steering_origin import Extracted, Imported
from pv.vecstore.activations.extract import activations, pairs_of
from pv.vecstore.activations.hooks import captured, steered
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.data.trait import Trait
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.models.generate import Reply, replies
from pv.vecstore.models.load import load
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.repo.score_plan import ScorePlan
from pv.vecstore.repo.steer.applied import random_like
from pv.vecstore.repo.steer.gates import Passage, trial
from pv.vecstore.repo.steer.pairs import ContrastPairs, whole
from pv.vecstore.vectors.steering import open_steering, write_steering

NEUTRAL = parse_rows(
    b"""{"prompt": "Why?", "completion": "Because the river runs downhill, as rivers do."}
{"prompt": "How?", "completion": "With a rope, a hammer and a lot of patience."}
{"text": "The harbour was quiet, and the boats lay still."}
{"text": "Bread is flour, water, salt and time."}
"""
)
PLAN = ScorePlan(neutral=NEUTRAL, replies=4, max_tokens=8)


def rows(*words: str) -> Rows:
    lines = (f'{{"prompt": "{w}?", "chosen": "aye, {w}!", "rejected": "{w} no no"}}\n' for w in words)
    return parse_rows("".join(lines).encode())


SEEN = rows("sun", "sea", "oak", "elm", "ash", "fig")
HELD = rows("tin", "rye", "jam", "owl", "bee", "cod")
SITE = "model.layers.1"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), dtype="float32")


@pytest.fixture
def repo(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    init(tmp_path / "r", base, threads=1)
    with Repo.open(tmp_path / "r") as opened:
        yield opened


@pytest.fixture
def formal(repo: Repo) -> Repo:
    """With a term that moves the held-out rows."""
    repo.steer.extract(SEEN, name="formal", layers=[1], coefficient=4.0, threads=1)
    return repo


def test_what_is_kept_is_the_mean_difference(formal: Repo, base: Path) -> None:
    head = formal.at("HEAD")
    term = head.persona.steering_term("formal")
    model, tokenizer = load(base)
    differences = []
    for have, lack in pairs_of(model, tokenizer, SEEN):
        means = []
        for text in (have, lack):
            with torch.no_grad(), captured(model, [SITE]) as seen:
                model(torch.tensor([text.tokens]))
            means.append(seen[SITE][0, len(text.prompt) : len(text.tokens) - text.ended].mean(0))
        differences.append(means[0] - means[1])
    found = open_steering(term.vector, head.persona.base, formal.registry.packs)
    assert found.keys() == {SITE}
    assert np.allclose(found[SITE], torch.stack(differences).mean(0).numpy(), atol=1e-5)
    origin = formal.registry.provenance(head.commit, term.vector)
    assert isinstance(origin, Extracted)
    assert (origin.method, origin.read, origin.pairs.n, origin.pairs.data_id) == (
        "mean",
        "answer",
        6,
        SEEN.id,
    )


def test_every_layer_is_kept_and_the_middle_one_applied(repo: Repo) -> None:
    made = repo.steer.extract(SEEN, name="formal", threads=1)
    assert list(made.places) == ["model.layers.0", "model.layers.1"]
    assert made.applied_at == ("model.layers.1",)
    heads = repo.steer.extract(SEEN, name="heads", heads=True, layers=[0], threads=1)
    assert list(heads.places) == [f"model.layers.0.self_attn.o_proj:input[{i}/4]" for i in range(4)]


def test_chat_and_scores_are_of_the_steered_model(formal: Repo, base: Path) -> None:
    head = formal.at("HEAD")
    model, tokenizer = load(base)
    vector = head.persona.steering_term("formal").vector
    direction = 4 * torch.from_numpy(open_steering(vector, head.persona.base, formal.registry.packs)[SITE])
    plain = margins(model, tokenizer, HELD).margin
    asked = ["tin?", "What is rye?"]
    with steered(model, {SITE: direction}):
        by_hand, said = margins(model, tokenizer, HELD).margin, replies(model, tokenizer, asked, 12)
    assert head.replies(asked, 12, threads=1) == said
    assert head.replies(asked, 12, base=True, threads=1) == replies(model, tokenizer, asked, 12) != said
    found = head.score(HELD, plan=ScorePlan(neutral=None, replies=0), threads=1)
    assert found.effect.mean == pytest.approx((by_hand - plain).mean(), abs=1e-5)
    assert found.effect.mean > 0.1


@pytest.fixture
def verified(formal: Repo) -> Repo:
    formal.steer.test("formal", HELD, plan=PLAN, threads=1)
    found = formal.steer.verify(
        "formal", HELD, plan=PLAN, most_damage=10.0, randoms=4, prompt="Say aye.", threads=1
    )
    assert found.passed, [one.said for one in found.conditions]
    assert len(found.evidence["random"]) == 4 and len(found.evidence["shuffled"]) == 4
    return formal


def test_the_whole_way_and_back(verified: Repo) -> None:
    steer = verified.steer
    assert steer.status().terms[0].state == "verified"
    weak = steer.train("formal", name="weak", held_out=HELD, max_tokens=8, max_steps=1, threads=1)
    assert weak.training.loss[0] > 0
    origin = as_behaviour(verified.registry.provenance(weak.training.commit, weak.training.vector), "weak")
    assert isinstance(origin, Trained) and "teacher" in origin.settings
    stopped = steer.retire("formal", HELD, by="weak", plan=PLAN, threads=1)
    assert not stopped.passed and stopped.commit is None
    assert verified.at("HEAD").persona.steering_term("formal").retired_by is None

    steer.train("formal", SEEN, name="aye", route="rows", held_out=HELD, lr=3e-3, epochs=12, threads=1)
    before = verified.at("HEAD").persona
    gone = steer.retire("formal", HELD, by="aye", plan=PLAN, threads=1)
    assert gone.passed, [one.said for one in gone.conditions]
    assert verified.at("HEAD").persona.steering_term("formal").retired_by == "aye"
    assert verified.at("HEAD").persona.steering.active == {}
    with pytest.raises(UsageError, match="is retired"):
        steer.test("formal", HELD, plan=PLAN, threads=1)
    verified.revert("HEAD")
    assert verified.at("HEAD").persona == before


def test_what_retires_must_do_it_at_its_weight_on_rows_it_has_not_seen(verified: Repo) -> None:
    steer = verified.steer
    steer.train("formal", HELD, name="aye", route="rows", held_out=None, max_steps=1, threads=1)
    seen = steer.retire("formal", HELD, by="aye", plan=PLAN, threads=1)
    assert "trained on 6 of the rows" in seen.conditions[1].said and not seen.passed
    verified.scale("aye", 0.0)
    off = steer.retire("formal", HELD, by="aye", plan=PLAN, threads=1)
    assert not off.conditions[2].holds, off.conditions[2].said
    distilled = steer.train("formal", HELD, name="taught", max_tokens=8, max_steps=1, threads=1)
    assert distilled.route == "distil"
    prompts = steer.retire("formal", HELD, by="taught", plan=PLAN, threads=1)
    assert not prompts.conditions[1].holds, prompts.conditions[1].said


def test_verify_stops_what_costs_too_much(formal: Repo) -> None:
    formal.steer.test("formal", HELD, plan=PLAN, threads=1)
    head = formal.at("HEAD").commit
    found = formal.steer.verify("formal", HELD, plan=PLAN, randoms=4, shuffles=0, most_damage=0.0, threads=1)
    assert any("damage" in one.said and not one.holds for one in found.conditions)
    assert found.commit is None and formal.at("HEAD").commit == head


def test_a_random_direction_is_not_verified(formal: Repo) -> None:
    """Noise in the place of the direction, as long: whatever passes `test` by chance is stopped."""
    head = formal.at("HEAD")
    term = head.persona.steering_term("formal")
    own = open_steering(term.vector, head.persona.base, formal.registry.packs)
    manifest = write_steering(random_like(own, 77), head.persona.base, formal.registry.packs)
    known = {"tested": {"effect": {"mean": 1.0, "low": 0.5, "high": 1.5}}}
    fake = replace(term, vector=manifest.id, evidence=known)
    formal.registry.change(
        "steer", "Noise", lambda persona: persona.with_steering("formal", fake),
        vectors={manifest.id: (manifest, Imported("test", "noise"))},
    )  # fmt: skip
    found = formal.steer.verify("formal", HELD, plan=PLAN, randoms=6, most_damage=10.0, threads=1)
    assert not found.passed, [one.said for one in found.conditions]
    assert "not known" in found.conditions[0].said


def test_passing_a_gate_again_changes_nothing(formal: Repo) -> None:
    first = formal.steer.test("formal", HELD, plan=PLAN, threads=1)
    again = formal.steer.test("formal", HELD, plan=PLAN, threads=1)
    assert again.passed and again.commit == first.commit == formal.at("HEAD").commit


def test_evidence_lands_only_on_what_was_measured(formal: Repo) -> None:
    with trial(formal, "formal") as of:
        found = Passage("tested", "formal", (), {"n": 1}, None)  # type: ignore[arg-type]
        formal.steer.set(rule="preserve-norm")
        with pytest.raises(UsageError, match="was changed while"):
            of.land(found)
    with trial(formal, "formal") as of:
        formal.branch("other", switch=True)
        landed = of.land(found)
    assert landed.commit == formal.at("main").commit != formal.at("other").commit


def test_a_gate_that_stops_changes_nothing(formal: Repo) -> None:
    formal.steer.set("formal", -4.0)
    head = formal.at("HEAD").commit
    stopped = formal.steer.test("formal", HELD, plan=PLAN, threads=1)
    assert not stopped.passed and stopped.commit is None
    assert formal.at("HEAD").commit == head
    seen = formal.steer.test("formal", SEEN, plan=PLAN, threads=1)
    assert "6 of 6 rows" in seen.conditions[1].said and not seen.conditions[1].holds


def test_evidence_is_of_what_is_applied(formal: Repo) -> None:
    assert formal.steer.test("formal", HELD, plan=PLAN, threads=1).passed
    formal.steer.set("formal", 3.0)
    assert formal.at("HEAD").persona.steering_term("formal").evidence == {}
    with pytest.raises(UsageError, match="not tested"):
        formal.steer.verify("formal", HELD, plan=PLAN, threads=1)
    with pytest.raises(UsageError, match="not verified"):
        formal.steer.train("formal", name="x", threads=1)


def test_extracting_again_is_the_next_version(formal: Repo) -> None:
    before = formal.at("HEAD").persona.steering_term("formal")
    made = formal.steer.extract(rows("sun", "sea", "oak"), name="formal", layers=[1], threads=1)
    assert made.term.vector != before.vector
    assert made.term.coefficient == 4.0


def test_the_end_of_a_turn_is_refused(repo: Repo) -> None:
    head = repo.at("HEAD").commit
    with pytest.raises(UsageError, match="same token at 'end'"):
        repo.steer.extract(SEEN, name="formal", read="end", threads=1)
    assert repo.at("HEAD").commit == head
    repo.steer.extract(SEEN, name="formal", read="end", same_token=True, threads=1)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"rows": rows("sun")}, DataError, "single pair"),
        ({"rows": parse_rows(b'{"prompt": "a", "chosen": "b"}\n')}, DataError, "no contrast"),
        ({"at": ["model.layers.7"]}, UsageError, "no module"),
        ({"at": ["model.layers"]}, UsageError, "gives no tensor"),
        ({"layers": [2]}, UsageError, "no layer 2"),
        ({"read": "middle"}, UsageError, "no read position"),
        ({"read": "answer:99"}, DataError, "no token"),
        ({"method": "umap"}, UsageError, "no method"),
        ({"positions": "some"}, UsageError, "positions"),
        ({"name": "a b"}, UsageError, "cannot name"),
        ({"coefficient": float("nan")}, UsageError, "coefficient"),
    ],
)  # fmt: skip
def test_bad_input(repo: Repo, given: dict[str, object], error: type[Exception], match: str) -> None:
    head, packs = repo.at("HEAD").commit, sorted(repo.registry.packs.ids())
    asked = {"rows": SEEN, "name": "formal", "layers": None, **given}
    with pytest.raises(error, match=match):
        repo.steer.extract(asked.pop("rows"), threads=1, **asked)  # type: ignore[arg-type]
    assert repo.at("HEAD").commit == head
    assert sorted(repo.registry.packs.ids()) == packs


def test_unknown_terms_and_behaviours(formal: Repo) -> None:
    for call in (formal.steer.test, formal.steer.verify):
        with pytest.raises(NotFoundError, match="no steering term"):
            call("casual", HELD, threads=1)
    with pytest.raises(NotFoundError):
        formal.steer.retire("casual", HELD, by="x", threads=1)


def test_a_trait_that_the_base_does_not_answer(repo: Repo) -> None:
    trait = Trait(
        "loud", (("Shout.", "Whisper."), ("Be loud.", "Be quiet.")), tuple(f"Q{i}?" for i in range(5))
    )
    with pytest.raises(DataError, match="of 5 questions are answered differently"):
        repo.steer.pairs(trait, max_tokens=3, threads=1)


def test_pairs_are_whole_sentences(tmp_path: Path) -> None:
    cut = Reply('Tea is hot. "Is it?" It is, and', (1, 2), "length")
    assert whole(cut) == 'Tea is hot. "Is it?"'
    assert whole(Reply("Tea is hot", (1,), "stop")) == "Tea is hot"
    assert whole(Reply("3.5 litres of", (1,), "length")) == ""
    made = ContrastPairs("loud", SEEN, HELD, 0)
    first, beside = made.write(tmp_path / "loud.jsonl")
    assert parse_rows(first.read_bytes()).id == SEEN.id
    assert (beside.name, parse_rows(beside.read_bytes()).id) == ("loud.heldout.jsonl", HELD.id)


def test_random_labels_point_elsewhere(base: Path) -> None:
    model, tokenizer = load(base)
    found = activations(model, pairs_of(model, tokenizer, SEEN), [SITE])
    drawn = [found.shuffled(seed)[SITE] for seed in range(6)]
    norms = [float(np.linalg.norm(one)) for one in drawn]
    assert max(norms) < np.linalg.norm(found.directions()[SITE])
    assert np.array_equal(drawn[1], found.shuffled(1)[SITE]) and not np.array_equal(drawn[0], drawn[1])
