"""What commands say of what was done before: merges and undos that hold, numbers with what keeps them from trust."""

from __future__ import annotations

import shlex
from pathlib import Path

from support.commands import InProcess, World, behaviours, write_rows

QUICK = ("--max-steps", "1", "--threads", "1")


def test_a_reverted_merge_that_is_back_is_not_spoken_of(world: World, pv: InProcess) -> None:
    pv.ok("branch", "half")
    pv.ok("switch", "half")
    pv.ok("add", "more=HEAD:listening")
    pv.ok("switch", "main")
    pv.ok("scale", "listening", "0.9")
    pv.ok("merge", "half")
    pv.ok("revert", "HEAD", "-m", "1")
    assert "brings it back" in pv.ok("merge", "half").err, "it is away"
    pv.ok("add", "half:more")
    assert "brings it back" not in pv.ok("merge", "half").err, "and was brought in another way"
    pv.ok("switch", "half")
    pv.ok("scale", "more", "0.5")
    pv.ok("switch", "main")
    said = pv.ok("merge", "half")
    assert "reverted in" not in said.err and behaviours(pv)["more"] == 0.5, said


def marks(pv: InProcess) -> dict[int, int | None]:
    return {one["seq"]: one["undone_by"] for one in pv.ok("op", "log", "--json").json["operations"]}


def test_only_what_does_not_stand_is_marked_by_what_took_it_back(world: World, pv: InProcess) -> None:
    start = max(marks(pv))
    for weight in ("2", "3", "4"):  # start + 1, 2, 3
        pv.ok("scale", "listening", weight)
    pv.ok("undo")  # + 4 takes back + 3
    pv.ok("undo", "--to", str(start))  # + 5 takes back + 1 and + 2
    found = marks(pv)
    assert [found[start + n] for n in range(1, 6)] == [start + 5, start + 5, start + 4, None, None]
    pv.ok("redo")  # + 6: 1 and 2 are back
    pv.ok("redo")  # + 7: and 3
    found = marks(pv)
    assert [found[start + n] for n in range(8)] == [None] * 8
    assert "taken back by" not in pv.ok("op", "log", "-n", "7").out
    pv.ok("undo", "-n", "2")
    found = marks(pv)
    assert [found[start + n] for n in range(9)] == [None, None, start + 8, start + 8] + [None] * 5
    assert pv.ok("op", "show", str(start + 3)).out.splitlines()[0].endswith(f"  (taken back by {start + 8})")


def test_to_go_back_to_another_branch_changes_no_persona(world: World, pv: InProcess) -> None:
    pv.ok("switch", "-c", "other", "HEAD~1")
    for dry in (["--dry-run"], []):
        said = pv.ok("undo", *dry)
        assert "- listening" not in said.err and "+ listening" not in said.err, said
        assert "HEAD other -> main" in said.err
    pv.ok("redo")
    pv.ok("switch", "main")
    pv.ok("scale", "listening", "2")
    pv.ok("switch", "other")
    said = pv.ok("undo", "-n", "2")
    assert "~ listening  weight 2 -> 1" in said.err, "that one was changed on the branch where we are again"


def test_all_effects_come_with_what_keeps_them_from_trust(world: World, pv: InProcess) -> None:
    few = write_rows(world.folder / "few.jsonl", 3)
    pv.ok("train", few, "--as", "brief", *QUICK, "--held-out", "none")
    said = pv.ok("eval", "--all", "--data", few).out.splitlines()
    assert "few.jsonl: n=3 is too few for an interval to be trusted" in said
    (note,) = [line for line in said if "training rows" in line]
    assert note.endswith("3 of 3 rows are training rows (lines 1, 2, 3): this is not a held-out effect"), note
    new = write_rows(world.folder / "new.jsonl", 4, first=30)
    pv.ok("train", new, "--as", "listening", *QUICK, "--held-out", "none", "--no-data")
    other = write_rows(world.folder / "other.jsonl", 3, first=50)
    said = pv.ok("eval", "--all", "--data", other).out.splitlines()
    (note,) = [line for line in said if "not compared with the training rows of listening" in line]
    assert note.startswith("other.jsonl, listening, the persona: "), "and not brief"


