"""Changing the persona and moving through its history: what each command says, and what it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_kit import InProcess, World, isolate

ONE_OBJECT = [
    ("status",),
    ("log",),
    ("show",),
    ("diff",),
    ("diff", "HEAD~1", "HEAD", "--recipe"),
    ("branch",),
    ("branch", "side"),
    ("branch", "-d", "terse"),
    ("tag",),
    ("tag", "v2"),
    ("tag", "-d", "v1"),
    ("switch", "terse"),
    ("switch", "-c", "side"),
    ("scale", "listening", "0.25"),
    ("negate", "listening"),
    ("drop", "listening"),
    ("add", "twice=terse:listening"),
    ("merge", "terse"),
    ("revert", "HEAD"),
    ("cherry-pick", "terse"),
    ("undo",),
    ("build", "-o", "built"),
    ("build", "-o", "built", "--dry-run"),
]


def once(made, folder: Path, *lines: tuple[str, ...]) -> Path:
    """A copy of the session's registry on which some commands have run."""
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder.parent, monkeypatch)
        for line in lines:
            InProcess(folder).ok(*line)
    return folder


@pytest.fixture(scope="session")
def made_terse(made, tmp_path_factory) -> Path:
    return once(
        made,
        tmp_path_factory.mktemp("terse") / "made",
        ("switch", "-c", "terse"),
        ("scale", "listening", "0.5"),
        ("switch", "main"),
        ("tag", "v1"),
    )


