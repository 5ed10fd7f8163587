"""A name of one kind where another goes: what it is, and the command that takes it; names that nothing has."""

from __future__ import annotations

import re
import shlex

import pytest
from support.commands import InProcess, Said, World, commits

from pv.registry.errors import UnknownRevision, UsageError
from pv.registry.persona import Behaviour, Term
from pv.vecstore.repo.repo import Repo


def offered(said: Said) -> list[str]:
    """The words of the command in a hint, less the `-C DIR` with which the tests call pv."""
    (line,) = re.findall(r"^hint: .*?`?(pv [^`\n]*)", said.err, flags=re.MULTILINE)
    words = shlex.split(line)
    assert words[:2] == ["pv", "-C"]
    return words[3:]


IS_BEHAVIOUR = "error: 'listening' is a behaviour, not a revision\n"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("build", "listening", "-o", "y"), ("export", "listening", "-o", "y")),
        (("build", "listening", "--output=y", "-n"), ("export", "listening", "-o", "y")),
        (("build", "HEAD:listening", "-o", "y"), ("export", "HEAD:listening", "-o", "y")),
        (("push", "listening", "hf://me/x", "-n"), ("export", "listening", "-o", "DIR")),
        (("chat", "listening", "-p", "hi"), ("log", "listening")),
        (("diff", "listening", "HEAD"), ("diff", "--weights")),
        (("diff", "HEAD", "listening"), ("diff", "--weights")),
        (("merge", "listening"), ("scale", "listening", "WEIGHT")),
        (("revert", "listening"), ("drop", "listening")),
        (("eval", "listening", "rows.jsonl"), ("eval", "--all")),
        (("eval", "HEAD:listening", "rows.jsonl"), ("eval", "--all", "HEAD")),
        (("log", "listening..main"), ("log", "listening")),
        (("log", "listening~1"), ("log", "listening")),
        (("branch", "new", "listening"), ("show", "listening")),
        (("tag", "new", "listening"), ("show", "listening")),
        (("add", "listening:x"), ("show", "listening")),
        (("verify", "BASE", "listening"), ("verify", "BASE")),
    ],
    ids=" ".join,
)
def test_a_behaviour_where_a_revision_goes(
    world: World, pv: InProcess, words: tuple[str, ...], command: tuple[str, ...]
) -> None:
    before = world.state()
    (world.folder / "rows.jsonl").write_bytes(world.rows.read_bytes())
    here = {"BASE": str(world.base)}
    said = pv(*(here.get(word, word) for word in words))
    assert (said.code, said.out) == (5, "")
    assert IS_BEHAVIOUR.replace("HEAD:", "") in said.err.replace("HEAD:", ""), said.err
    typed = offered(said)
    assert typed == [here.get(word, word) for word in command]
    if not {"WEIGHT", "DIR"} & set(typed):
        pv.ok(*typed, *(["-n"] if typed[0] == "export" else []))
    (world.folder / "rows.jsonl").unlink()
    if typed[0] != "drop" and typed[0] != "eval":
        assert world.state() == before or typed[0] == "diff"


def test_a_behaviour_of_another_branch(terse: None, world: World, pv: InProcess) -> None:
    pv.ok("switch", "terse")
    pv.ok("add", "short=v1:listening")
    commit = commits(pv)[0]["id"][:12]
    pv.ok("switch", "main")
    said = pv("merge", "short")
    assert (said.code, offered(said)) == (5, ["add", f"{commit}:short"])
    pv.ok(*offered(said))
    assert offered(pv("build", f"{commit}:short", "-o", "y")) == ["export", f"{commit}:short", "-o", "y"]
    assert "no branch, tag or commit 'main:nobody'" in pv("build", "main:nobody", "-o", "y").err


def test_from_python_too(world: World) -> None:
    with Repo.open(world.folder) as repo:
        with pytest.raises(UnknownRevision, match="'listening' is a behaviour, not a revision") as failed:
            repo.at("listening")
        assert (failed.value.behaviour, failed.value.name) == ("listening", None)
        assert failed.value.hint is not None and "`pv show listening` shows it" in failed.value.hint
        with pytest.raises(UnknownRevision, match="no branch, tag or commit 'nobody'") as failed:
            repo.at("nobody")
        assert (failed.value.behaviour, failed.value.name) == (None, "nobody")


