"""What there was, and when: versions of a behaviour, vectors, the log's forms, operations, and the way back."""

from __future__ import annotations

import pytest
from support.commands import InProcess, Processes, World, behaviours, commits

from pv.cli.terminal import cut


def vector_of(pv: InProcess, rev: str = "HEAD") -> str:
    found: str = pv.ok("show", rev, "--json").json["persona"]["behaviours"]["listening"]["terms"][0][1]
    return found


# Behaviours and vectors


def test_the_versions_of_a_behaviour(world: World, pv: InProcess) -> None:
    first = vector_of(pv)
    pv.ok("scale", "listening", "0.5")
    pv.ok("compress", "listening", "--to", "ternary", "-m", "Make it small")
    second = vector_of(pv)
    pv.ok("tag", "v2")
    lines = pv.ok("log", "listening").out.splitlines()
    head, first_commit = commits(pv)[0]["id"], commits(pv)[-2]["id"]
    assert lines[0] == "version 2 (main, tag: v2)"
    assert lines[1] == f"commit   {head[:12]}"
    assert lines[2].startswith("author   Ada, 20")
    assert lines[3] == "weight   0.5"
    assert lines[4].startswith(f"vector   {second[:12]}, ternary, ")
    assert lines[5:7] == [f"made     compressed to ternary from {first[:12]}", "effect   not measured"]
    assert "    Make it small" in lines
    below = lines[lines.index("version 1") :]
    assert below[1] == f"commit   {first_commit[:12]}"
    assert below[5] == "made     trained on rows.jsonl"
    assert below[6].startswith("effect   ") and below[6].endswith(
        "nats at weight 1, 95 %, n=4 (rows.heldout.jsonl)"
    )
    assert below[7].startswith("         damage ") and below[7].endswith("on plain text (pv's neutral set)")
    assert below[8] == "         n=4 is too few for an interval to be trusted"
    one_each = pv.ok("log", "listening", "--oneline").out.splitlines()
    assert [line.split()[:2] for line in one_each] == [["2", head[:12]], ["1", first_commit[:12]]]
    assert len(pv.ok("log", "listening", "-1", "--json").json["versions"]) == 1
    assert pv.ok("log", "v2:listening", "--json").json == pv.ok("log", "listening", "--json").json
    assert len(pv.ok("log", "HEAD~2:listening", "--json").json["versions"]) == 1


def test_show_of_a_behaviour_and_of_a_vector(world: World, pv: InProcess) -> None:
    first = vector_of(pv)
    pv.ok("compress", "listening", "--to", "ternary")
    pv.ok("scale", "listening", "0.5")
    said = pv.ok("show", "listening").out
    for words in ("behaviour listening", "version  2 of 2 in HEAD", "recipe   listening 0.5", "all versions"):
        assert words in said
    assert "all versions" not in pv.ok("show", "HEAD~2:listening").out
    said = pv.ok("show", first[:12]).out
    assert said.startswith(f"vector {first[:12]}  int8, ")
    assert "used by no branch tip or tag; kept by the history" in said
    assert f"first in {commits(pv)[2]['id'][:12]} as listening" in said
    persona = pv.ok("show", "--json").json["persona_id"]
    assert pv.ok("show", persona[:12]).out.startswith(f"persona {persona[:12]} is that of HEAD (")
    said = pv.ok("show").out
    assert "base     base (" in said
    assert "output   in the base's dtype, rounded stochastically (seed 0)\n" in said


def test_a_name_that_is_both_is_the_revision_and_that_is_said(world: World, pv: InProcess) -> None:
    pv.ok("branch", "listening", "HEAD~1")
    said = pv.ok("log", "listening")
    assert "Begin on" in said.out and "Train" not in said.out
    assert (
        said.err
        == "listening is both a revision and a behaviour: pv log --behaviour listening shows its versions\n"
    )
    assert pv.ok("log", "--behaviour", "listening").out.startswith("version 1")
    said = pv.ok("show", "listening")
    assert said.out.startswith("commit ")
    assert (
        said.err
        == "listening is both a revision and a behaviour: pv show HEAD:listening shows the behaviour\n"
    )


def test_all_vectors(world: World, pv: InProcess) -> None:
    first = vector_of(pv)
    pv.ok("switch", "-c", "small")
    pv.ok("compress", "listening", "--to", "ternary")
    second = vector_of(pv)
    lines = pv.ok("vectors").out.splitlines()
    assert lines[0].startswith(f"{second[:12]}  ternary, ")
    assert lines[1] == "  listening in small"
    assert lines[2].startswith(f"{first[:12]}  int8, ") and "trained on rows.jsonl" in lines[2]
    assert lines[3].startswith("  effect ") and lines[4].startswith("         damage ")
    assert lines[5] == "         n=4 is too few for an interval to be trusted"
    assert lines[6] == "  listening in main"
    assert lines[-1].startswith("2 vectors, ")
    pv.ok("undo")
    said = pv.ok("vectors").out
    assert "  used by no branch or tag any more; kept for undo, until gc forgets the operation\n" in said
    found = pv.ok("vectors", "--json").json["vectors"]
    assert [(known["id"], known["kept_for"]) for known in found] == [(second, "undo"), (first, "use")]


