"""pv probe heads on the command line: what it says, writes and keeps, refusals, and Ctrl-C."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World, write_rows
from support.scripting import keeps_to_it

from pv.vecstore.repo.repo import Repo

QUICK = ("--draws", "3", "--noise", "2", "--threads", "1")


@pytest.fixture
def rows(world: World) -> Path:
    return write_rows(world.folder / "held.jsonl", 16, first=20)


def probe(world: World) -> dict[str, Any]:
    """The one record of a probe in the registry."""
    [found] = [record for record in records(world) if "probe" in record]
    return found


def records(world: World) -> list[dict[str, Any]]:
    return [facts for _, facts in files(world)]


def files(world: World) -> list[tuple[Path, dict[str, Any]]]:
    folder = world.folder / ".pv" / "records"
    return [(path, json.loads(path.read_text())["facts"]) for path in folder.rglob("*.json")]


def test_text_json_pictures_and_what_is_noted(world: World, pv: InProcess, rows: Path) -> None:
    words = ("probe", "heads", "listening", "--data", rows, *QUICK)
    said = pv.ok(*words, "--plot", "h.png", "--page", "h.html")
    assert "verdict: " in said.out and "error rate: " in said.out and "by projection" in said.out
    assert "8 heads in 2 layers, on 8 rows that rank and 8 that test, of held.jsonl" in said.out
    assert (world.folder / "h.png").read_bytes().startswith(b"\x89PNG")
    page = (world.folder / "h.html").read_text()
    assert "Heads of base..listening" in page and page.count("data:image/svg+xml") == 2
    assert "<td>top 1 head</td>" in page and "3 random sets of 1 head</td>" in page
    assert re.search(r"body \{[^}]*overflow-wrap: anywhere", page)  # an id is wider than a phone
    assert "http://" not in page.replace("http://www.w3.org", "")
    before = probe(world)
    typed = pv("-q", *words, "--json")
    assert keeps_to_it(typed, "probe heads") == []
    answer = typed.json
    assert probe(world) == before  # nothing was measured again
    assert len(answer["heads"]["score"]) == 8 and len(answer["random"]) in (0, 3)
    assert answer["probe"][:12] in said.out
    shown = pv.ok("show", answer["probe"][:12]).out
    assert said.out.strip() in shown
    again = pv.ok(*words, "--again", "--json").json
    assert again == answer
    assert probe(world)["parts"] == before["parts"]


def test_a_note_on_the_rows_is_on_the_page_too(world: World, pv: InProcess) -> None:
    seen = write_rows(world.folder / "seen.jsonl", 16)
    words = ("probe", "heads", "listening", "--data", seen, *QUICK, "--page", "h.html")
    note = "6 of 16 rows are rows that listening was trained on"
    for _ in range(2):  # measured, and known
        assert note in pv.ok(*words).err and note in (world.folder / "h.html").read_text()
        (world.folder / "h.html").unlink()
    assert any(note in one for one in probe(world)["found"]["notes"])


def test_two_sides_that_are_the_other_way_round(world: World, pv: InProcess, rows: Path) -> None:
    there = pv.ok("probe", "heads", "base..listening", "--data", rows, *QUICK, "--json").json
    back = pv.ok("probe", "heads", "listening..base", "--data", rows, *QUICK, "--json").json
    assert back["probe"] != there["probe"]
    assert back["shift"]["mean"] == pytest.approx(-there["shift"]["mean"], abs=1e-6)
    assert back["weights"]["norm"] == pytest.approx(there["weights"]["norm"])


def test_ctrl_c_keeps_what_was_measured_and_goes_on_to_the_same(
    world: World, pv: InProcess, process: Processes, rows: Path
) -> None:
    words = ("probe", "heads", "listening", "--data", rows, "--draws", "40", "--noise", "2", "--threads", "1")

    said = process.interrupted(
        *words, when=lambda: any(len(record.get("parts", ())) >= 2 for record in records(world))
    )
    assert said.code == 130 and "what was measured is kept" in said.err
    kept = probe(world)
    assert "found" not in kept and "stopped" in pv.ok("probe", "list").out
    whole = pv.ok(*words, "--json").json
    assert {key: probe(world)["parts"][key] for key in kept["parts"]} == kept["parts"]
    assert pv.ok(*words, "--again", "--json").json == whole


@pytest.mark.parametrize("value", ["x", {}, None, [["x"]], 7, {"heads": 1}])
def test_parts_that_somebody_else_noted_are_no_bug_in_pv(
    value: object, world: World, pv: InProcess, rows: Path
) -> None:
    words = ("-q", "probe", "heads", "listening", "--data", rows, *QUICK)
    pv.ok(*words)
    [(path, record)] = [(path, facts) for path, facts in files(world) if "probe" in facts]
    with Repo.open(world.folder) as repo:
        repo.registry.update_record(path.stem, {"time": None, "found": None, "parts": {"change": value}})
    said = pv(*words)
    assert said.code == 3 and said.out == "" and "--again" in said.err, said
    assert "Traceback" not in said.err and len(said.err.splitlines()) == 2
    pv.ok(*words, "--again")
    assert probe(world)["parts"] == record["parts"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nobody",), 5, "nobody"),
        (("base..base",), 2, "the same build"),
        (("listening",), 2, "too few"),
        (("listening", "--data", "{few}"), 2, "at least 16"),
        (("listening", "--data", "nowhere.jsonl"), 2, "no file"),
        (("listening", "--data", "{rows}", "--draws", "0"), 2, "--draws"),
        (("listening", "--data", "{rows}", "--prompts", "8"), 2, "--prompts"),
        (("listening", "--data", "{rows}", "--plot", "no/h.png"), 2, "no folder"),
    ],
)
def test_bad_input_is_one_clear_error(
    words: tuple[str, ...], code: int, says: str, world: World, pv: InProcess, rows: Path
) -> None:
    few = write_rows(world.folder / "few.jsonl", 15, first=20)
    before = world.state()
    said = pv("probe", "heads", *QUICK, *(word.format(rows=rows, few=few) for word in words))
    assert said.code == code and said.out == "", said
    assert says in said.err and "Traceback" not in said.err
    assert world.state() == before
