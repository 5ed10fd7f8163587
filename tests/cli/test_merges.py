"""Merge, revert and cherry-pick: what they say, and that a conflict changes nothing until it is settled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import InProcess, World, behaviours, commits


def test_a_merge_of_what_is_ahead_moves_forward(terse: None, pv: InProcess) -> None:
    said = pv.ok("merge", "terse", "--json").json
    assert said["kind"] == "fast-forward"
    assert said["commit"] == pv.ok("branch", "--json").json["branches"]["terse"]
    assert pv.ok("merge", "terse", "--json").json["kind"] == "up-to-date"
    assert "already up to date" in pv.ok("merge", "terse").err


def test_a_true_merge_has_two_parents_and_both_changes(terse: None, pv: InProcess) -> None:
    pv.ok("add", "more=main:listening", "--weight", "3")
    said = pv.ok("merge", "terse", "-m", "Join them", "--json").json
    assert said["kind"] == "merge"
    assert behaviours(pv) == {"listening": 0.5, "more": 3}
    (newest,) = commits(pv, "-n", "1")
    assert len(newest["parents"]) == 2
    assert newest["message"].strip() == "Join them"


def test_a_merge_can_set_the_rule(terse: None, pv: InProcess) -> None:
    pv.ok(
        "merge", "terse", "--method", "ties", "--density", "0.3", "--elect", "unweighted", "--lambda", "0.9"
    )
    combine = pv.ok("status", "--json").json["persona"]["combine"]
    assert combine["method"] == "ties"
    assert (combine["density"], combine["elect"], combine["lambda"]) == (0.3, "unweighted", 0.9)
    assert "ties (density 0.3" in pv.ok("status").out


def test_a_conflict_lists_both_sides_and_changes_nothing(conflict: None, world: World, pv: InProcess) -> None:
    before = world.state()
    said = pv("merge", "terse")
    assert (said.code, said.out) == (1, "")
    vector = pv.ok("status", "--json").json["persona"]["behaviours"]["listening"]["terms"][0][1][:12]
    assert still(said.err, world) == [
        "error: both sides changed listening; nothing was merged",
        "  listening",
        f"    before  weight 1, vector {vector}",
        f'    ours    weight 3, vector {vector} (from "Scale listening to 3", Ada, just now)',
        f'    theirs  weight 0.5, vector {vector} (from "Scale listening to 0.5", Ada, just now)',
        "hint:  choose ours or theirs for each, or 'theirs*0.5' (half its weight) or 0.7 (that weight):",
        "       pv merge terse --take listening=ours",
    ]
    said = pv("merge", "terse", "--json")
    assert (said.code, said.out, said.error["exit_code"]) == (1, "", 1)
    (found,) = said.error["conflicts"]
    assert (found["name"], found["kind"]) == ("listening", "behaviour")
    assert [found[side]["weight"] for side in ("ancestor", "ours", "theirs")] == [1, 3, 0.5]
    assert world.state() == before


def test_a_conflict_over_a_field_takes_no_weight(terse: None, pv: InProcess) -> None:
    pv.ok("merge", "terse", "--method", "ties", "--density", "0.5")
    pv.ok("switch", "-c", "third", "v1")
    pv.ok("merge", "terse", "--method", "ties", "--density", "0.7")
    said = pv("merge", "main")
    assert said.code == 1
    assert "    ours    ties (density 0.7" in said.err
    assert said.err.endswith(" merge main --take combine=ours\n")
    assert "choose ours or theirs for each:" in said.err
    pv.ok("merge", "main", "--take", "combine=theirs")
    assert pv.ok("status", "--json").json["persona"]["combine"]["density"] == 0.5


@pytest.mark.parametrize(
    ("choice", "weight"),
    [("ours", 3), ("theirs", 0.5), ("1.75", 1.75), ("ours*0.5", 1.5), ("theirs*-2", -1)],
)
def test_a_conflict_is_settled_beforehand(conflict: None, pv: InProcess, choice: str, weight: float) -> None:
    pv.ok("merge", "terse", "--take", f"listening={choice}")
    assert behaviours(pv) == {"listening": weight}
    assert len(commits(pv, "-n", "1")[0]["parents"]) == 2


def still(text: str, world: World) -> list[str]:
    """Lines without what differs from run to run: when, and the folder that the tests run pv in."""
    return re.sub(r"just now|\d+ min ago", "just now", text).replace(f" -C {world.folder}", "").splitlines()


WRONG = [
    (("--take", "listening"), "is not NAME=CHOICE"),
    (("--take", "=ours"), "is not NAME=CHOICE"),
    (("--take", "listening=mine"), "must be ours, theirs, ours*0.5, theirs*0.5, or a weight"),
    (("--take", "listening=theirs*x"), "must be ours, theirs, ours*0.5, theirs*0.5, or a weight"),
    (("--take", "listening=ours", "--take", "listening=theirs"), "--take listening is given twice"),
    (("--take", "listening=ours", "--take", "combine=ours"), "both sides have add"),
    (("--take", "combine=0.5"), "only a behaviour has a weight"),
    (("--preset", "peft"), "merge terse --preset peft --method ties\n"),
    (("--method", "add", "--preset", "peft"), "that is a preset of ties"),
    (("--method", "add", "--density", "0.5"), "that is an option of ties"),
    (("--take", "listening=nan"), "finite"),
    (("--take", "nobody=ours"), "nothing here has that name"),
    (("--density", "0.5"), "merge terse --density 0.5 --method ties\n"),
    (("--method", "ties", "--density", "0"), "--density"),
    (("--method", "add", "--density", "0.5"), "takes no option"),
]


def test_a_merge_that_is_asked_for_wrongly(conflict: None, world: World, pv: InProcess) -> None:
    before = world.state()
    for options, words in WRONG:
        said = pv("merge", "terse", *options)
        assert (said.code, said.out) == (2, ""), options
        assert words in said.err, options
    assert world.state() == before


def test_revert_takes_back_one_commit_and_keeps_the_later_ones(world: World, pv: InProcess) -> None:
    pv.ok("add", "more=HEAD:listening", "--weight", "3")
    pv.ok("scale", "more", "4")
    said = pv.ok("revert", "HEAD~2")
    assert behaviours(pv) == {"more": 4}
    assert "reverts" in said.err
    assert 'Revert "Train listening"' in commits(pv, "-n", "1")[0]["message"]
    said = pv("revert", "HEAD~2")
    assert said.code == 1
    assert "    as committed       weight 3, vector " in said.err
    assert "    ours (now)         weight 4, vector " in said.err
    assert "    theirs (reverted)  (absent)" in said.err
    assert " revert 'HEAD~2' --take more=theirs\n" in said.err
    pv.ok("revert", "HEAD~2", "--take", "more=theirs")
    assert behaviours(pv) == {}


def test_reverting_a_merge_needs_a_mainline(conflict: None, pv: InProcess) -> None:
    pv.ok("merge", "terse", "--take", "listening=theirs")
    said = pv("revert", "HEAD")
    assert said.code == 2
    assert "is a merge: it has 2 parents" in said.err
    assert f"pv revert {commits(pv, '-n', '1')[0]['id'][:12]} -m 1; -m 1 is the branch" in said.err
    said = pv("revert", "HEAD", "-m", "3")
    assert (said.code, "-m takes 1 to 2" in said.err) == (2, True)
    pv.ok("revert", "HEAD", "-m", "1")
    assert behaviours(pv) == {"listening": 3}
    assert pv("revert", "main~9").code == 5
    first = commits(pv)[-1]["id"]
    said = pv("revert", first)
    assert (said.code, "the first commit cannot be reverted" in said.err) == (2, True)


def test_cherry_pick_repeats_one_commit_with_its_author(terse: None, pv: InProcess, alone: Path) -> None:
    (alone / ".gitconfig").write_text("[user]\n\tname = Grace\n\temail = grace@example.org\n")
    done = pv.ok("cherry-pick", "terse", "--json").json
    assert behaviours(pv) == {"listening": 0.5}
    (picked,) = commits(pv, "-n", "1")
    assert picked["id"] == done["commit"]
    assert picked["author"]["name"] == "Ada"
    assert f"Picked from commit {done['picked']}" in picked["message"]
    said = pv("cherry-pick", "terse")
    assert (said.code, "like that already" in said.err) == (2, True)
    pv.ok("scale", "listening", "7")
    said = pv("cherry-pick", "terse")
    assert said.code == 1
    assert "    ours (now)           weight 7" in said.err
    assert "    theirs (the commit)  weight 0.5" in said.err
    pv.ok("cherry-pick", "terse", "--take", "listening=theirs")
    assert behaviours(pv) == {"listening": 0.5}