def test_unknown_names_say_which_are_close(terse: None, pv: InProcess) -> None:
    for line, words in (
        (("log", "listning"), "did you mean listening?"),
        (("show", "listning"), "did you mean listening?"),
        (("log", "HEAD:nobody"), "behaviours in this registry: listening"),
        (("switch", "mian"), "did you mean main?"),
        (("switch", "nowhere-near"), "`pv branch` lists the branches"),
    ):
        said = pv(*line)
        assert (said.code, said.out) == (5, ""), line
        assert words in said.err, line
    for more in ("--graph", "--grep x", "--scores"):
        said = pv("log", "listening", *more.split())
        assert (said.code, "is for commits" in said.err) == (2, True), more


# The log


def test_the_log_says_what_changed(terse: None, pv: InProcess) -> None:
    first = vector_of(pv)
    pv.ok("scale", "listening", "-0.5")
    pv.ok("compress", "listening", "--to", "ternary")
    second = vector_of(pv)
    pv.ok("scale", "listening", "-0.5", "--module", "*.mlp.*=0.5")
    pv.ok("combine", "ties", "--density", "0.3")
    pv.ok("add", "more=v1:listening")
    pv.ok("drop", "more")
    changed = [
        line.partition("  [")[2].removesuffix("]")
        for line in pv.ok("log", "--oneline", "-6").out.splitlines()
    ]
    assert changed[0] == "- more 1"
    assert changed[1] == "+ more 1"
    assert changed[2].startswith("combine add -> ties (density 0.3, ")
    assert changed[3] == "listening modules none -> *.mlp.* × 0.5"
    assert changed[4] == f"listening vector {first[:12]} -> {second[:12]}"
    assert changed[5] == "listening 1 -> -0.5"
    assert "changed  ~ combine  add -> ties (density 0.3, " in pv.ok("log").out
    pv.ok("merge", "terse", "--take", "listening=ours", "--method", "add")
    head = pv.ok("log", "-1").out
    assert "\nmerge    " in head and "~ combine  ties (density 0.3" in head
    assert pv.ok("log", "-1", "-p").out == pv.ok("log", "-1", "--stat").out == head


def test_which_commits(terse: None, pv: InProcess) -> None:
    head, first = (commit["id"] for commit in commits(pv))
    for words, expected in (
        ("-1", [head]),
        ("-2", [head, first]),
        ("--grep TRAIN", [head]),
        ("--grep nothing-like-it", []),
        ("HEAD~1..", [head]),
        ("terse..main", []),
        ("--since 2020-01-01", [head, first]),
        ("--until 2020-01-01", []),
        ("--until 2999-01-01T10:00", [head, first]),
        ("--until 9999-12-30", [head, first]),
        ("-n 1 --grep begin", [first]),
    ):
        assert [commit["id"] for commit in commits(pv, *words.split())] == expected, words
    terse_tip = pv.ok("log", "main..terse", "--json").json["commits"]
    assert [commit["message"] for commit in terse_tip] == ["Scale listening to 0.5"]
    for words, code, said in (
        ("-0", 2, "must be a whole number >= 1"),
        ("--since yesterday", 2, "not a date such as 2026-01-31"),
        ("--until 9999-12-31", 2, "not a date such as 2026-01-31"),
        ("--graph --grep x", 2, "--graph draws every commit"),
        ("a...b", 5, "A..B"),
        ("nope..main", 5, "no branch, tag or commit 'nope'"),
    ):
        answer = pv("log", *words.split())
        assert (answer.code, answer.out, said in answer.err) == (code, "", True), answer


def test_the_effects_of_builds(world: World, pv: InProcess) -> None:
    held_out = world.rows.with_name("rows.heldout.jsonl")
    pv.ok("eval", held_out)
    effect = [
        line for line in pv.ok("log", "--scores", "-1").out.splitlines() if line.startswith("effect   ")
    ]
    assert len(effect) == 1 and effect[0].endswith(" nats, 95 %, n=4 (rows.heldout.jsonl)")
    said = pv.ok("log", "--scores", "--oneline", "-1").out
    assert f"  {effect[0].removeprefix('effect   ')}, damage " in said and said.endswith(
        " text (n too small)\n"
    )
    assert "effect" not in pv.ok("log").out
    head, begin = pv.ok("log", "--scores", "--json").json["commits"]
    assert [score["n"] for score in head["scores"]] == [4]
    assert begin["scores"] == []
    assert "scores" not in commits(pv)[0]


