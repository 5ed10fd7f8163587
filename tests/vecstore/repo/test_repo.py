"""Repo and Revision: what a verb changes, what it gives back, and how it draws itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.commands import isolate
from support.vectors import nudged, read_all, save, small_base, values

import pv
from pv.registry.conflict import Conflict
from pv.registry.errors import BaseMismatch
from pv.vecstore.repo.edit import Committed

TUNED = nudged(small_base(), 3)
UP = "model.layers.0.mlp.up_proj.weight"
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pv.Repo]:
    """On `small_base`, with one behaviour, `x`, captured from TUNED."""
    isolate(tmp_path, monkeypatch)
    base = save(tmp_path / "base", small_base())
    with pv.init(tmp_path / "repo", base=base, threads=1) as made:
        made.commit(save(tmp_path / "tuned", TUNED), name="x", threads=1)
        yield made


def built(repo: pv.Repo, folder: Path) -> dict[str, np.ndarray]:
    repo.at().build(folder, dtype="fp32", threads=1)
    return {name: values(array) for name, array in read_all(folder).items() if array.dtype == "F32"}


def test_a_relative_path_holds_when_the_folder_is_left(
    repo: pv.Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo.path)
    with pv.open(".") as same, pv.open("~/repo") as again:
        monkeypatch.chdir("/")
        assert same.path == repo.path == again.path
        assert same.scale("x", 2).commit == repo.head.commit


def test_module_factors_scale_what_matches_and_nothing_else(repo: pv.Repo, tmp_path: Path) -> None:
    base = {name: values(small_base()[name]) for name in (UP, Q)}
    half = repo.scale("x", 1, modules={"*.mlp.*": 0, "*.layers.0.*": 0.5})
    assert half.persona.behaviours["x"].modules == {"*.mlp.*": 0, "*.layers.0.*": 0.5}
    found = built(repo, tmp_path / "half")
    assert np.array_equal(found[UP], base[UP])
    assert np.array_equal(found[Q], base[Q] + np.float32(0.5) * (values(TUNED[Q]) - base[Q]))
    assert repo.scale("x", 2).persona.behaviours["x"].modules is not None, "a weight leaves the factors alone"
    assert repo.scale("x", 1, modules={}).persona.behaviours["x"].modules is None
    assert np.array_equal(built(repo, tmp_path / "whole")[UP], values(TUNED[UP]))
    with pytest.raises(pv.UsageError, match="no tensor of the base matches 'mlp'"):
        repo.scale("x", 1, modules={"mlp": 0.5})


def test_the_merge_method_is_set_and_can_be_taken_back(repo: pv.Repo) -> None:
    before = repo.persona
    assert repo.combine("ties", density=0.5).persona.combine.options["density"] == 0.5
    assert repo.combine("ties", preset="mergekit").persona.combine.options["elect"] == "weighted"
    assert repo.combine(pv.Combine.of("add")).persona == before
    with pytest.raises(pv.UsageError, match="no option 'density'"):
        repo.combine("add", density=0.5)
    with pytest.raises(pv.UsageError, match="no combine method"):
        repo.combine("svd")
    repo.undo()
    assert repo.persona.combine.method == "ties"
    repo.redo()
    assert repo.persona == before


def test_output_is_checked_and_kept(repo: pv.Repo) -> None:
    made = repo.output(dtype="fp16", rounding="nearest", seed=7)
    assert made.persona.output == pv.Output("fp16", "nearest", 7)
    assert repo.output(seed=8).persona.output == pv.Output("fp16", "nearest", 8)
    for wrong in ({"dtype": "int4"}, {"rounding": "up"}, {"seed": -1}):
        before = repo.head
        with pytest.raises(pv.PvError):
            repo.output(**wrong)
        assert repo.head == before


def test_a_task_vector_is_what_was_captured(repo: pv.Repo) -> None:
    base = small_base()
    repo.scale("x", -3)  # which tau does not depend on
    with repo.at().vector("x") as vector:
        assert vector.shapes[UP] == base[UP].shape and vector.encodings == ("exact",)
        assert list(vector.shapes) == sorted(vector.shapes)
        tau = vector.tau(UP)
        assert tau.dtype == np.float32 and tau.shape == base[UP].shape
        assert np.array_equal(tau.ravel(), values(TUNED[UP]) - values(base[UP]))
        frozen = next(name for name in base if name not in vector.shapes)
        assert not vector.tau(frozen).any()
        assert [p.to_json()["kind"] for p in vector.provenance()] == ["captured"]
        with pytest.raises(pv.UsageError, match="no tensor 'nothing'"):
            vector.tau("nothing")
    with pytest.raises(pv.UsageError, match="is closed"):
        vector.tau(UP)
    with pytest.raises(pv.UnknownBehaviour):
        repo.at().vector("y")


def test_a_revision_does_not_move(repo: pv.Repo) -> None:
    rev = repo.at("HEAD")
    repo.drop("x")
    assert rev.persona.behaviours.keys() == {"x"} and not repo.persona.behaviours
    assert rev == repo.at("HEAD~1") and hash(rev) == hash(repo.at("HEAD~1")) and rev != repo.at()
    assert repo.at().parents == (rev.commit,)
    assert repo.revert("HEAD").persona == rev.persona


def test_every_verb_that_commits_says_what_it_did(repo: pv.Repo) -> None:
    """As a value that cannot be changed, whose JSON has the commit, and the persona as it is there."""
    repo.branch("other", switch=True)
    repo.scale("x", 0.5)
    repo.switch("main")
    verbs: tuple[Callable[[], Committed], ...] = (
        lambda: repo.scale("x", 2),
        lambda: repo.negate("x"),
        lambda: repo.add("x", "other", name="y", weight=3),
        lambda: repo.combine("ties"),
        lambda: repo.output(seed=1),
        lambda: repo.combine("add"),
        lambda: repo.merge("other", take={"x": 4.0}),
        lambda: repo.drop("y"),
        lambda: repo.revert("HEAD"),
        lambda: repo.cherry_pick("HEAD~1"),
    )
    for verb in verbs:
        before, made = repo.head.commit, verb()
        assert repo.at().parents[0] == before
        assert made.commit == repo.head.commit and made.persona == repo.persona
        assert made.to_json()["persona"] == repo.persona.to_json()
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.commit = ""  # type: ignore[misc]
    assert repo.persona.behaviours["x"].weight == 4


def test_a_conflict_has_both_sides(repo: pv.Repo) -> None:
    repo.branch("other", switch=True)
    repo.scale("x", 0.5)
    repo.switch("main")
    repo.scale("x", 2)
    before = repo.head
    with pytest.raises(pv.ConflictError) as caught:
        repo.merge("other")
    (conflict,) = caught.value.conflicts
    assert isinstance(conflict, Conflict)
    assert conflict.name == "x" and conflict.ours.weight == 2 and conflict.theirs.weight == 0.5
    assert repo.head == before
    assert repo.merge("other", take={"x": "theirs"}).persona.behaviours["x"].weight == 0.5


def test_another_base_is_refused(repo: pv.Repo, tmp_path: Path) -> None:
    other = save(tmp_path / "other", {**small_base(), "more": small_base()[UP]})
    with pytest.raises((pv.CheckpointRefused, BaseMismatch)):
        repo.commit(other, name="x")


def test_progress_says_stage_and_unit(repo: pv.Repo, tmp_path: Path) -> None:
    ticks: list[pv.Tick] = []
    repo.at().build(tmp_path / "out", progress=ticks.append)
    assert ticks[0] == pv.Tick("building", 0, 0) and ticks[-1].done == ticks[-1].total > 0


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(pv.NotARegistry) as caught:
        pv.open(tmp_path)
    assert "pv init" in (caught.value.hint or "")
    with pytest.raises(pv.PvError):
        pv.init(tmp_path / "new", base=tmp_path / "no base")
    assert not (tmp_path / "new" / ".pv").exists()


# What could not be read again is not written


@pytest.mark.parametrize("weight", [1e31, float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_no_document_may_have(repo: pv.Repo, tmp_path: Path, weight: float) -> None:
    before, other = repo.head, save(tmp_path / "other", nudged(small_base(), 9))
    verbs: tuple[Callable[[], object], ...] = (
        lambda: repo.scale("x", weight),
        lambda: repo.scale("x", 1, modules={"*": weight}),
        lambda: repo.add("x", "HEAD", name="y", weight=weight),
        lambda: repo.commit(other, name="y", weight=weight),
    )
    for verb in verbs:
        with pytest.raises(pv.UsageError):
            verb()
    assert repo.head == before and repo.fsck().clean


def test_patterns_and_rules_that_no_document_may_have(repo: pv.Repo, tmp_path: Path) -> None:
    before = repo.head
    repo.branch("other")
    verbs: tuple[Callable[[], object], ...] = (
        lambda: repo.scale("x", 1, modules={"*" * 300: 0.5}),
        lambda: repo.scale("x", 1, modules={"*" * n: 1e6 for n in range(1, 60)}),
        lambda: repo.combine(pv.Combine("nope")),
        lambda: repo.combine(pv.Combine("ties", {"density": 7})),
        lambda: repo.combine(pv.Combine.of("ties"), density=0.5),
        lambda: repo.merge("other", rule=pv.Combine("nope")),
        lambda: repo.merge("other", rule="ties"),  # there is nothing to merge, so nothing to combine
        lambda: repo.at().build(tmp_path / "out", dtype="zz"),
        lambda: repo.at().plan_build(tmp_path / "out", rounding="zz"),
        lambda: repo.compress("x", "int8", threads=-1),
        lambda: repo.at().build(tmp_path / "out", threads=float("nan")),  # type: ignore[arg-type]
        lambda: repo.output(seed=-1),
        lambda: repo.train(pv.Rows(()), name="y", epochs=1.5),
        lambda: repo.train(pv.Rows(()), name="y", seed=2**70),
        lambda: repo.compress("x", keep=95.0, data=pv.Rows(())),
        lambda: repo.gc(grace_days=-1),
        lambda: repo.gc(expire_days=float("inf")),
        lambda: repo.train(pv.Rows((pv.Row((pv.Message("user", "a"),), "b"),)), name="y", encoding="bogus"),
    )
    for verb in verbs:
        with pytest.raises(pv.UsageError):
            verb()
    assert repo.head == before and repo.fsck().clean
    with pytest.raises(pv.UsageError):
        pv.init(tmp_path / "new", base=tmp_path / "base", output=pv.Output("zz"))
    assert not (tmp_path / "new" / ".pv").exists()


def test_a_value_stays_as_it_is(repo: pv.Repo) -> None:
    repo.combine("ties", lambda_=0.5)
    rev = repo.at()
    assert rev.persona.combine.options["lambda"] == 0.5
    with pytest.raises(TypeError):
        rev.persona.combine.options["density"] = 9  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        rev.commit = "0" * 40  # type: ignore[misc]


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (pv.Row("a prompt", "b", "c"),),  # type: ignore[arg-type]
        (pv.Row((pv.Message("robot", "a"),), "b", "c"),),  # type: ignore[arg-type]
        (pv.Row((pv.Message("user", "a"),), ""),),
    ],
)
def test_rows_made_here_are_held_to_what_a_file_is(repo: pv.Repo, rows: tuple[pv.Row, ...]) -> None:
    with pytest.raises(pv.DataError):
        repo.train(pv.Rows(rows), name="y", held_out=None)
    with pytest.raises(pv.DataError):
        repo.at().score(pv.Rows(rows))


# Two at once


def test_a_name_that_another_committed_meanwhile(repo: pv.Repo, tmp_path: Path) -> None:
    """What was committed while the capture ran is in the history; whoever replaced it is told so."""
    mine, theirs = (save(tmp_path / str(seed), nudged(small_base(), seed)) for seed in (5, 6))
    second: list[str] = []

    def meanwhile(tick: pv.Tick) -> None:
        if tick.stage == "capturing" and not second:
            second.append("")
            with pv.open(repo.path) as other:
                second[0] = other.commit(theirs, name="y", weight=0.25, threads=1).commit

    made = repo.commit(mine, name="y", threads=1, progress=meanwhile)
    assert repo.at().parents == (second[0],)
    assert made.notes == (
        f"y was committed by another process too, and this replaces it: "
        f"what was committed meanwhile is in {second[0][:12]}",
    )
    assert repo.at("HEAD~1").persona.behaviours["y"].weight == 0.25


def test_the_same_was_committed_by_another_meanwhile(repo: pv.Repo, tmp_path: Path) -> None:
    same = save(tmp_path / "same", nudged(small_base(), 5))
    done: list[str] = []

    def meanwhile(tick: pv.Tick) -> None:
        if tick.stage == "capturing" and not done:
            done.append("")
            with pv.open(repo.path) as other:
                done[0] = other.commit(same, name="y", threads=1).commit

    with pytest.raises(pv.UsageError, match="nothing changed: y is vector"):
        repo.commit(same, name="y", threads=1, progress=meanwhile)
    assert repo.head.commit == done[0]


# How values draw themselves


class Balanced(HTMLParser):
    """Holds a fragment to: every tag that is opened is closed, in order; keeps the text, and the tags' names."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.feed(fragment)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