def test_training_says_at_what_weight_its_effect_is(world: World, pv: InProcess) -> None:
    other = write_rows(world.folder / "other.jsonl", 3, first=50)
    said = pv.ok("train", world.rows, "--as", "brief", "--weight", "0.5", *QUICK, "--held-out", other)
    assert " nats at weight 1, 95 %, n=3 (other.jsonl): " in said.err


def test_a_lost_vector_is_trained_again_as_fsck_says(world: World, pv: InProcess) -> None:
    """One vector in two behaviours: the commands are typed as they are printed, and put it back."""
    vector = pv.ok("train", world.rows, "--as", "brief", *QUICK, "--held-out", "none", "--json").json[
        "vector"
    ]
    pv.ok("add", "brief-soft=HEAD:brief")
    pack = world.folder / ".pv" / "packs" / vector[:2] / vector
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:-9])
    for line in (("fsck", "--repair"), ("fsck",)):
        said = pv(*line)
        assert said.code == 3 and "brief, brief-soft --" not in said.out, said
        assert "tries to repair" not in said.err
        rows, train = (part for part in said.out.split("`") if part.startswith("pv "))
        assert " --as brief --" in train and rows.endswith(":brief -o rows.jsonl")
    pv.ok(*shlex.split(rows)[1:-1], world.folder / "rows.jsonl")
    words = shlex.split(train)[1:]
    pv(*(world.folder / "rows.jsonl" if word == "rows.jsonl" else word for word in words), "--threads", "1")
    pv.ok("fsck", "--deep")


def test_an_id_of_rows_shows_the_rows_and_every_vector_of_them(world: World, pv: InProcess) -> None:
    held_out = write_rows(world.folder / "held.jsonl", 3, first=50)
    other = world.folder / "other.jsonl"
    other.write_text(world.rows.read_text())
    first = pv.ok("train", world.rows, "--as", "brief", *QUICK, "--held-out", held_out, "--json").json
    second = pv.ok(
        "train", other, "--as", "slow", "--lr", "1e-6", *QUICK, "--held-out", "none", "--no-data", "--json"
    ).json
    rows = first["provenance"]["data"]["id"]
    found = pv.ok("show", rows[:12], "--json").json
    assert (found["kind"], found["id"], found["kept"]) == ("rows", rows, True)
    assert {one["id"] for one in found["trained"]} >= {first["vector"], second["vector"]}
    assert (set(found["files"]), found["measured"]) == ({"rows.jsonl", "other.jsonl"}, [])
    said = pv.ok("show", rows[:8]).out
    assert (
        said.startswith(f"rows {rows[:12]}  ")
        and first["vector"][:12] in said
        and second["vector"][:12] in said
    )
    held = first["provenance"]["held_out"]["data_id"]
    found = pv.ok("show", held, "--json").json
    assert [one["id"] for one in found["measured"]] == [first["vector"]] and found["trained"] == []
    assert pv("show", "0123456789ab").code == 5


def test_an_id_that_several_commits_share_names_them(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("tag", "alone")
    pv.ok("scale", "listening", "2")
    revert = pv.ok("revert", "HEAD", "--json").json["commit"]
    weights = pv.ok("build", "alone", "-o", tmp_path / "out", "--json").json["weights"]
    shown = pv.ok("show", "--json").json
    base = shown["persona"]["base"]
    for prefix in (shown["persona_id"][:8], weights[:8], weights):
        first = pv.ok("show", prefix).out.splitlines()[0]
        assert "is that of HEAD (" in first and "and of alone (" in first and revert[:12] in first, first
    assert "the weights " in first
    assert "and of alone (" in pv.ok("show", base[:12]).out.splitlines()[0]