def test_one_line_is_one_line_on_a_terminal(terse: None, process: Processes, pv: InProcess) -> None:
    message = "A message that is a good deal longer than 日本語 the terminal is wide"
    pv.ok("scale", "listening", "0.25", "-m", message)
    env = {"COLUMNS": "40", "NO_COLOR": "1"}
    for words in (
        ("log", "--oneline"),
        ("log", "--oneline", "--graph", "--all"),
        ("log", "listening", "--oneline"),
    ):
        lines = process.on_terminal("--no-pager", *words, env=env).out.splitlines()
        assert all(len(line) <= 40 for line in lines), lines
        assert any(line.endswith("…") for line in lines)
    assert "is wide  [listening 1 -> 0.25]" in pv.ok("log", "--oneline").out, "a pipe has no edge"
    assert cut("x" * 500) == "x" * 500


# Operations


def test_the_operations_are_numbered_and_say_what_they_moved(terse: None, pv: InProcess) -> None:
    pv.ok("scale", "listening", "2")
    pv.ok("switch", "-c", "side")
    pv.ok("undo")
    old, new = commits(pv)[1]["id"][:12], commits(pv)[0]["id"][:12]
    lines = pv.ok("op", "log", "-n", "3").out.splitlines()
    found = pv.ok("op", "log", "--json").json["operations"]
    top = found[0]["seq"]
    assert lines[0].split()[0] == str(top) and lines[0].endswith("  Ada  undo")
    assert lines[1:3] == [f"      side deleted (was at {new})", "      HEAD side -> main"]
    assert lines[3].split()[0] == str(top - 1) and lines[3].endswith(f"  (taken back by {top})")
    assert lines[4:6] == [f"      side created at {new}", "      HEAD main -> side"]
    assert lines[-1] == f"      main {old} -> {new}"
    assert "scale listening 2" in lines[-2]
    assert [one["undone_by"] for one in found[:3]] == [None, top, None]
    assert found[0]["author"] == {"name": "Ada", "email": "ada@example.org"}
    assert pv.ok("op", "show", str(top)).out.splitlines()[1:] == [line[4:] for line in lines[1:3]]
    assert {**pv.ok("op", "show", str(top), "--json").json} == {"schema": 1, **found[0]}
    for words, code in (
        (("op", "show", "99"), 5),
        (("op", "show", "0"), 2),
        (("op", "show", "x"), 2),
        (("op", "nope"), 2),
    ):
        assert pv(*words).code == code, words


def test_what_would_be_undone_is_what_is_undone(terse: None, pv: InProcess) -> None:
    """HEAD stays in a dry run, and yet the changes that there would be are listed."""
    at = commits(pv)[0]["id"]
    pv.ok("scale", "listening", "2")
    for words in (("undo",), ("redo",), ("undo",)):
        would, did = (pv.ok(*words, *more, "--json").json for more in (("--dry-run",), ()))
        assert [change["name"] for change in would["changes"]] == ["listening"]
        assert would["changes"] == did["changes"] and would["refs"] == did["refs"]
        assert (would["commit"], did["commit"]) == (did["refs"][0]["old"], did["refs"][0]["new"])
    assert did["commit"] == at
    pv.ok("switch", "terse")  # HEAD moves, and no branch
    found = pv.ok("undo", "--dry-run", "--json").json
    assert (found["branch"], found["refs"]) == ("terse", [])
    assert found["changes"][0]["after"]["weight"] == 1
    assert pv.ok("undo", "--json").json["branch"] == "main"


