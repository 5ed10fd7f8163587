"""The same checkpoint, adapter or behaviour under a second name is taken, with a remark."""

from __future__ import annotations

import shutil

from support.commands import InProcess, World, behaviours, write_rows

TWICE = "{} is the same vector as {}: together they count it twice"


def test_the_same_checkpoint_under_a_second_name(world: World, pv: InProcess) -> None:
    assert pv.ok("commit", world.tuned, "--as", "house", "--json").json["notes"] == []
    assert TWICE.format("house2", "house") in pv.ok("commit", world.tuned, "--as", "house2").err
    notes = pv.ok("commit", world.tuned, "--as", "house3", "--json").json["notes"]
    assert "house3 is the same vector as house and house2: together they count it 3 times" in notes
    assert "is the same vector" not in pv.ok("scale", "house", "0.5").err, "that was said"


def test_the_same_training_under_a_second_name(world: World, pv: InProcess) -> None:
    line = ("train", world.rows, "--max-steps", "2", "--threads", "1", "--held-out", "none")
    said = pv.ok(*line, "--as", "again")
    assert TWICE.format("again", "listening") in said.err
    assert "is the same vector" not in pv.ok("negate", "again").err


def test_what_is_brought_from_elsewhere(world: World, pv: InProcess) -> None:
    assert TWICE.format("more", "listening") in pv.ok("add", "more=HEAD:listening").err
    pv.ok("scale", "more", "0")
    assert pv.ok("scale", "more", "2", "--json").json["notes"] == [TWICE.format("more", "listening")]


def test_a_merge_of_a_rename_with_a_change(world: World, pv: InProcess) -> None:
    pv.ok("branch", "side")
    pv.ok("rename", "listening", "brief")
    pv.ok("switch", "side")
    pv.ok("scale", "listening", "0.4")
    said = pv.ok("merge", "main", "--take", "listening=ours")
    assert behaviours(pv) == {"brief": 1, "listening": 0.4}
    assert TWICE.format("brief", "listening") in said.err


def test_a_second_training_writes_over_nothing_of_the_first(world: World, pv: InProcess) -> None:
    """The vector of `brief`, again: its measurement and its held-out rows stay, and the second is noted beside it."""
    held_out, other = world.folder / "held.jsonl", world.folder / "other.jsonl"
    write_rows(held_out, 3, first=20)
    other.write_text(world.rows.read_text())
    line = ("--max-steps", "1", "--threads", "1")
    vector = pv.ok("train", world.rows, "--as", "brief", *line, "--held-out", held_out, "--json").json[
        "vector"
    ]
    first = pv.ok("show", "brief", "--json").json["versions"][0]["vectors"][0]
    pv.ok("train", other, "--as", "second", *line, "--held-out", "none")
    for name in ("brief", "HEAD~1:brief"):
        kept = pv.ok("rows", name, "--held-out", "--json").json
        assert (kept["data"], len(kept["rows"])) == ("held.jsonl", 3)
    known = pv.ok("show", vector, "--json").json
    assert known["effect"] == first["effect"] and known["effect"]["data"] == "held.jsonl"
    assert known["provenance"]["data"]["name"] == "rows.jsonl"
    assert [(one["as"], one["origin"]["data"]["name"]) for one in known["provenance"]["also"]] == [
        ("second", "other.jsonl")
    ]
    (own,) = pv.ok("show", "second", "--json").json["versions"][0]["vectors"]
    assert own["provenance"]["data"]["name"] == "other.jsonl" and own["effect"] == first["effect"]
    said = pv.ok("show", vector).out
    assert "trained on 6 rows of rows.jsonl" in said and "also trained on 6 rows of other.jsonl" in said, said
    assert "not measured" not in pv.ok("log", "second").out
    pv.ok("drop", "brief")
    pv.ok("gc", "--grace", "0")
    assert pv.ok("rows", "second", "--held-out").out == pv.ok("rows", "HEAD~1:brief", "--held-out").out
    pv.ok("fsck", "--deep")


def test_trained_apart_on_two_branches_and_merged(world: World, pv: InProcess) -> None:
    other = world.folder / "other.jsonl"
    other.write_text(world.rows.read_text())
    line = ("--max-steps", "1", "--threads", "1", "--held-out")
    pv.ok("branch", "side")
    vector = pv.ok("train", other, "--as", "second", *line, "none", "--json").json["vector"]
    pv.ok("switch", "side")
    pv.ok("train", world.rows, "--as", "brief", *line, world.rows)
    measured = pv.ok("show", vector, "--json").json
    assert measured["effect"], "though the first of them measured nothing"
    pv.ok("merge", "main")
    shown = pv.ok("show", "--json").json["provenance"][vector]
    assert (
        shown["data"]["name"] == "rows.jsonl" and shown["also"][0]["origin"]["data"]["name"] == "other.jsonl"
    )
    for name, file in (("brief", "rows.jsonl"), ("second", "other.jsonl")):
        assert pv.ok("rows", name, "--json").json["data"] == file
        assert f"trained on {file}" in pv.ok("log", name).out.split("made")[1].split(",")[0]


def test_the_same_adapter_from_two_places(world: World, pv: InProcess) -> None:
    copy = world.folder / "tuned-2"
    shutil.copytree(world.tuned, copy)
    vector = pv.ok("commit", world.tuned, "--as", "house", "--json").json["vector"]
    pv.ok("commit", copy, "--as", "house2")
    assert f"captured from {world.tuned.name}\n" in pv.ok("show", "house").out
    made = pv.ok("vectors", "--json").json["vectors"]
    known = next(one for one in made if one["id"] == vector)["provenance"]
    assert known["source"] == world.tuned.name and known["also"][0]["origin"]["source"] == copy.name
    card = pv.ok("push", "hf://me/x", "-n", "--json").json["card"]
    row = {line.split("|")[1].strip(): line for line in card.splitlines() if line.startswith("| `house")}
    assert f"`{world.tuned.name}`" in row["`house`"] and f"`{copy.name}`" in row["`house2`"], row