PLAIN = {"div", "strong", "span", "table", "thead", "tbody", "tr", "th", "td", "p"}


def test_what_draws_itself_shows_what_it_is(repo: pv.Repo) -> None:
    repo.scale("x", 0.5, modules={"*.mlp.*": 0.25})
    drawn = {
        thing.__class__.__name__: Balanced(thing._repr_html_())
        for thing in (repo, repo.at(), repo.diff(weights=True))
    }
    for page in drawn.values():
        assert page.tags <= PLAIN
    assert "Scale x to 0.5, with module factors" in drawn["Repo"].text
    assert "x" in drawn["Revision"].text and any("*.mlp.* × 0.25" in text for text in drawn["Revision"].text)
    assert any("mlp.up_proj" in text for text in drawn["Diff"].text)
    assert "no difference" in Balanced(repo.diff("HEAD", "HEAD")._repr_html_()).text


def test_what_strangers_wrote_is_text(repo: pv.Repo) -> None:
    """A pattern, a message: whoever opens the repository in a notebook runs nothing of it."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"

    def edit(persona: pv.Persona) -> pv.Persona:
        known = persona.behaviour("x")
        return persona.with_behaviour("x", dataclasses.replace(known, modules={evil: 0.5}))

    repo.registry.change("evil", evil, edit)
    for thing in (repo, repo.at(), repo.diff(weights=False)):
        page = Balanced(thing._repr_html_())
        assert page.tags <= PLAIN
        assert any("<script>" in text for text in page.text), "it is shown, as text"


def test_a_score_draws_its_intervals() -> None:
    from pv.vecstore.evaluate.statistics import Interval

    effect = Interval(1.5, 1.25, 1.75, 4)
    page = Balanced(pv.Score("<b>rows", "d" * 64, "b" * 64, effect, effect, effect, effect)._repr_html_())
    assert page.tags <= PLAIN
    assert "+1.50 [+1.25, +1.75]" in page.text and any("<b>rows, n=4" in text for text in page.text)
