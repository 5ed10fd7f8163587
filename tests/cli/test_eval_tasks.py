"""pv eval --tasks: right answers beside the base's, on the screen, in JSON and in the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, World
from support.scripting import problems

from pv.registry.registry import Registry
from pv.vecstore.publish.beside import NotedTasks

QUESTIONS = "".join(
    json.dumps({"question": f"{word}?", "choices": ["aye", "no", "never"], "answer": i % 3, "task": task})
    + "\n"
    for task in ("sea", "land")
    for i, word in enumerate(("sun", "oak", "elm", "ash"))
)


@pytest.fixture
def own(world: World) -> Path:
    file = world.folder / "own.jsonl"
    file.write_text(QUESTIONS)
    return file


def test_tasks_beside_the_effect(world: World, pv: InProcess, own: Path) -> None:
    words = ("eval", world.rows, "--quick", "--questions", own, "--threads", "1")
    found = pv.ok(*words, "--json").json
    assert problems(found, "Eval") == []
    tasks = found["tasks"]
    assert tasks["questions"] == "own.jsonl" and [(p["task"], p["n"]) for p in tasks["parts"]] == [
        ("sea", 4),
        ("land", 4),
    ]
    for part in tasks["parts"]:
        change = part["accuracy"]["mean"] - part["base_accuracy"]["mean"]
        assert part["accuracy_change"]["mean"] == pytest.approx(change)
        change = part["margin"]["mean"] - part["base_margin"]["mean"]
        assert part["margin_change"]["mean"] == pytest.approx(change) != 0
    screen = pv.ok(*words).out
    for text in (
        "right answers, own.jsonl",
        "change of the margin, nats",
        "sea",
        "land",
        " of 4, ",
        " points",
    ):
        assert text in screen, text

    log = pv.ok("log", "--scores", "-1").out
    assert "right answers to sea " in log and " (own.jsonl)" in log
    assert ", right answers " in pv.ok("log", "--scores", "--oneline", "-1").out
    entry = pv.ok("log", "--scores", "-1", "--json").json
    assert problems(entry, "Log") == []
    (noted,) = (one["tasks"] for one in entry["commits"][0]["scores"] if one["data"] == world.rows.name)
    assert [one["task"] for one in noted["parts"]] == ["sea", "land"]
    assert noted["parts"][0]["accuracy_change"] == tasks["parts"][0]["accuracy_change"]


def test_what_was_measured_once_stays(world: World, pv: InProcess, own: Path) -> None:
    """Another eval without questions takes nothing away; the same questions are not asked again."""
    found = pv.ok("eval", world.rows, "--quick", "--questions", own, "--json").json
    assert pv.ok("eval", world.rows, "--quick", "--json").json["tasks"] is None
    with Registry.find(world.folder) as registry:
        record = registry.record(found["build"])
        assert record["scores"][found["data_id"]]["tasks"] == found["tasks"]
        assert list(record["answers"]) == [found["tasks"]["questions_id"]]
        registry.update_record(
            found["build"], {"answers": {found["tasks"]["questions_id"]: {"margin": ["x"]}}}
        )
    assert pv.ok("eval", world.rows, "--quick", "--questions", own, "--json").json == found, "measured again"


def test_two_revisions_all_and_controls(world: World, pv: InProcess, own: Path) -> None:
    pv.ok("scale", "listening", "0.5")
    both = ("eval", "HEAD~1", "HEAD", world.rows, "--quick", "--questions", own)
    found = pv.ok(*both, "--json").json
    assert problems(found, "Eval") == [] and found["a"]["tasks"] != found["b"]["tasks"]
    assert pv.ok(*both).out.count("right answers, own.jsonl") == 2
    found = pv.ok("eval", "--all", "--questions", own, "--json").json
    assert problems(found, "Eval") == [] and all(one["scores"][0]["tasks"] for one in found["lines"])
    said = pv.ok("eval", "--all", "--questions", own).out
    assert "\nright answers to own.jsonl\n" in said and "the base " in said
    words = ("eval", world.rows, "--quick", "--prompt", "Be brief.", "--questions", own)
    found = pv.ok(*words, "--json").json
    assert problems(found, "Eval") == []
    margins = [one["tasks"]["parts"][0]["margin"]["mean"] for one in (found, *found["controls"])]
    assert len(set(margins)) == 3
    assert "\nright answers to own.jsonl\n" in pv.ok(*words).out


@pytest.mark.slow
def test_pvs_own_questions(world: World, pv: InProcess) -> None:
    found = pv.ok("eval", world.rows, "--quick", "--tasks", "--json").json["tasks"]
    assert [(one["task"], one["n"]) for one in found["parts"]] == [("knowledge", 60), ("arithmetic", 60)]


def test_bad_questions(world: World, pv: InProcess, own: Path) -> None:
    bad = world.folder / "bad.jsonl"
    for text, said in (
        (None, "no file"),
        ("", "no questions"),
        (QUESTIONS.splitlines()[0] + "\n", "a single question"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "bad.jsonl:1: key 'question' is missing"),
        (QUESTIONS + '{"question": "a", "choices": ["b", "c"], "answer": 2}\n', "bad.jsonl:9: 'answer' must be"),
        (QUESTIONS + json.dumps({"question": "a" * 600, "choices": ["b", "c"], "answer": 0, "task": "sea"}) + "\n",
         "bad.jsonl:9: question and choice take"),
    ):  # fmt: skip
        if text is not None:
            bad.write_text(text)
        answer = pv("eval", world.rows, "--quick", "--questions", bad)
        assert (answer.code, answer.out) == (2, "") and said in answer.err, answer
    assert pv("eval", world.rows, "--quick", "--questions", world.folder).code == 2
    noisy = world.folder / "noisy.jsonl"
    noisy.write_text(QUESTIONS.replace('"task"', '"subject": "x", "task"'))
    answer = pv.ok("eval", world.rows, "--quick", "--questions", noisy)
    assert "noisy.jsonl: ignored columns: subject" in answer.err


def test_what_anybody_noted() -> None:
    """Records are anybody's: another form was not measured."""
    part = {
        "task": "sea", "n": 4, "accuracy": {"mean": 0.5, "low": 0.2, "high": 0.8},
        "base_accuracy": {"mean": 1.0, "low": 0.6, "high": 1.0},
        "accuracy_change": {"mean": -0.5, "low": -1.0, "high": 0.0},
    }  # fmt: skip
    good = NotedTasks.read({"tasks": {"questions": "/home/a/own.jsonl", "parts": [part]}})
    assert good is not None and good.words() == "right answers to sea 2 of 4 (base: 4) (own.jsonl)"
    assert good.brief() == "right answers -2 of 4 sea"
    holes = [{**part, key: value} for key in part for value in (None, True, [1], {"mean": 2})]
    holes += [{**part, "accuracy": {"mean": 7, "low": 0, "high": 1}}, {**part, "n": 0}, {**part, "n": "4"}]
    for parts in ([], [3], *([part, hole] for hole in holes)):
        assert NotedTasks.read({"tasks": {"questions": "x", "parts": parts}}) is None, parts
    for bad in (None, 3, {}, {"questions": 3, "parts": [part]}, {"questions": "x", "parts": part}):
        assert NotedTasks.read({"tasks": bad}) is None, bad
