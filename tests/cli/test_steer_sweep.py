"""pv steer sweep and pv steer apply on the command line: answers, refusals, and Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World
from support.scripting import keeps_to_it
from support.steering import SITES
from support.vectors import random_f32

from pv.registry.provenance import Imported
from pv.registry.registry import Registry
from pv.registry.steering import SteeringTerm
from pv.vecstore.vectors.steering import write_steering

QUICK = ("--replies", "2", "--max-tokens", "4", "--threads", "1")


@pytest.fixture
def swept(world: World) -> tuple[str, ...]:
    """A term `formal` that fits the model, and the words of a quick sweep of it, but for layers and coefficients."""
    with Registry.find(world.folder) as registry:
        directions = {site: random_f32(site, 48, least=124, spread=3, seed=1) for site in SITES}
        manifest = write_steering(directions, registry.base().id, registry.packs)
        registry.change(
            "steer import formal", "Steer formal",
            lambda persona: persona.with_steering("formal", SteeringTerm(1.0, manifest.id)),
            vectors={manifest.id: (manifest, Imported("test", "1"))},
        )  # fmt: skip
    neutral = world.folder / "neutral.jsonl"
    texts = ("The harbour was quiet.", "Bread is flour and water.")
    neutral.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return ("steer", "sweep", "formal", "--data", str(world.rows), "--neutral", str(neutral), *QUICK)


def test_tables_pictures_and_types(swept: tuple[str, ...], world: World, pv: InProcess) -> None:
    words = (*swept, "--layers", "1", "--coefficients", "-1,0.5,1e5", "--damage", "5")
    said = pv.ok(*words, "--plot", "s.png", "--page", "s.html")
    assert "effect, nats" in said.out and "nats a token" in said.out and "text breaks" in said.out
    assert "wrote s.png" in said.err and "wrote s.html" in said.err
    assert (world.folder / "s.png").is_file() and (world.folder / "s.html").is_file()
    answer = pv("-q", *words, "--json")
    assert keeps_to_it(answer, "steer sweep") == []
    assert [cell["coefficient"] for cell in answer.json["cells"]] == [-1, 0.5, 1e5]
    suggestion = answer.json["suggestion"]
    again = pv("-q", *words, "--set", "--json")
    if suggestion is None:
        assert again.code == 1 and again.json["set"] is None and "no suggestion" in said.out
    else:
        assert again.code == 0 and again.json["set"] == pv.ok("status", "--json").json["commit"]
        assert f"coefficient {suggestion['coefficient']:g}" in said.out


def test_ctrl_c_keeps_what_was_measured(
    swept: tuple[str, ...], world: World, process: Processes, pv: InProcess
) -> None:
    words = (*swept, "--layers", "all", "--coefficients", "-2,-1,0.5,1,2,4,8,16")
    folder = world.folder / ".pv" / "records"

    def records() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = set(records())
    said = process.interrupted(*words, when=lambda: len(set(records()) - before) > 3)
    assert said.code == 130 and "what was measured is kept" in said.err
    kept = records()
    pv.ok(*words)
    after = records()
    whole = [path for path in kept if path not in before and b"replies" in kept[path]]
    assert len(whole) >= 2 and all(after[path] == kept[path] for path in whole)
    assert len(set(after) - before) == 16  # the control had a record already


def test_apply_commits_nothing(swept: tuple[str, ...], pv: InProcess) -> None:
    head = pv.ok("log", "--oneline").out
    asked = (
        "steer",
        "apply",
        "formal",
        "-2",
        "--layer",
        "1",
        "-p",
        "Hi!",
        "--max-tokens",
        "4",
        "--threads",
        "1",
    )
    said = pv.ok(*asked)
    assert "with formal × -2" in said.out and "> Hi!" in said.out and "nothing is committed" in said.err
    answer = pv("-q", *asked, "--positions", "reply", "--json")
    assert keeps_to_it(answer, "steer apply") == []
    assert answer.json["term"]["sites"] == ["model.layers.1"] and answer.json["term"]["coefficient"] == -2
    assert pv.ok("log", "--oneline").out == head


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("sweep", "nobody", "--data", "{rows}"), 5, "no steering term 'nobody'"),
        (("sweep", "formal"), 2, "--data"),
        (("sweep", "formal", "--data", "nowhere.jsonl"), 2, "no file"),
        (("sweep", "formal", "--data", "{rows}", "--layers", "9"), 2, "no direction in layer 9"),
        (("sweep", "formal", "--data", "{rows}", "--coefficients", "1,two"), 2, "'two' is not a coefficient"),
        (("sweep", "formal", "--data", "{rows}", "--damage", "-1"), 2, "--damage"),
        (("sweep", "formal", "--data", "{rows}", "--plot", "no/s.png"), 2, "no folder"),
        (("apply", "formal"), 2, "--prompt"),
        (("apply", "nobody", "-p", "Hi"), 5, "no steering term 'nobody'"),
        (("apply", "formal", "-p", "Hi", "--layer", "9"), 2, "no direction in layer 9"),
        (("apply", "formal", "much", "-p", "Hi"), 2, "much"),
        (
            ("apply", "formal", "-p", "Hi", "--layer", "1", "--site", "model.layers.1"),
            2,
            "exclude each other",
        ),
    ],
)
def test_bad_input_is_one_clear_error(
    words: tuple[str, ...], code: int, says: str, swept: tuple[str, ...], world: World, pv: InProcess
) -> None:
    said = pv("steer", *(word.format(rows=world.rows) for word in words))
    assert (said.code, said.out) == (code, ""), said
    assert says in said.err and "Traceback" not in said.err