def test_undo_says_whose_it_was_and_what_is_where(
    world: World, pv: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One loses no tag without knowing it, and sees that it was another's."""
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace")
    pv.ok("tag", "v1")
    monkeypatch.delenv("GIT_AUTHOR_NAME")
    assert pv("compress", "listening", "--to", "int8").code == 2  # what one thinks one undoes
    at = commits(pv)[0]["id"][:12]
    said = pv.ok("undo", "--dry-run").err
    assert "would take back: " in said and "tag v1 (operation 3, Grace, 20" in said
    assert f"  tag: v1 deleted (was at {at})\n" in said
    assert set(pv.ok("tag", "--json").json["tags"]) == {"v1"}
    said = pv.ok("undo").err
    assert "✓ took back: " in said and "tag v1 (operation 3, Grace, 20" in said
    assert said.endswith(f"  tag: v1 deleted (was at {at})\non branch main at {at}\n  listening 1\n")
    said = pv.ok("redo").err
    assert "✓ brought back: " in said and f"  tag: v1 created at {at}\n" in said


def test_going_back_to_an_operation(terse: None, pv: InProcess) -> None:
    number = pv.ok("op", "log", "--json").json["operations"][0]["seq"]
    for words in ("scale listening 2", "tag v2", "switch terse", "branch -m brief"):
        pv.ok(*words.split())
    found = pv.ok("undo", "--to", str(number), "--json").json
    assert [one["seq"] for one in found["taken_back"]] == [number + 4, number + 3, number + 2, number + 1]
    assert (found["to"], found["branch"], found["head"]["new"]) == (number, "main", "refs/heads/main")
    assert behaviours(pv) == {"listening": 1}
    assert set(pv.ok("branch", "--json").json["branches"]) == {"main", "terse"}
    pv.ok("redo")
    assert pv.ok("status", "--json").json["branch"] == "brief"
    pv.ok("undo", "-n", "4")
    assert behaviours(pv) == {"listening": 1}
    said = pv.ok("undo", "--to", str(number)).err
    assert f"nothing to do: everything is as it was after operation {number}" in said
    for line, code, text in (
        ("--to 99", 5, "there is no operation 99"),
        ("--to 0", 2, "must be a whole number >= 1"),
        ("--to x", 2, "'x'"),
        ("-n 0", 2, "must be a whole number >= 1"),
        ("-n 50", 2, "there are not 50 operations"),
        ("-n 2 --to 1", 2, "exclude each other"),
    ):
        answer = pv("undo", *line.split())
        assert (answer.code, answer.out, text in answer.err) == (code, "", True), answer


def test_another_terminals_commit_is_taken_back_by_name_only(world: World, process: Processes) -> None:
    """What came in a moment before is what goes, and undo says whose it was."""
    assert process("tag", "mine").code == 0
    assert process("scale", "listening", "3", env={"GIT_AUTHOR_NAME": "Grace"}).code == 0
    said = process("undo")
    assert (said.code, "scale listening 3 (operation 4, Grace, " in said.err) == (0, True)
    assert "mine" in process("tag").out


# Branches, tags, switch


def test_a_branch_gets_another_name(terse: None, pv: InProcess) -> None:
    tip = pv.ok("branch", "--json").json["branches"]
    assert "branch terse is brief now, at " in pv.ok("branch", "-m", "terse", "brief").err
    pv.ok("branch", "-m", "trunk")
    found = pv.ok("branch", "--json").json
    assert found == {
        "schema": 1,
        "current": "trunk",
        "branches": {"trunk": tip["main"], "brief": tip["terse"]},
    }
    pv.ok("undo", "-n", "2")
    assert pv.ok("branch", "--json").json == {"schema": 1, "branches": tip, "current": "main"}
    for words, code, text in (
        (("-m", "terse", "main"), 2, "there is a branch 'main' already, at"),
        (("-m", "terse", "v1"), 2, "there is a tag 'v1' already, at"),
        (("-m", "nope", "new"), 5, "no branch 'nope'"),
        (("-m", "terse", "a b"), 2, "cannot name a branch"),
        (("-m", "terse", "main/sub"), 2, "a name is a file or a folder"),
        (("-m",), 2, "-m needs the name"),
        (("-d", "-m", "terse"), 2, "-d takes the name of one branch"),
        (("-d", "terse", "more"), 2, "-d takes the name of one branch"),
        (("-v", "terse"), 2, "takes no name"),
    ):
        said = pv("branch", *words)
        assert (said.code, said.out, text in said.err) == (code, "", True), said
    assert pv.ok("branch", "--json").json["branches"] == tip
    lines = pv.ok("branch", "-v").out.splitlines()
    assert lines[0].startswith("* main ") and lines[0].endswith("  Train listening")
    assert lines[1].startswith("  terse ") and lines[1].endswith("  Scale listening to 0.5")


def test_switch_to_where_one_was(terse: None, pv: InProcess) -> None:
    pv.ok("switch", "terse")
    for expected in ("main", "terse", "main"):
        said = pv.ok("switch", "-")
        assert f"on branch {expected} at" in said.err
    pv.ok("branch", "-m", "terse", "brief")
    pv.ok("switch", "brief")
    assert pv.ok("switch", "-", "--json").json["branch"] == "main"


def test_there_is_no_branch_before_the_first(world: World, pv: InProcess) -> None:
    said = pv("switch", "-")
    assert (said.code, "there was no other branch before this one" in said.err) == (5, True)


def test_a_name_that_is_taken_says_where_it_is(terse: None, pv: InProcess) -> None:
    at = commits(pv)[0]["id"][:12]
    for words, kind, way in (
        (("tag", "v1"), "tag", "`pv tag -d v1` frees"),
        (("branch", "main"), "branch", "`pv switch main`"),
    ):
        said = pv(*words)
        assert said.code == 2
        assert f"there is a {kind} {words[1]!r} already, at {at}" in said.err
        assert way in said.err
