"""What a first user stumbled over: a mark where nothing was done, a hint that cannot be copied, a far-fetched guess."""

from __future__ import annotations

import re

import pytest
from support.commands import InProcess, Processes, World

from pv.cli.terminal import wrap
from pv.registry.changes import Change
from pv.registry.persona import Behaviour, Term
from pv.registry.words import behaviour_line, change_line, size, value_words


def test_what_was_not_done_has_no_mark_and_no_commit(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.5")
    pv.ok("branch", "side")
    for words, says in (
        (("scale", "listening", "0.5"), "listening has weight 0.5 already: nothing to commit\n"),
        (("combine", "add"), "the combine rule is add already: nothing to commit\n"),
        (("config", "output.seed", "0"), "output.seed is 0 already: nothing to commit\n"),
        (("merge", "side"), "already up to date\n"),
    ):
        assert pv.ok(*words).err == says


def test_which_verbs_refuse_to_do_nothing(world: World, pv: InProcess) -> None:
    """As docs/scripting.md has it, under exit code 2."""
    pv.ok("commit", world.tuned, "--as", "house")
    pv.ok("compress", "listening", "--to", "float", "--force")
    pv.ok("switch", "-c", "side")
    for words in (
        ("commit", world.tuned, "--as", "house"),
        ("compress", "listening", "--to", "float"),
        ("cherry-pick", "main"),
    ):
        assert pv(*words).code == 2, words


def test_changed_is_counted_before_rounding(world: World, pv: InProcess) -> None:
    assert pv.ok("diff", "--weights").out.count("changed, before rounding") == 2
    assert "before a build rounds them" in " ".join(pv.ok("diff", "--help").out.split())


def test_a_tensor_may_be_larger_than_a_file(pv: InProcess) -> None:
    for command in ("build", "export"):
        said = " ".join(pv.ok(command, "--help").out.split())
        assert "A tensor that is larger has a file of its own." in said


# Conflicts


def diverged(pv: InProcess | Processes, run: InProcess) -> None:
    """Both sides changed two behaviours and the seed; a third was dropped on one side."""
    for name in ("b-of-some-length", "c-of-some-length"):
        run.ok("add", f"{name}=HEAD:listening")
    run.ok("switch", "-c", "other-branch")
    for name, weight in (("listening", "0.5"), ("b-of-some-length", "0.5"), ("c-of-some-length", "0.5")):
        run.ok("scale", name, weight)
    run.ok("config", "output.seed", "5")
    run.ok("switch", "main")
    run.ok("scale", "listening", "2")
    run.ok("scale", "b-of-some-length", "2")
    run.ok("drop", "c-of-some-length")
    run.ok("config", "output.seed", "6")


def test_a_share_is_offered_where_a_side_has_the_behaviour(world: World, pv: InProcess) -> None:
    diverged(pv, pv)
    said = pv("merge", "other-branch")
    share = "'theirs*0.5' (half its weight) or 0.7 (that weight)"
    offer = (
        f"choose ours or theirs for each; of b-of-some-length, c-of-some-length, listening also {share}:\n"
    )
    assert (said.code, offer in said.err) == (1, True), said.err


@pytest.mark.parametrize("columns", [60, 80])
def test_the_command_of_a_hint_can_be_copied(
    world: World, pv: InProcess, process: Processes, columns: int
) -> None:
    diverged(process, pv)
    env = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    shown = process.on_terminal("merge", "other-branch", env=env).out.replace("\r\n", "\n")
    (typed,) = re.findall(r"^ +(pv .*)$", shown, flags=re.MULTILINE)
    assert typed.count("--take") == 4, shown
    words = [word for word in typed.split() if word != "pv"]
    pv.ok(*words)


def test_an_indented_command_is_never_broken() -> None:
    command = "       pv merge a --take output.seed=ours --take concise=ours --take listening=ours"
    assert wrap(f"hint:  choose:\n{command}", 60) == f"hint:  choose:\n{command}"


# Many terms


MANY = Behaviour(0.5, tuple(Term(1.0, digit * 64) for digit in "123456789"))


def test_a_line_has_two_terms_of_many() -> None:
    assert behaviour_line("x", MANY) == "x 0.5 × (1·11111111, 1·22222222, … 7 more)"
    assert behaviour_line("x", MANY, most=None).count("·") == 9
    assert value_words(MANY) == "weight 0.5, vectors 1 × 111111111111, 1 × 222222222222, … 7 more"
    one = Behaviour(0.5, MANY.terms[:1])
    assert change_line(Change("x", "behaviour", one, MANY)).endswith("222222222222, … 7 more")


def test_status_has_two_of_them_and_show_all(world: World, pv: InProcess) -> None:
    from pv.vecstore.repo.edit import commit_edit
    from pv.vecstore.repo.repo import Repo

    with Repo.open(world.folder) as repo:
        (term,) = repo.persona.behaviour("listening").terms
        many = Behaviour(1.0, tuple(Term(float(n), term.vector) for n in range(1, 10)))
        commit_edit(repo, "x", "Many", lambda persona: persona.with_behaviour("many", many))
    line = next(line for line in pv.ok("status").out.splitlines() if line.startswith("  many"))
    assert line.count("·") == 2 and line.count("7 more") == 2
    assert pv.ok("show", "many").out.count("·") == 9


# Sizes, and what was lost


def test_sizes_are_said_in_one_way(world: World, pv: InProcess) -> None:
    assert [size(n) for n in (1, 1500, 391_231_700)] == ["1 B", "1.5 kB", "391 MB"]
    said = pv("compress", "listening", "--to", "float")
    assert said.code == 2 and not re.search(r"\d,\d|\.\d kB,? .*,\d{3}", said.err), said.err


def test_a_behaviour_that_is_hardly_left_is_remarked_on(world: World, pv: InProcess) -> None:
    said = pv.ok("compress", "listening", "--to", "sparse:0.01")
    assert "relative L2 error of the vector 0." in said.err
    again = "`pv undo`, then `pv compress listening --to sparse:0.01 --data ROWS.jsonl`"
    assert f"its effect was not measured: {again}" in said.err
    pv.ok("undo")
    line = ("compress", "listening", "--to", "sparse:0.01", "--data", world.rows)
    assert "was not measured" not in pv.ok(*line).err
    pv.ok("undo")
    assert "was not measured" not in pv.ok("compress", "listening", "--to", "sparse:0.9", "--force").err


# Guesses


def test_only_what_is_near_is_guessed(world: World, pv: InProcess) -> None:
    assert "hint:  there are: combine.method, combine.density, " in pv("config", "combine").err
    assert "engine" not in pv("config", "combine").err
    assert "hint:  did you mean combine.method?" in pv("config", "combine.meth").err
    (world.folder / "ov.jsonl").write_bytes(world.rows.read_bytes())
    said = pv("train", "nofile.jsonl", "--as", "x")
    assert "did you mean" not in said.err and "holds ov.jsonl" in said.err
    assert f"did you mean {world.folder / 'ov.jsonl'}?" in pv("train", "ov.json", "--as", "x").err


def test_a_percentage_is_written_in_one_way(terse: None, pv: InProcess) -> None:
    """`60 %`, as in every table."""
    pv.ok("add", "a=v1:listening")
    for words in (("merge", "HEAD", "--dry-run"), ("export", "--lora", "--rank", "1", "-o", "out")):
        said = pv.ok(*words)
        assert " %" in said.out + said.err and not re.search(r"\d%", said.out + said.err), said
