"""The same checkpoint, adapter or behaviour under a second name is taken, with a remark."""

from __future__ import annotations

from support.commands import InProcess, World, behaviours

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
