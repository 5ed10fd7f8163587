"""pv eval of two revisions, and of all behaviours: what the words mean, and what the numbers are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import InProcess, Processes, World, write_rows

from pv.registry.registry import Registry


@pytest.fixture
def held_out(world: World) -> Path:
    return world.rows.with_name("rows.heldout.jsonl")


def margins(world: World, build: str, data: str) -> NDArray[np.float64]:
    with Registry.find(world.folder) as registry:
        known = registry.record(build)["margins"][data]
    chosen, rejected = (np.array(known[key], np.float64) for key in ("chosen", "rejected"))
    return chosen - rejected


def test_two_revisions_are_compared_row_by_row(world: World, pv: InProcess, held_out: Path) -> None:
    """The difference is that of the margins; its interval is not that of two effects."""
    pv.ok("scale", "listening", "0.5")
    found = pv.ok("eval", "HEAD~1", "HEAD", held_out, "--json").json
    a, b = found["a"], found["b"]
    assert (a["revision"], b["revision"], found["n"]) == ("HEAD~1", "HEAD", 4)
    alone = pv.ok("eval", "HEAD~1", held_out, "--json").json
    assert {key: a[key] for key in alone if key != "schema"} == {
        k: v for k, v in alone.items() if k != "schema"
    }
    rows = margins(world, b["build"], found["data_id"]) - margins(world, a["build"], found["data_id"])
    difference = found["difference"]
    assert difference["mean"] == pytest.approx(rows.mean())
    assert rows.min() <= difference["low"] <= difference["high"] <= rows.max()
    assert found["verdict"] == ("down" if difference["high"] < 0 else "inconclusive")
    there = pv.ok("eval", "HEAD", "HEAD~1", held_out, "--json").json["difference"]
    assert there["mean"] == pytest.approx(-difference["mean"])
    said = pv.ok("eval", "HEAD~1", "HEAD", held_out).out
    assert said.startswith("A  HEAD~1 (") and "\nB  HEAD (" in said and "B - A per token" in said
    assert "\nthe interval " in said and "\nn=4 is too few for an interval to be trusted\n" in said
    assert "damage of A, on pv's neutral set" in said and "damage of B, on pv's neutral set" in said


def test_a_revision_beside_itself(world: World, pv: InProcess, held_out: Path) -> None:
    found = pv.ok("eval", "HEAD", "main", held_out, "--json").json
    assert found["difference"] == {"mean": 0, "low": 0, "high": 0} and found["verdict"] == "inconclusive"
    assert "\nA and B are the same build\n" in pv.ok("eval", "HEAD", "main", held_out).out


def test_all_needs_no_files(world: World, pv: InProcess, held_out: Path) -> None:
    """Each behaviour alone at weight 1, and the persona, on the rows that training kept."""
    other = write_rows(world.folder / "brief.jsonl", 5, answer="No")
    write_rows(world.folder / "brief.heldout.jsonl", 3, answer="No")
    pv.ok("train", other, "--as", "brief", "--max-steps", "1", "--threads", "1")
    for file in (other, world.folder / "brief.heldout.jsonl"):
        file.unlink()
    pv.ok("scale", "brief", "0.25")
    pv.ok("commit", world.tuned, "--as", "tuned")
    found = pv.ok("eval", "--all", "--json").json
    assert [line["behaviour"] for line in found["lines"]] == ["brief", "listening", "tuned", None]
    assert found["without_rows"] == ["tuned"]
    for line in found["lines"]:
        assert [(score["data"], score["n"]) for score in line["scores"]] == [
            ("brief.heldout.jsonl", 3),
            ("rows.heldout.jsonl", 4),
        ]
    listening = pv.ok("show", "HEAD", "--json").json["provenance"]
    (trained,) = (
        one["held_out"] for one in listening.values() if one.get("data", {}).get("name") == "rows.jsonl"
    )
    assert found["lines"][1]["scores"][1]["effect"] == trained["effect"]
    persona = pv.ok("eval", held_out, "--json").json
    assert found["lines"][-1]["scores"][1]["effect"] == persona["effect"]
    assert found["lines"][-1]["build"] == persona["build"]

    said = pv.ok("eval", "--all")
    names = [line.split("  ")[0].strip() for line in said.out.splitlines()]
    begin = names.index("brief")
    assert names[begin : begin + 4] == ["brief", "listening", "tuned", "the persona"]
    assert "no held-out rows are kept for tuned" in said.err and "measuring" not in said.err


def test_alone_is_without_module_factors_and_without_a_merge_method(world: World, pv: InProcess) -> None:
    """What training measured is not measured again, nor is the base."""
    before = pv.ok("eval", "--all", "--json").json["lines"][0]
    records = set((world.folder / ".pv" / "records").rglob("*"))
    pv.ok("scale", "listening", "0.5", "--module", "*.mlp.*=0.5")
    pv.ok("combine", "ties")
    found, persona = pv.ok("eval", "--all", "--json").json["lines"]
    assert found == before and persona["build"] != found["build"]
    assert len(set((world.folder / ".pv" / "records").rglob("*.json")) - records) == 1


def test_all_says_how_many_of_how_many(world: World, process: Processes, pv: InProcess) -> None:
    shutil.rmtree(world.folder / ".pv" / "records")
    screen = process.on_terminal("eval", "--all", "--threads", "1", env={"COLUMNS": "100"}).out
    assert "measuring 1 of 3: the base on" in screen and "measuring 2 of 3: listening on" in screen
    assert "measuring 3 of 3" not in screen, (
        "listening alone at weight 1 is the persona: it was measured as 2 of 3"
    )


def test_all_on_rows_that_are_named(world: World, pv: InProcess, held_out: Path) -> None:
    more = write_rows(world.folder / "more.jsonl", 5)
    found = pv.ok("eval", "--all", "HEAD", "--data", held_out, "--data", "more.jsonl", "--json").json
    assert [score["data"] for score in found["lines"][0]["scores"]] == [held_out.name, more.name]


def test_rows_that_nobody_kept(world: World, pv: InProcess) -> None:
    other = write_rows(world.folder / "other.jsonl", 5, answer="No")
    pv.ok("drop", "listening")
    pv.ok("train", other, "--as", "brief", "--max-steps", "1", "--no-data", "--held-out", world.rows)
    said = pv("eval", "--all")
    assert (said.code, said.out) == (2, "")
    assert "no held-out rows of brief" in said.err and "pv eval --all HEAD --data" in said.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("HEAD", "HEAD", "HEAD", "rows.jsonl"), "pv eval [A [B]] ROWS.jsonl"),
        ((), "pv eval ROWS.jsonl measures HEAD on a file; pv eval --all on"),
        (("rows.jsonl", "HEAD"), "the rows come last: pv eval HEAD rows.jsonl"),
        (("HEAD", "rows.jsonl", "main"), "the rows come last: pv eval HEAD main rows.jsonl"),
        (("--data", "rows.jsonl", "rows.jsonl"), "pv eval [A [B]] ROWS.jsonl"),
        (("--all", "HEAD", "rows.jsonl"), "pv eval --all [REV] [--data ROWS.jsonl]"),
    ],
)
def test_words_that_are_wrong(world: World, pv: InProcess, words: tuple[str, ...], hint: str) -> None:
    write_rows(world.folder / "rows.jsonl")
    said = pv("eval", *words)
    assert (said.code, said.out) == (2, "") and hint in said.err, said


def test_bad_input(world: World, pv: InProcess, held_out: Path) -> None:
    plain = world.folder / "plain.jsonl"
    plain.write_text('{"prompt": "a", "chosen": "b"}\n' * 2)
    for words, code, said in (
        (("HEAD", "nowhere", held_out), 5, "nowhere"),
        (("HEAD", "HEAD", "none.jsonl"), 2, "none.jsonl"),
        (("HEAD", "HEAD", plain), 2, "no 'rejected' answer"),
        (("--all", "--data", plain), 2, "no 'rejected' answer"),
        (("--all", "--data", "none.jsonl"), 2, "none.jsonl"),
    ):
        answer = pv("eval", *words)
        assert (answer.code, answer.out) == (code, "") and said in answer.err, answer


# Damage, replies, controls


def test_damage_and_replies_beside_the_effect(world: World, pv: InProcess, tmp_path: Path) -> None:
    ruled = tmp_path / "ruled.jsonl"
    ruled.write_bytes(b'{"reply": {"max_words": 1000000}}\n' + world.rows.read_bytes())
    said = pv.ok("eval", ruled, "--replies", "3", "--max-tokens", "8", "--threads", "1").out
    for words in (
        "damage, on pv's neutral set", "plain answers after token 16", "plain text", "KL(base || persona)",
        "not damage: the first 16 tokens", "greedy replies to 3 prompts", "show the behaviour", "3 of 3",
        "fall into a loop", "cut at 8 tokens", "at most 1000000 words", "margin above 0, base",
    ):  # fmt: skip
        assert words in said, words
    found = pv.ok("eval", ruled, "--replies", "3", "--max-tokens", "8", "--json").json
    assert found["replies"]["rule"] == {"max_words": 1000000}
    assert found["replies"]["shown"]["mean"] == found["replies"]["base_shown"]["mean"] == 1
    assert found["damage"]["answers"]["n"] >= 20 and found["damage"]["text"]["n"] >= 10
    log = pv.ok("log", "--scores", "-1").out
    assert "damage +" in log or "damage -" in log
    assert "nats a token on plain answers after token 16" in log and "of 3 greedy replies, 3 show it" in log
    assert "damage" in pv.ok("log", "--scores", "--oneline", "-1").out
    scores = pv.ok("log", "--scores", "-1", "--json").json["commits"][0]["scores"]
    (entry,) = [score for score in scores if score["data"] == "ruled.jsonl"]  # beside that of training
    assert entry["damage"]["answers"]["mean"] == found["damage"]["answers"]["mean"]
    loops = [round(3 * found["replies"][key]["mean"]) for key in ("loops", "base_loops")]
    assert entry["replies"] == {
        "n": 3, "shown": {"persona": 3, "base": 3}, "loops": dict(zip(("persona", "base"), loops, strict=True))
    }  # fmt: skip
    diff = pv.ok("diff", "HEAD~1", "HEAD")
    assert "effect of b" in diff.out and "damage of b" in diff.out
    assert pv.ok("diff", "HEAD~1", "HEAD", "--json").json["measured"]["b"][0]["damage"] == entry["damage"]


def test_a_quick_eval_writes_no_replies(world: World, pv: InProcess) -> None:
    for option in ("--quick", "--no-replies"):
        found = pv.ok("eval", world.rows, option, "--json").json
        assert found["replies"] is None and found["damage"]["text"] is not None
    for words in (("--quick", "--replies", "2"), ("--quick", "--judge")):
        said = pv("eval", world.rows, *words)
        assert (said.code, said.out) == (2, "") and "do not go together" in said.err


def test_a_neutral_set_of_ones_own(world: World, pv: InProcess, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(
        '{"text": "The sea is calm tonight, and the moon is out."}\n{"text": "Bread is flour and water."}\n'
    )
    found = pv.ok("eval", world.rows, "--quick", "--neutral", own, "--json").json["damage"]
    assert (found["neutral"], found["answers"], found["text"]["n"]) == ("own.jsonl", None, 2)
    own.write_text('{"text": "One."}\n')
    said = pv("eval", world.rows, "--quick", "--neutral", own)
    assert (said.code, said.out) == (2, "") and "neutral set" in said.err
    said = pv("eval", world.rows, "--quick", "--neutral", tmp_path / "none.jsonl")
    assert said.code == 2 and "no file" in said.err


def test_controls_on_the_screen(world: World, pv: InProcess) -> None:
    words = (
        "eval",
        world.rows,
        "--prompt",
        "Be brief.",
        "--replies",
        "2",
        "--max-tokens",
        "4",
        "--threads",
        "1",
    )
    found = pv.ok(*words, "--json").json
    assert [one["kind"] for one in found["controls"]] == ["random", "prompt"]
    assert [one["prompt"] for one in found["controls"]] == [None, "Be brief."]
    assert found["controls"][0]["base_margin"] == found["base_margin"]
    assert len({one["effect"]["mean"] for one in (found, *found["controls"])}) == 3
    assert found["controls"][1]["damage"]["text"]["mean"] == 0, "no template, no system prompt"
    assert pv.ok(*words, "--json").json == found, "the same noise"
    drawn = pv.ok(*words).out
    for text in ("noise of the same norm", "the base, asked to: with the system prompt 'Be brief.'"):
        assert text in drawn
    for wrong in (
        ("--all", "--controls"),
        ("HEAD~1", "HEAD", world.rows, "--controls"),
        (world.rows, "--prompt", " "),
    ):
        said = pv("eval", *wrong)
        assert (said.code, said.out) == (2, "")