@pytest.fixture(scope="session")
def made_conflict(made_terse, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conflict") / "made"
    return once(World(made_terse, *[made_terse] * 3), folder, ("scale", "listening", "3"))


@pytest.fixture
def terse(world, made_terse) -> None:
    """A branch `terse` on which listening has weight 0.5, and a tag `v1` on main."""
    replace_registry(world, made_terse)


@pytest.fixture
def conflict(world, made_conflict) -> None:
    """The same, and on main listening has weight 3 since."""
    replace_registry(world, made_conflict)


def replace_registry(world, made: Path) -> None:
    shutil.rmtree(world.folder)
    shutil.copytree(made, world.folder)


def behaviours(pv, rev: str = "HEAD") -> dict[str, float]:
    persona = pv.ok("show", rev, "--json").json["persona"]
    return {name: behaviour["weight"] for name, behaviour in persona["behaviours"].items()}


def commits(pv, *options: str) -> list[dict[str, Any]]:
    return pv.ok("log", "--json", *options).json["commits"]


@pytest.mark.parametrize("line", ONE_OBJECT, ids=" ".join)
def test_json_is_one_object_on_stdout_and_nothing_else(terse, pv, line: tuple[str, ...]) -> None:
    said = pv.ok(*line, "--json")
    assert said.json["schema"] == 1
    assert next(iter(said.json)) == "schema"
    assert "✓" not in said.err


# Looking


def test_status_says_where_we_are(world, pv) -> None:
    said = pv.ok("status")
    found = pv.ok("status", "--json").json
    assert said.out.splitlines()[0] == f"on branch main at {found['commit'][:12]}"
    vector = found["persona"]["behaviours"]["listening"]["terms"][0][1]
    assert f"listening 1                      {vector[:12]}" in said.out
    assert said.err == ""
    pv.ok("undo")
    assert "no behaviours yet: pv train ROWS.jsonl --as NAME" in pv.ok("status").out


def test_show_tells_what_a_commit_did_and_where_its_vector_came_from(world, pv) -> None:
    text = pv.ok("show").out
    for words in (
        "author   Ada <ada@example.org>",
        "+ listening 1",
        "int8",
        "trained on 6 rows of rows.jsonl",
        "apollo, lr 0.0001",
        "held-out effect",
        "n=4 (rows.heldout.jsonl)",
    ):
        assert words in text
    assert not any(line != line.rstrip() for line in text.splitlines())
    provenance = pv.ok("show", "--json").json["provenance"]
    assert [p["kind"] for p in provenance.values()] == ["trained"]
    pv.ok("scale", "listening", "2")
    text = pv.ok("show").out
    assert "- listening 1\n+ listening 2\n" in text
    assert "  listening 1\n" in pv.ok("show", "HEAD~1").out.replace("+", " ")


def test_log_in_its_forms(terse, pv) -> None:
    head, first = commits(pv)
    assert head["parents"] == [first["id"]]
    assert head["author"] == {"name": "Ada", "email": "ada@example.org"}
    assert pv.ok("log", "--oneline").out.splitlines() == [
        f"{head['id'][:12]} (HEAD -> main, tag: v1) Train listening  [listening 1]",
        f"{first['id'][:12]} Begin on base  [(base)]",
    ]
    assert len(commits(pv, "--all")) == 3
    assert [c["id"] for c in commits(pv, "-n", "1")] == [head["id"]]
    assert [c["id"] for c in commits(pv, "HEAD~1")] == [first["id"]]
    assert pv.ok("log", first["id"][:7], "--json").json["commits"][0]["id"] == first["id"]
    full = pv.ok("log", "-n", "1").out
    assert full.startswith(f"commit {head['id'][:12]} (HEAD -> main, tag: v1)\nauthor   Ada, ")
    assert "persona  listening 1\n\n    Train listening\n" in full


def test_the_graph_draws_a_merge(terse, pv) -> None:
    pv.ok("add", "other=main:listening")
    pv.ok("merge", "terse")
    lines = pv.ok("log", "--graph", "--oneline").out.splitlines()
    assert len(lines) == 7
    assert [line.split(" ")[0] for line in lines if "*" not in line] == ["|\\", "|/"]
    assert {line[:3] for line in lines if line.startswith(("* |", "| *"))} == {"* |", "| *"}
    tall = pv.ok("log", "--graph").out.splitlines()
    assert tall[1].startswith("|\\ author")
    assert tall[2].startswith("| | persona")
    assert not any(line != line.rstrip() for line in tall)


# Changing the persona


def test_scale_negate_drop_and_add(world, pv) -> None:
    pv.ok("scale", "listening", "-0.5")
    assert behaviours(pv) == {"listening": -0.5}
    pv.ok("negate", "listening")
    assert behaviours(pv) == {"listening": 0.5}
    pv.ok("add", "again=HEAD~2:listening", "--weight", "2", "-m", "Bring it back twice")
    assert behaviours(pv) == {"listening": 0.5, "again": 2}
    assert commits(pv, "-n", "1")[0]["message"].strip() == "Bring it back twice"
    said = pv.ok("drop", "listening")
    assert behaviours(pv) == {"again": 2}
    assert said.err.endswith("  again 2\n")
    pv.ok("add", "HEAD~1:listening")
    assert behaviours(pv) == {"listening": 0.5, "again": 2}
    assert len(commits(pv)) == 7


def test_a_weight_of_zero_stays_zero_when_negated(world, pv) -> None:
    pv.ok("scale", "listening", "-0")
    assert str(behaviours(pv)["listening"]) == "0"
    said = pv("negate", "listening")
    assert said.code == 2
    assert "nothing changed" in said.err


def test_an_unfit_weight_is_refused_before_anything_is_done(world, pv) -> None:
    before = world.state()
    for weight in ("nan", "inf", "-inf", "1e7", "heavy"):
        for line in (
            ("scale", "listening", weight),
            ("add", "x=HEAD:listening", "--weight", weight),
            ("commit", world.tuned, "--as", "x", "--weight", weight),
            ("train", world.rows, "--as", "x", "--weight", weight),
        ):
            said = pv(*line)
            assert (said.code, said.out) == (2, ""), line
            assert "number" in said.err
            assert "training" not in said.err
    assert world.state() == before


# Branches, tags, undo


def test_branches_and_tags(terse, pv) -> None:
    assert pv.ok("branch").out.splitlines()[0].startswith("* main ")
    found = pv.ok("branch", "--json").json
    assert found["current"] == "main"
    assert set(found["branches"]) == {"main", "terse"}
    pv.ok("branch", "old", "HEAD~1")
    assert behaviours(pv, "old") == {}
    pv.ok("branch", "-d", "old")
    assert set(pv.ok("branch", "--json").json["branches"]) == {"main", "terse"}
    assert pv.ok("tag").out.startswith("v1 ")
    assert pv.ok("tag", "--json").json["tags"] == {"v1": found["branches"]["main"]}
    pv.ok("tag", "first", "HEAD~1")
    assert behaviours(pv, "first") == {}
    pv.ok("tag", "-d", "first")
    assert set(pv.ok("tag", "--json").json["tags"]) == {"v1"}


def test_names_that_cannot_be(terse, pv) -> None:
    for line, code, words in (
        (("branch", "terse"), 2, "there is a branch 'terse' already"),
        (("tag", "terse"), 2, "already"),
        (("branch", "a b"), 2, "cannot name a branch"),
        (("branch", "--", "-x"), 2, "would read as an option"),
        (("branch", "-d", "main"), 2, "current branch"),
        (("branch", "-d"), 2, "-d needs the name"),
        (("tag", "-d", "v9"), 5, "no tag 'v9'"),
        (("tag", "-d"), 2, "-d needs the name"),
        (("switch", "nowhere"), 5, "no branch 'nowhere'"),
        (("switch", "v1"), 2, "not a branch"),
        (("switch", "terse", "HEAD~1"), 2, "pv switch -c terse HEAD~1"),
        (("switch", "-c", "x", "nowhere"), 5, "nowhere"),
    ):
        said = pv(*line)
        assert (said.code, said.out) == (code, ""), line
        assert words in said.err
    assert set(pv.ok("branch", "--json").json["branches"]) == {"main", "terse"}


def test_switching_to_a_new_branch_is_one_operation(world, pv) -> None:
    pv.ok("switch", "-c", "side", "HEAD~1")
    assert pv.ok("status", "--json").json["branch"] == "side"
    assert behaviours(pv) == {}
    pv.ok("undo")
    assert set(pv.ok("branch", "--json").json["branches"]) == {"main"}
    assert pv.ok("status", "--json").json["branch"] == "main"


def test_undo_and_redo_say_which_command_they_mean(world, pv) -> None:
    pv.ok("scale", "listening", "0.5")
    assert "took back: " in pv.ok("undo").err
    assert behaviours(pv) == {"listening": 1}
    said = pv.ok("redo")
    assert "did again: " in said.err
    assert "scale listening 0.5" in said.err
    assert behaviours(pv) == {"listening": 0.5}
    assert "scale listening 0.5" in pv.ok("undo", "--json").json["undone"]
    assert "scale listening 0.5" in pv.ok("redo", "--json").json["redone"]
    said = pv("redo")
    assert (said.code, "nothing to redo" in said.err) == (2, True)
    pv.ok("undo")
    pv.ok("undo")
    said = pv("undo")
    assert said.code == 2
    assert "init" in said.err
    assert behaviours(pv) == {}, "the first operation stays"


# Diff


def test_diff_of_recipes_and_its_exit_code(terse, pv) -> None:
    said = pv.ok("diff", "main", "terse", "--recipe")
    assert said.out == "- listening 1\n+ listening 0.5\n"
    assert pv("diff", "main", "terse", "--recipe", "--exit-code").code == 1
    assert pv("diff", "main", "v1", "--recipe", "--exit-code").code == 0
    assert pv.ok("diff", "main", "v1", "--recipe").out == "no difference\n"
    found = pv.ok("diff", "main", "terse", "--recipe", "--json").json
    assert found["same"] is False
    assert found["recipe"]["b"]["behaviours"]["listening"]["weight"] == 0.5
    assert "total" not in found
    pv.ok("merge", "terse", "--method", "ties")
    assert "~ combine: {'method': 'add'} to {'method': 'ties'" in pv.ok("diff", "v1", "main", "--recipe").out


def test_diff_of_weights(terse, pv) -> None:
    found = pv.ok("diff", "--json").json
    assert found["total"]["elements"] > found["total"]["changed"] > 0
    assert {layer["where"] for layer in found["layers"]} >= {"layer 0", "layer 1"}
    squares = sum(layer["step"] ** 2 for layer in found["layers"])
    assert squares == pytest.approx(found["total"]["step"] ** 2)
    half = pv.ok("diff", "HEAD~1", "terse", "--json").json
    assert half["total"]["step"] == pytest.approx(found["total"]["step"] / 2, rel=1e-5)
    text = pv.ok("diff", "main", "terse").out
    for words in ("- listening 1", "by layer", "by module", "mlp.down_proj", "listening · listening (main)"):
        assert words in text
    (pair,) = pv.ok("diff", "main", "terse", "--json").json["interference"]
    assert (pair["a"], pair["b"]) == ("listening", "listening (main)")
    assert pair["cosine"] == pytest.approx(1)
    assert "no weight differs" in pv.ok("diff", "main", "main").out


# Merge, revert, cherry-pick


def test_a_merge_of_what_is_ahead_moves_forward(terse, pv) -> None:
    said = pv.ok("merge", "terse", "--json").json
    assert said["kind"] == "fast-forward"
    assert said["commit"] == pv.ok("branch", "--json").json["branches"]["terse"]
    assert pv.ok("merge", "terse", "--json").json["kind"] == "up-to-date"
    assert "already up to date" in pv.ok("merge", "terse").err


def test_a_true_merge_has_two_parents_and_both_changes(terse, pv) -> None:
    pv.ok("add", "more=main:listening", "--weight", "3")
    said = pv.ok("merge", "terse", "-m", "Join them", "--json").json
    assert said["kind"] == "merge"
    assert behaviours(pv) == {"listening": 0.5, "more": 3}
    (newest,) = commits(pv, "-n", "1")
    assert len(newest["parents"]) == 2
    assert newest["message"].strip() == "Join them"


def test_a_merge_can_set_the_rule(terse, pv) -> None:
    pv.ok(
        "merge", "terse", "--method", "ties", "--density", "0.3", "--elect", "unweighted", "--lambda", "0.9"
    )
    combine = pv.ok("status", "--json").json["persona"]["combine"]
    assert combine["method"] == "ties"
    assert (combine["density"], combine["elect"], combine["lambda"]) == (0.3, "unweighted", 0.9)
    assert "ties (density 0.3" in pv.ok("status").out


def test_a_conflict_lists_both_sides_and_changes_nothing(conflict, world, pv) -> None:
    before = world.state()
    said = pv("merge", "terse")
    assert (said.code, said.out) == (1, "")
    vector = pv.ok("status", "--json").json["persona"]["behaviours"]["listening"]["terms"][0][1][:12]
    assert said.err.splitlines() == [
        "error: both sides changed listening; nothing was merged",
        "  listening",
        f"    before  weight 1 × (1·{vector})",
        f"    ours    weight 3 × (1·{vector})",
        f"    theirs  weight 0.5 × (1·{vector})",
        "hint:  settle each: pv merge terse --take listening=ours|theirs|WEIGHT",
    ]
    said = pv("merge", "terse", "--json")
    assert (said.code, said.out, said.error["exit_code"]) == (1, "", 1)
    (found,) = said.error["conflicts"]
    assert (found["name"], found["kind"]) == ("listening", "behaviour")
    assert [found[side]["weight"] for side in ("ancestor", "ours", "theirs")] == [1, 3, 0.5]
    assert world.state() == before


def test_a_conflict_over_a_field_takes_no_weight(terse, pv) -> None:
    pv.ok("merge", "terse", "--method", "ties", "--density", "0.5")
    pv.ok("switch", "-c", "third", "v1")
    pv.ok("merge", "terse", "--method", "ties", "--density", "0.7")
    said = pv("merge", "main")
    assert said.code == 1
    assert "    ours    ties (density 0.7" in said.err
    assert said.err.endswith("pv merge main --take combine=ours|theirs\n")
    pv.ok("merge", "main", "--take", "combine=theirs")
    assert pv.ok("status", "--json").json["persona"]["combine"]["density"] == 0.5


@pytest.mark.parametrize(("choice", "weight"), [("ours", 3), ("theirs", 0.5), ("1.75", 1.75)])
def test_a_conflict_is_settled_beforehand(conflict, pv, choice: str, weight: float) -> None:
    pv.ok("merge", "terse", "--take", f"listening={choice}")
    assert behaviours(pv) == {"listening": weight}
    assert len(commits(pv, "-n", "1")[0]["parents"]) == 2


WRONG = [
    (("--take", "listening"), "is not NAME=ours"),
    (("--take", "=ours"), "is not NAME=ours"),
    (("--take", "listening=mine"), "'mine' is not ours, theirs or a number"),
    (("--take", "listening=nan"), "finite"),
    (("--take", "nobody=ours"), "nothing here has that name"),
    (("--density", "0.5"), "--density needs --method ties"),
    (("--method", "ties", "--density", "0"), "--density"),
    (("--method", "add", "--density", "0.5"), "takes no option"),
]


def test_a_merge_that_is_asked_for_wrongly(conflict, world, pv) -> None:
    before = world.state()
    for options, words in WRONG:
        said = pv("merge", "terse", *options)
        assert (said.code, said.out) == (2, ""), options
        assert words in said.err, options
    assert world.state() == before


def test_revert_takes_back_one_commit_and_keeps_the_later_ones(world, pv) -> None:
    pv.ok("add", "more=HEAD:listening", "--weight", "3")
    pv.ok("scale", "more", "4")
    said = pv.ok("revert", "HEAD~2")
    assert behaviours(pv) == {"more": 4}
    assert "reverts" in said.err
    assert 'Revert "Train listening"' in commits(pv, "-n", "1")[0]["message"]
    said = pv("revert", "HEAD~2")
    assert said.code == 1
    assert "more" in said.err
    assert "--take more=ours|theirs|WEIGHT" in said.err
    pv.ok("revert", "HEAD~2", "--take", "more=theirs")
    assert behaviours(pv) == {}


def test_reverting_a_merge_needs_a_mainline(conflict, pv) -> None:
    pv.ok("merge", "terse", "--take", "listening=theirs")
    said = pv("revert", "HEAD")
    assert said.code == 2
    assert "is a merge: it has 2 parents" in said.err
    assert "-m 1 is the branch that was merged into" in said.err
    said = pv("revert", "HEAD", "-m", "3")
    assert (said.code, "-m takes 1 to 2" in said.err) == (2, True)
    pv.ok("revert", "HEAD", "-m", "1")
    assert behaviours(pv) == {"listening": 3}
    assert pv("revert", "main~9").code == 5
    first = commits(pv)[-1]["id"]
    said = pv("revert", first)
    assert (said.code, "the first commit cannot be reverted" in said.err) == (2, True)


def test_cherry_pick_repeats_one_commit_with_its_author(terse, pv, alone: Path) -> None:
    (alone / ".gitconfig").write_text("[user]\n\tname = Grace\n\temail = grace@example.org\n")
    said = pv.ok("cherry-pick", "terse", "--json").json
    assert behaviours(pv) == {"listening": 0.5}
    (picked,) = commits(pv, "-n", "1")
    assert picked["id"] == said["commit"]
    assert picked["author"]["name"] == "Ada"
    assert f"Picked from commit {said['picked']}" in picked["message"]
    said = pv("cherry-pick", "terse")
    assert (said.code, "like that already" in said.err) == (2, True)
    pv.ok("scale", "listening", "7")
    said = pv("cherry-pick", "terse")
    assert said.code == 1
    assert "ours    weight 7" in said.err
    pv.ok("cherry-pick", "terse", "--take", "listening=theirs")
    assert behaviours(pv) == {"listening": 0.5}


# Unknown things, with the nearest


UNKNOWN = [
    (("log", "mian"), "did you mean main?"),
    (("show", "ters"), "did you mean terse?"),
    (("diff", "main", "trese"), "did you mean terse?"),
    (("build", "nope", "-o", "x"), "`pv branch` and `pv tag` list the names"),
    (("show", "HEAD~9"), "is the first commit"),
    (("show", "ffff"), "no commit 'ffff'"),
    (("merge", "maim"), "did you mean main?"),
    (("eval", "maim", "rows"), "did you mean main?"),
    (("chat", "maim", "-p", "x"), "did you mean main?"),
    (("push", "maim", "hf://a/b"), "did you mean main?"),
    (("scale", "listning", "1"), "it has: listening"),
    (("negate", "nope"), "it has: listening"),
    (("drop", "nope"), "it has: listening"),
    (("add", "main:nope"), "it has: listening"),
]


def test_an_unknown_name_is_answered_with_those_that_are(terse, world, pv) -> None:
    before = world.state()
    for line, words in UNKNOWN:
        said = pv(*line)
        assert (said.code, said.out) == (5, ""), line
        assert words in said.err, line
        said = pv(*line, "--json")
        assert (said.code, said.out, said.error["exit_code"]) == (5, "", 5), line
    assert world.state() == before


@pytest.mark.parametrize("what", ["listening", ":listening", "main:", "=main:listening"])
def test_add_says_what_it_wants(world, pv, what: str) -> None:
    said = pv("add", what)
    assert said.code == 2
    assert "pv add brief=v1:concise" in said.err
    said = pv("add", "main:listening")
    assert said.code == 2
    assert "pv add NEW=main:listening" in said.err
    assert pv("add", "a/b=main:listening").code == 2
