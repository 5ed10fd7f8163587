"""Changing the persona and moving through its history: what each command says, and what it leaves."""

from __future__ import annotations

import pytest
from support.commands import InProcess, World, behaviours, commits

from pv.registry.ids import comparison_id
from pv.registry.registry import Registry

ONE_OBJECT = [
    ("status",),
    ("log",),
    ("show",),
    ("diff",),
    ("diff", "HEAD~1", "HEAD", "--recipe"),
    ("diff", "--weights"),
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


@pytest.mark.parametrize("line", ONE_OBJECT, ids=" ".join)
def test_json_is_one_object_on_stdout_and_nothing_else(
    terse: None, pv: InProcess, line: tuple[str, ...]
) -> None:
    said = pv.ok(*line, "--json")
    assert said.json["schema"] == 1
    assert next(iter(said.json)) == "schema"
    assert "✓" not in said.err


# Looking


def test_status_says_where_we_are(world: World, pv: InProcess) -> None:
    said = pv.ok("status")
    found = pv.ok("status", "--json").json
    assert said.out.splitlines()[0] == f"on branch main at {found['commit'][:12]}"
    vector = found["persona"]["behaviours"]["listening"]["terms"][0][1]
    assert f"listening 1  {vector[:12]}" in said.out
    assert said.err == ""
    pv.ok("undo")
    assert "no behaviours yet: pv train ROWS.jsonl --as NAME" in pv.ok("status").out


def test_show_tells_what_a_commit_did_and_where_its_vector_came_from(world: World, pv: InProcess) -> None:
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
    assert "~ listening  weight 1 -> 2\n" in text
    assert "  listening 1\n" in pv.ok("show", "HEAD~1").out.replace("+", " ")


def test_log_in_its_forms(terse: None, pv: InProcess) -> None:
    head, first = commits(pv)
    assert head["parents"] == [first["id"]]
    assert head["author"] == {"name": "Ada", "email": "ada@example.org"}
    assert pv.ok("log", "--oneline").out.splitlines() == [
        f"{head['id'][:12]} (HEAD -> main, tag: v1) Train listening  [+ listening 1]",
        f"{first['id'][:12]} Begin on base",
    ]
    assert len(commits(pv, "--all")) == 3
    assert [c["id"] for c in commits(pv, "-n", "1")] == [head["id"]]
    assert [c["id"] for c in commits(pv, "HEAD~1")] == [first["id"]]
    assert pv.ok("log", first["id"][:7], "--json").json["commits"][0]["id"] == first["id"]
    full = pv.ok("log", "-n", "1").out
    assert full.startswith(f"commit {head['id'][:12]} (HEAD -> main, tag: v1)\nauthor   Ada, ")
    assert "persona  listening 1\nchanged  + listening 1\n\n    Train listening\n" in full


def test_the_graph_draws_a_merge(terse: None, pv: InProcess) -> None:
    pv.ok("add", "other=main:listening")
    pv.ok("merge", "terse")
    lines = pv.ok("log", "--graph", "--oneline").out.splitlines()
    assert len(lines) == 7
    assert [line.split(" ")[0] for line in lines if "*" not in line] == ["|\\", "|/"]
    assert {line[:3] for line in lines if line.startswith(("* |", "| *"))} == {"* |", "| *"}
    tall = pv.ok("log", "--graph").out.splitlines()
    assert tall[1].startswith("|\\ merge")
    assert tall[2].startswith("| | author")
    assert not any(line != line.rstrip() for line in tall)


# Changing the persona


def test_scale_negate_drop_and_add(world: World, pv: InProcess) -> None:
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


def test_a_weight_of_zero_stays_zero_when_negated(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "-0")
    assert str(behaviours(pv)["listening"]) == "0"
    said = pv("negate", "listening")
    assert said.code == 2
    assert "listening has weight 0" in said.err


def test_an_unfit_weight_is_refused_before_anything_is_done(world: World, pv: InProcess) -> None:
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


def test_branches_and_tags(terse: None, pv: InProcess) -> None:
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


def test_names_that_cannot_be(terse: None, pv: InProcess) -> None:
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


def test_switching_to_a_new_branch_is_one_operation(world: World, pv: InProcess) -> None:
    pv.ok("switch", "-c", "side", "HEAD~1")
    assert pv.ok("status", "--json").json["branch"] == "side"
    assert behaviours(pv) == {}
    pv.ok("undo")
    assert set(pv.ok("branch", "--json").json["branches"]) == {"main"}
    assert pv.ok("status", "--json").json["branch"] == "main"


def test_an_undo_is_known_however_it_was_typed(world: World, pv: InProcess) -> None:
    """Also where the line that was typed does not begin with the word."""
    pv.ok("scale", "listening", "0.5")
    for line in (("-q", "undo"), ("-C", world.folder, "undo"), ("--no-pager", "undo", "-n", "1")):
        pv.ok(*line)
        assert behaviours(pv) == {"listening": 1}, line
        pv.ok("-q", "redo")
        assert behaviours(pv) == {"listening": 0.5}, line
    pv.ok("undo")
    pv.ok("branch", "undo")  # an operation that has the word, and is none
    assert pv("redo").code == 2


def test_undo_and_redo_say_which_command_they_mean(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.5")
    assert "took back: " in pv.ok("undo").err
    assert behaviours(pv) == {"listening": 1}
    said = pv.ok("redo")
    assert "brought back: " in said.err
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


def test_diff_of_recipes_and_its_exit_code(terse: None, pv: InProcess) -> None:
    said = pv.ok("diff", "main", "terse", "--recipe")
    assert said.out == "~ listening  weight 1 -> 0.5\n"
    assert pv("diff", "main", "terse", "--recipe", "--exit-code").code == 1
    assert pv("diff", "main", "v1", "--recipe", "--exit-code").code == 0
    assert pv.ok("diff", "main", "v1", "--recipe").out == "no difference\n"
    found = pv.ok("diff", "main", "terse", "--recipe", "--json").json
    assert found["same"] is False
    assert found["recipe"]["b"]["behaviours"]["listening"]["weight"] == 0.5
    assert "total" not in found
    pv.ok("merge", "terse", "--method", "ties")
    said = pv.ok("diff", "v1", "main", "--recipe")
    assert "~ combine  add -> ties (density 0.2, elect unweighted, merge mean, lambda 1)\n" in said.out


def test_diff_of_weights(terse: None, pv: InProcess) -> None:
    found = pv.ok("diff", "--weights", "--json").json
    assert found["total"]["elements"] > found["total"]["changed"] > 0
    assert {layer["where"] for layer in found["layers"]} >= {"layer 0", "layer 1"}
    squares = sum(layer["step"] ** 2 for layer in found["layers"])
    assert squares == pytest.approx(found["total"]["step"] ** 2)
    half = pv.ok("diff", "HEAD~1", "terse", "--weights", "--json").json
    assert half["total"]["step"] == pytest.approx(found["total"]["step"] / 2, rel=1e-5)
    text = pv.ok("diff", "main", "terse", "--weights").out
    for words in (
        "~ listening  weight 1 -> 0.5",
        "by layer",
        "by module",
        "mlp.down_proj",
        "listening (main)",
        "+1.000",
    ):
        assert words in text
    assert "listening and listening (main): cosine +1.000, same sign in 100.0 % of the weights" in text
    (pair,) = pv.ok("diff", "main", "terse", "--weights", "--json").json["interference"]
    assert (pair["a"], pair["b"]) == ("listening", "listening (main)")
    assert pair["cosine"] == pytest.approx(1)
    assert "no weight differs" in pv.ok("diff", "main", "main", "--weights").out


def test_diff_reads_no_weights_until_it_is_asked_to(terse: None, pv: InProcess) -> None:
    said = pv.ok("diff", "main", "terse")
    assert said.out.startswith("~ listening  weight 1 -> 0.5\n\neffect in nats")
    assert "by layer" not in said.out
    assert "--weights" in said.err
    assert "total" not in pv.ok("diff", "main", "terse", "--json").json


def test_what_was_compared_once_is_shown_again_without_reading(
    world: World, terse: None, pv: InProcess
) -> None:
    asked = pv.ok("diff", "main", "terse", "--weights", "--json").json
    for pack in (world.folder / ".pv" / "packs").glob("*/*"):
        pack.unlink()
    assert pv.ok("diff", "main", "terse", "--json").json == asked
    assert pv.ok("diff", "HEAD", "terse", "--json").json["interference"][0]["b"].startswith("listening (HEAD")
    assert "total" not in pv.ok("diff", "main", "terse", "--recipe", "--json").json
    assert "by layer" in pv.ok("diff", "main", "terse").out
    assert pv("diff", "main", "terse", "--weights", "--recipe").code == 2


MOVED = ["w", 4, 2, 1.0, 2.0, 0.5]
PAIR = ["listening", "listening@a", 1.0, 1.0, 2, 1.0, 1.0]


@pytest.mark.parametrize(
    "noted",
    [
        7, [], {}, {"tensors": 7, "pairs": []}, {"tensors": [], "pairs": 7}, {"tensors": [7], "pairs": []},
        {"tensors": [MOVED[:5]], "pairs": []}, {"tensors": [[*MOVED, 1]], "pairs": []},
        {"tensors": [["w", "4", 2, 1.0, 2.0, 0.5]], "pairs": []},
        {"tensors": [[7, 4, 2, 1.0, 2.0, 0.5]], "pairs": []},
        {"tensors": [["w", 4, 2, -1.0, 2.0, 0.5]], "pairs": []},
        {"tensors": [["w", 4, 2, 1.0, None, 0.5]], "pairs": []},
        {"tensors": [MOVED], "pairs": [PAIR[:6]]},
        {"tensors": [MOVED], "pairs": [[7, *PAIR[1:]]]},
        {"tensors": [MOVED], "pairs": [[["listening"], *PAIR[1:]]]},
        {"tensors": [MOVED], "pairs": [["a stranger", *PAIR[1:]]]},
        {"tensors": [MOVED], "pairs": [[*PAIR[:2], "1", *PAIR[3:]]]},
    ],
)  # fmt: skip
def test_a_comparison_of_another_form_was_not_made(
    world: World, terse: None, pv: InProcess, noted: object
) -> None:
    with Registry.find(world.folder) as registry:
        key = comparison_id(registry.persona("main").id, registry.persona("terse").id)
        registry.update_record(key, {"comparison": {"tensors": [MOVED], "pairs": [PAIR]}})
        assert "total" in pv.ok("diff", "main", "terse", "--json").json
        registry.update_record(key, {"comparison": None})
        registry.update_record(key, {"comparison": noted})
    assert "total" not in pv.ok("diff", "main", "terse", "--json").json
    pv.ok("diff", "main", "terse")


# Unknown things, with the nearest


UNKNOWN = [
    (("log", "mian"), "did you mean main?"),
    (("show", "ters"), "did you mean terse?"),
    (("diff", "main", "trese"), "did you mean terse?"),
    (("build", "nope", "-o", "x"), "`pv branch` and `pv tag` list the names"),
    (("show", "HEAD~9"), "is the first commit"),
    (("show", "ffff"), "no branch, tag, commit, behaviour or id 'ffff'"),
    (("merge", "maim"), "did you mean main?"),
    (("eval", "maim", "rows"), "did you mean main?"),
    (("chat", "maim", "-p", "x"), "did you mean main?"),
    (("push", "maim", "hf://a/b"), "did you mean main?"),
    (("scale", "listning", "1"), "it has: listening"),
    (("negate", "nope"), "it has: listening"),
    (("drop", "nope"), "it has: listening"),
    (("add", "main:nope"), "it has: listening"),
]


def test_an_unknown_name_is_answered_with_those_that_are(terse: None, world: World, pv: InProcess) -> None:
    before = world.state()
    for line, words in UNKNOWN:
        said = pv(*line)
        assert (said.code, said.out) == (5, ""), line
        assert words in said.err, line
        said = pv(*line, "--json")
        assert (said.code, said.out, said.error["exit_code"]) == (5, "", 5), line
    assert world.state() == before


@pytest.mark.parametrize("what", ["listening", ":listening", "main:", "=main:listening"])
def test_add_says_what_it_wants(world: World, pv: InProcess, what: str) -> None:
    said = pv("add", what)
    assert said.code == 2
    assert "pv add brief=v1:concise" in said.err
    said = pv("add", "main:listening")
    assert said.code == 2
    assert "pv add listening2=main:listening" in said.err
    assert pv("add", "a/b=main:listening").code == 2