def test_a_behaviour_whose_name_reads_as_an_id(world: World, pv: InProcess) -> None:
    pv.ok("rename", "listening", "decade")
    assert "'decade' is a behaviour, not a revision" in pv("diff", "decade").err
    assert pv.ok("show", "decade").out.startswith("behaviour decade")


def test_the_revision_that_lacks_a_behaviour_is_named(world: World, pv: InProcess) -> None:
    pv.ok("rename", "listening", "ears")
    for words in (
        ("add", "HEAD~1:ears"),
        ("rows", "HEAD~1:ears"),
        ("export", "HEAD~1:ears", "-o", "out"),
        ("export", "HEAD~1:ears", "-o", "out", "-n"),
    ):
        said = pv(*words)
        assert said.code == 5, said
        assert said.err == "error: no behaviour 'ears' in HEAD~1\nhint:  it has: listening\n", words
    for words in (("rows", "nobody"), ("export", "nobody", "-o", "out"), ("drop", "nobody")):
        assert "no behaviour 'nobody' in this persona" in pv(*words).err, words


def test_what_show_and_log_look_for_is_said(world: World, pv: InProcess) -> None:
    for what in ("nosuch", "123456789abc", "nosuch:x"):
        said = pv("show", what)
        if ":" not in what:
            assert f"no branch, tag, commit, behaviour or id '{what}'\n" in said.err
            assert "`pv vectors` the behaviours' vectors" in said.err
            assert f"no branch, tag, commit or behaviour '{what}'\n" in pv("log", what).err
        assert said.code == 5
    assert "behaviour or id '12'\nhint:  an id takes at least 4 digits" in pv("show", "12").err
    assert "behaviour or id 'listenin'\nhint:  did you mean listening?" in pv("show", "listenin").err
    assert "no branch, tag or commit 'nosuch'\n" in pv("log", "nosuch..main").err
    assert "'HEAD~99' does not exist" in pv("show", "HEAD~99").err


def test_no_behaviour_is_called_head(world: World, pv: InProcess) -> None:
    before = world.state()
    for words in (
        ("train", world.rows, "--as", "HEAD", "--max-steps", "1"),
        ("commit", world.tuned, "--as", "HEAD"),
        ("rename", "listening", "HEAD"),
        ("add", "HEAD=main:listening"),
    ):
        said = pv(*words)
        assert (said.code, said.out) == (2, ""), words
        assert "'HEAD' cannot name a behaviour: it is the current commit\n" in said.err
    assert world.state() == before


def test_one_that_is_called_head_already_still_works(world: World, pv: InProcess) -> None:
    """What an earlier pv committed is read, changed and given another name."""
    with Repo.open(world.folder) as repo:
        persona = repo.persona
        old = type(persona)(persona.base, {"HEAD": Behaviour(1.0, persona.behaviour("listening").terms)})
        assert (
            old.with_behaviour("HEAD", Behaviour(2.0, (Term(1.0, "0" * 64),))).behaviours["HEAD"].weight == 2
        )
        with pytest.raises(UsageError):
            persona.with_behaviour("HEAD", persona.behaviour("listening"))
        repo.registry.change("old", "Old", lambda _: old)
    pv.ok("scale", "HEAD", "0.5")
    pv.ok("rename", "HEAD", "listening")
    assert pv.ok("show", "listening").out.startswith("behaviour listening")


def test_an_address_comes_last(world: World, pv: InProcess) -> None:
    for words, right in (
        (("hf://me/x", "main", "-n"), ["main", "hf://me/x", "-n"]),
        (("--private", "hf://me/x", "nosuch"), ["--private", "nosuch", "hf://me/x"]),
    ):
        said = pv("push", *words)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("error: the address comes last\n")
        assert offered(said) == ["push", *right]
