"""A sweep finds the layer where a direction was planted, says where text breaks, and measures nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.registries import run_python
from support.tiny import tiny_model, tiny_tokenizer

from pv.registry.errors import DataError, NotFoundError, UsageError
from pv.registry.provenance import Imported
from pv.registry.steering import SteeringTerm
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.models.load import load
from pv.vecstore.progress import Tick
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.vectors.steering import write_steering

NEUTRAL = parse_rows(
    b"""{"prompt": "Why?", "completion": "Because the river runs downhill, as rivers do."}
{"prompt": "How?", "completion": "With a rope, a hammer and a lot of patience."}
{"text": "The harbour was quiet, and the boats lay still."}
{"text": "Bread is flour, water, salt and time."}
"""
)
ROWS = parse_rows(
    "".join(
        json.dumps({"prompt": f"{w}?", "chosen": "aaaa", "rejected": "bbbb"}) + "\n"
        for w in ("sun", "sea", "oak", "elm", "tin", "rye", "jam", "owl")
    ).encode()
)
PLANTED = "model.layers.1"
QUICK: dict[str, Any] = {"neutral": NEUTRAL, "replies": 2, "max_tokens": 6, "threads": 1}
STEPS = (-1.0, 0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that is surer of what it says than others: what is added to its last layer can break its text."""
    folder = tmp_path_factory.mktemp("base")
    model = tiny_model()
    model.model.norm.weight.data *= 3
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def repo(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """A term `letters`: in the last layer the direction from b to a in the output embedding, in the first one noise."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    init(tmp_path / "r", base, threads=1)
    with Repo.open(tmp_path / "r") as opened:
        plant(opened, base)
        yield opened


def plant(repo: Repo, base: Path) -> None:
    model, tokenizer = load(base)
    a, b = (tokenizer.convert_tokens_to_ids(letter) for letter in "ab")
    head = model.get_output_embeddings().weight.detach().numpy()
    direction = (head[a] - head[b]).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(len(direction)).astype(np.float32)
    directions = {
        "model.layers.0": noise * np.linalg.norm(direction) / np.linalg.norm(noise),
        PLANTED: direction,
    }
    registry = repo.registry
    manifest = write_steering(directions, registry.base().id, registry.packs)
    term = SteeringTerm(1.0, manifest.id)
    registry.change(
        "steer import letters",
        "Steer letters",
        lambda persona: persona.with_steering("letters", term),
        vectors={manifest.id: (manifest, Imported("test", "letters"))},
    )


def records(repo: Repo) -> dict[str, bytes]:
    folder = repo.registry.root / "records"
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_planted_layer_is_found(repo: Repo) -> None:
    found = repo.steer.sweep("letters", ROWS, coefficients=STEPS, damage=0.4, **QUICK)
    assert [place.layer for place in found.places] == [0, 1]
    effects = [cell.effect.mean for cell in found.at(found.places[1])]
    assert effects == sorted(effects) and effects[0] < 0 < effects[1]
    assert found.suggestion is not None
    cell = found.suggestion.cell
    assert cell.place.site == PLANTED and not cell.is_broken and cell.effect.low > 0
    assert cell.cost is not None and cell.cost.mean <= 0.4
    larger = [c for c in found.cells if c.first.mean > cell.first.mean]
    assert all(c.is_broken or c.cost is None or c.cost.mean > 0.4 for c in larger)
    assert found.suggestion.effect == cell.second and cell.second.n == 4
    assert found.cell(PLANTED, 1.0).against.mean == 0 and found.cell(PLANTED, -1.0).against.mean == 0
    assert cell.dose == pytest.approx(abs(cell.coefficient) * found.cell(PLANTED, 1.0).dose)


def test_effect_and_dose_are_those_of_the_steered_model(repo: Repo, base: Path) -> None:
    import torch

    from pv.vecstore.activations.extract import pairs_of
    from pv.vecstore.activations.hooks import captured, steered
    from pv.vecstore.evaluate.margins import margins
    from pv.vecstore.vectors.steering import open_steering

    found = repo.steer.sweep("letters", ROWS, layers=[1], coefficients=[2.0], **QUICK)
    model, tokenizer = load(base)
    direction = open_steering(found.vector, repo.persona.base, repo.registry.packs)[PLANTED]
    plain = margins(model, tokenizer, ROWS).margin
    with steered(model, {PLANTED: 2 * torch.from_numpy(direction)}):
        moved = margins(model, tokenizer, ROWS).margin
    (cell,) = found.cells
    assert cell.effect.mean == pytest.approx((moved - plain).mean(), abs=1e-5)
    assert (cell.first.mean + cell.second.mean) / 2 == pytest.approx(cell.effect.mean)
    quotients = []
    for text in (text for pair in pairs_of(model, tokenizer, ROWS) for text in pair):
        with torch.no_grad(), captured(model, [PLANTED]) as seen:
            model(torch.tensor([text.tokens]))
        norms = seen[PLANTED][0, len(text.prompt) :].norm(dim=-1).numpy()
        quotients.extend(2 * np.linalg.norm(direction) / norms)
    assert cell.dose == pytest.approx(np.mean(quotients), rel=1e-4)


def test_what_breaks_text_is_said(repo: Repo) -> None:
    found = repo.steer.sweep("letters", ROWS, layers=[1], coefficients=[0.1, 8, 30], damage=0.4, **QUICK)
    (broken,) = found.breaks
    assert broken.sign == 1 and broken.cell is not None and broken.cell.coefficient == 8
    assert broken.cell.broken_by == ("damage",) and broken.words == "8 (damage)"
    assert found.suggestion is not None and found.suggestion.cell.coefficient == 0.1
    assert found.to_json()["breaks"][0]["coefficient"] == broken.cell.coefficient


def test_no_suggestion_where_all_is_too_dear(repo: Repo) -> None:
    found = repo.steer.sweep("letters", ROWS, layers=[1], coefficients=[8, 30], set=True, **QUICK)
    head = repo.at("HEAD").commit
    assert found.suggestion is None and found.set_in is None and found.commit == head


def test_set_commits_the_choice(repo: Repo) -> None:
    found = repo.steer.sweep("letters", ROWS, coefficients=[0.5, 1], damage=0.4, set=True, **QUICK)
    assert found.suggestion is not None and found.set_in == repo.at("HEAD").commit != found.commit
    term = repo.persona.steering_term("letters")
    assert (term.sites, term.coefficient) == ((PLANTED,), found.suggestion.cell.coefficient)
    again = repo.steer.sweep("letters", ROWS, coefficients=[0.5, 1], damage=0.4, set=True, **QUICK)
    assert again.set_in == again.commit == found.set_in


def test_nothing_is_measured_twice(repo: Repo) -> None:
    ticks: list[Tick] = []

    def stop(tick: Tick) -> None:
        if tick.unit == "cells" and tick.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        repo.steer.sweep("letters", ROWS, coefficients=STEPS, progress=stop, **QUICK)
    assert "is kept" in caught.value.__notes__[0]
    kept = records(repo)
    assert len(kept) == 1 + 3  # the control, and three cells
    whole = repo.steer.sweep("letters", ROWS, coefficients=STEPS, progress=ticks.append, **QUICK)
    after = records(repo)
    assert len(after) == 1 + 8 and kept.items() <= after.items()
    assert ticks[-1].done == ticks[-1].total == 8
    ticks.clear()
    again = repo.steer.sweep("letters", ROWS, coefficients=STEPS, progress=ticks.append, **QUICK)
    assert again == whole and records(repo) == after
    assert not any("loading" in tick.stage for tick in ticks)


def test_a_score_of_a_cell_is_known_afterwards(repo: Repo) -> None:
    from pv.vecstore.repo.score_plan import ScorePlan

    found = repo.steer.sweep("letters", ROWS, layers=[1], coefficients=[1], **QUICK)
    repo.steer.set("letters", sites=[PLANTED])
    before = records(repo)
    score = repo.at().score(ROWS, plan=ScorePlan(NEUTRAL, replies=0), threads=1)
    assert score.build == found.cells[0].build
    assert score.effect == found.cells[0].effect and score.damage == found.cells[0].damage
    assert score.damage is not None and score.damage.kl_text is not None and score.damage.kl_text.mean > 0
    assert records(repo).keys() == before.keys()


def test_layers(repo: Repo) -> None:
    from pv.vecstore.repo.steer.swept import places_of

    sites = [f"model.layers.{i}" for i in range(30)]

    def layers(given: Any) -> list[int | None]:
        return [place.layer for place in places_of(sites, given, "x")]

    assert layers("3, 15,9") == [3, 9, 15] and layers([9, 3, 9]) == [3, 9]
    assert layers("every:10") == [0, 10, 20] and layers("all") == list(range(30))
    assert len(layers(None)) == 8 and {0, 29} <= set(layers(None))
    heads = [f"h.{i}.attn:input[{j}/2]" for i in (10, 2) for j in range(2)]
    assert [place.words for place in places_of(heads, "2", "x")] == heads[2:]
    with pytest.raises(UsageError, match="layer 30") as caught:
        layers("30")
    assert caught.value.hint == "it has some in layers 0 to 29"


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"name": "nobody"}, NotFoundError, "no steering term 'nobody'"),
        ({"layers": "1,7"}, UsageError, "no direction in layer 7"),
        ({"layers": [2]}, UsageError, "no direction in layer 2"),
        ({"layers": "some"}, UsageError, "'some' is no layer"),
        ({"layers": "every:0"}, UsageError, "is no layer"),
        ({"layers": ""}, UsageError, "is no layer"),
        ({"layers": []}, UsageError, "no layers"),
        ({"coefficients": "1,much"}, UsageError, "'much' is not a coefficient"),
        ({"coefficients": [None]}, UsageError, "is not a coefficient"),
        ({"coefficients": "1,nan"}, UsageError, "finite"),
        ({"coefficients": [1e7]}, UsageError, "finite number up to a million"),
        ({"coefficients": [0]}, UsageError, "coefficient 0 adds nothing"),
        ({"coefficients": []}, UsageError, "no coefficients"),
        ({"rows": parse_rows(b'{"prompt": "a", "chosen": "b"}\n')}, DataError, "no 'rejected' answer"),
        ({"rows": ROWS[:3]}, DataError, "3 rows are too few"),
        ({"rows": "nowhere.jsonl"}, DataError, "no file"),
        ({"neutral": parse_rows(b'{"text": "one"}\n')}, DataError, "neutral set"),
        ({"plot": "nowhere/a.png"}, UsageError, "no folder"),
        ({"damage": float("nan")}, UsageError, "damage"),
        ({"damage": -1}, UsageError, "damage"),
        ({"replies": -1}, UsageError, "replies"),
    ],
)  # fmt: skip
def test_bad_input(repo: Repo, given: dict[str, Any], error: type[Exception], match: str) -> None:
    asked = {"name": "letters", "rows": ROWS, **QUICK, **given}
    with pytest.raises(error, match=match) as caught:
        repo.steer.sweep(asked.pop("name"), asked.pop("rows"), **asked)
    assert getattr(caught.value, "hint", None)
    assert records(repo) == {} or "neutral" in given


def test_without_replies(repo: Repo) -> None:
    asked = {**QUICK, "replies": 0}
    found = repo.steer.sweep("letters", ROWS, layers=[1], coefficients=[1], **asked)
    assert found.broken is None and found.cells[0].broken is None and found.prompts == 0


def test_other_terms_and_rows_that_are_not_held_out_are_said(repo: Repo) -> None:
    repo.steer.extract(ROWS, name="other", layers=[1], threads=1)
    found = repo.steer.sweep("other", ROWS, coefficients=[1], **QUICK)
    assert "without the other steering terms: letters" in found.notes
    assert any("8 of 8 rows" in note and "extracted from" in note for note in found.notes)


def test_page_and_plot_are_written(repo: Repo, tmp_path: Path) -> None:
    made: dict[str, Any] = {"plot": tmp_path / "a.png", "page": tmp_path / "a.html"}
    repo.steer.sweep("letters", ROWS, layers=[1], coefficients=[1, 2], **made, **QUICK)
    assert made["plot"].read_bytes().startswith(b"\x89PNG")
    assert made["page"].read_text().startswith("<!doctype html>")


def test_without_matplotlib_it_is_said_before_anything_is_measured(repo: Repo) -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
from pathlib import Path
from pv.vecstore.repo.repo import Repo
from pv.registry.errors import UsageError
with Repo.open(Path(sys.argv[1])) as repo:
    try:
        repo.steer.sweep("letters", sys.argv[2], plot=Path(sys.argv[1]) / "a.png")
    except UsageError as error:
        print(error, error.hint)
"""
    rows = repo.path / "rows.jsonl"
    rows.write_bytes(ROWS.to_bytes())
    done = run_python(code, str(repo.path), str(rows))
    assert "matplotlib is not installed pip install 'personavec[plots]'" in done.stdout
    assert records(repo) == {} and not (repo.path / "a.png").exists()


def test_apply_and_chat(repo: Repo) -> None:
    head = repo.at("HEAD").commit
    found = repo.steer.apply("letters", ["sun?", "sea?"], 30, layer=1, max_tokens=4, threads=1)
    assert [reply.text for reply in found.replies] == ["aaaa", "aaaa"]
    plain = repo.at().replies(["sun?", "sea?"], 4, base=True, threads=1)
    assert [reply.text for reply in found.plain] == plain != ["aaaa", "aaaa"]
    with repo.steer.chat("letters", 30, sites=[PLANTED], positions="reply", threads=1) as chat:
        assert chat.replies(["sun?"], 3) == ["aaa"]
    assert repo.at("HEAD").commit == head and records(repo) == {}
    document = found.to_json()
    assert document["term"]["sites"] == [PLANTED] and document["replies"][1]["steered"]["text"] == "aaaa"


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"name": "nobody"}, NotFoundError, "no steering term"),
        ({"layer": 9}, UsageError, "no direction in layer 9"),
        ({"sites": ["lm_head"]}, UsageError, "no direction at 'lm_head'"),
        ({"layer": 1, "sites": [PLANTED]}, UsageError, "exclude each other"),
        ({"positions": "some"}, UsageError, "no positions 'some'"),
        ({"coefficient": float("inf")}, UsageError, "coefficient"),
        ({"prompts": []}, UsageError, "nothing to ask"),
    ],
)
def test_what_cannot_be_applied(
    repo: Repo, given: dict[str, Any], error: type[Exception], match: str
) -> None:
    asked = {"name": "letters", "prompts": ["Hi"], **given}
    with pytest.raises(error, match=match):
        repo.steer.apply(asked.pop("name"), asked.pop("prompts"), **asked)
