"""What a new user met: names that had moved, hints that failed, and commands that said nothing."""

from __future__ import annotations

import re

from support.commands import InProcess, World, commits

from pv.vecstore.progress import Tick
from pv.vecstore.repo.repo import Repo


def test_since_is_the_commit_that_put_it_back(world: World, pv: InProcess) -> None:
    first = commits(pv)[0]["id"][:12]
    pv.ok("compress", "listening", "--to", "ternary", "--force")
    pv.ok("revert", "HEAD")
    back = commits(pv)[0]["id"][:12]
    pv.ok("scale", "listening", "0.5")
    said = pv.ok("show", "listening").out
    assert f"since    {back}, " in said and f"first    {first}, " in said
    assert "version  1 of 2 in HEAD" in said and f"(again in {back})" in said
    log = pv.ok("log", "listening").out
    assert f"again    {back}, " in log[log.index("version 1") :]
    assert "again" not in log[: log.index("version 1")]
    assert f"since    {first}, " in pv.ok("show", f"{first}:listening").out
    assert "first    " not in pv.ok("show", f"{first}:listening").out


def test_a_later_commit_that_has_it_is_named(world: World, pv: InProcess) -> None:
    commit = commits(pv)[0]["id"][:12]
    pv.ok("scale", "listening", "0.5")
    said = pv("show", "HEAD~2:listening")
    assert said.code == 5 and f"a later commit brought it: pv show {commit}:listening" in said.err
    assert pv.ok("show", f"{commit}:listening").out
    pv.ok("branch", "bare", "HEAD~2")
    pv.ok("switch", "bare")
    pv.ok("config", "output.seed", "5")
    assert "other branches have it: pv log --all --behaviour listening" in pv("show", "HEAD:listening").err


def test_the_hint_to_replace_a_behaviour_works(world: World, pv: InProcess) -> None:
    commit = commits(pv)[0]["id"][:12]
    said = pv("add", "HEAD:listening")
    assert said.code == 2
    (drop, add) = re.findall(r"pv (drop \S+), then pv (add \S+)", said.err.replace("\n", " "))[0]
    assert add == f"add listening={commit}:listening"
    pv.ok(*drop.split())
    pv.ok(*add.split())
    (other,) = re.findall(r"under another name: pv (add [^\s;]+)", said.err.replace("\n", " "))
    pv.ok(*other.split())


def test_a_message_keeps_no_name_that_moves(world: World, pv: InProcess) -> None:
    commit = commits(pv)[0]["id"][:12]
    pv.ok("add", "one=HEAD:listening")
    assert commits(pv)[0]["message"].strip() == f"Add one from {commit}:listening"
    pv.ok("add", "two=HEAD~1:listening")
    assert commits(pv)[0]["message"].strip() == f"Add two from {commit}:listening"
    pv.ok("add", "three=main:listening")
    assert commits(pv)[0]["message"].strip() == "Add three from main:listening"


def test_equal_vectors_are_measured_once(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.7")
    pv.ok("add", "soft=HEAD:listening", "--weight", "0.5")
    pv.ok("rename", "listening", "zealous")  # not measured under this name, nor as soft
    ticks: list[Tick] = []
    found = Repo.open(world.folder).at().score_all(threads=1, progress=ticks.append)
    on = " on rows.heldout.jsonl"
    stages = dict.fromkeys(tick.stage for tick in ticks if tick.stage.endswith(on))
    measured = [label.removesuffix(on).partition(": ")[2] for label in stages]
    assert [one for one in measured if one != "the base"] == ["soft", "the persona"]
    assert all(" of 3: " in label for label in stages)
    pv.ok("add", "first=HEAD:zealous")
    ticks.clear()
    Repo.open(world.folder).at().score_all(threads=1, progress=ticks.append)
    stages = dict.fromkeys(tick.stage for tick in ticks if tick.stage.endswith(on))
    assert list(stages) == ["measuring 3 of 3: the persona on rows.heldout.jsonl"], "soft was measured before"
    soft, zealous, together = found.lines
    assert (soft.behaviour, zealous.behaviour, together.behaviour) == ("soft", "zealous", None)
    assert soft.scores[0].effect == zealous.scores[0].effect != together.scores[0].effect
    assert soft.build != zealous.build


def test_an_effect_of_a_vector_says_at_which_weight(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.5")
    for line in (
        ("log", "listening"),
        ("log", "listening", "--oneline"),
        ("show", "listening"),
        ("vectors",),
    ):
        assert " nats at weight 1, 95 %, n=4" in pv.ok(*line).out, line
    pv.ok("eval", world.rows.with_name("rows.heldout.jsonl"), "--threads", "1")
    assert "at weight 1" not in pv.ok("log", "--scores", "-1").out


def test_a_commits_vectors_bear_their_behaviours_names(world: World, pv: InProcess) -> None:
    pv.ok("commit", world.tuned, "--as", "alpha")
    pv.ok("add", "zealous=HEAD:listening")
    found = re.findall(r"^vector [0-9a-f]{12}  (.*?)  int8", pv.ok("show").out, re.MULTILINE)
    assert found == ["listening, zealous"]
    assert [line.split("  ")[1] for line in pv.ok("show").out.splitlines() if line.startswith("vector ")] == [
        "alpha",
        "listening, zealous",
    ]


def test_eval_says_what_it_needs(world: World, pv: InProcess) -> None:
    said = pv("eval")
    assert said.code == 2
    assert "pv eval ROWS.jsonl" in said.err and "pv eval --all" in said.err
    held_out = world.rows.with_name("rows.heldout.jsonl")
    for name in ("listening", "HEAD:listening"):
        said = pv("eval", name, held_out)
        assert (said.code, said.out) == (5, "")
        assert "is a behaviour" in said.err and " eval --all" in said.err and "measures each" in said.err
    assert "is a behaviour" not in pv("eval", "nowhere-near", held_out).err


def test_op_alone_lists(world: World, pv: InProcess) -> None:
    assert pv.ok("op").out == pv.ok("op", "log").out != ""


def test_an_empty_log_says_so(world: World, pv: InProcess) -> None:
    for line in (("--grep", "zzz"), ("--until", "2001-01-01", "--oneline"), ("HEAD..HEAD",)):
        said = pv.ok("log", *line)
        assert said.out == "" and said.err.startswith("no commit"), line
    said = pv.ok("log", "--scores", "HEAD~1")
    assert said.out and "no effect of these commits was measured" in said.err


def test_a_deleted_branch_says_where_it_was(terse: None, pv: InProcess) -> None:
    at = pv.ok("branch", "--json").json["branches"]["terse"][:12]
    assert f"was at {at}; `pv undo` brings it back" in pv.ok("branch", "-d", "terse").err
    pv.ok("undo")
    assert "terse" in pv.ok("branch").out
