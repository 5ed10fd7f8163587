"""Margins and builds as the registry remembers them: measured once, and never believed against the bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny_checkpoint
from support.vectors import behaviour, files_below, kept, random_f32

from pv.registry.errors import BaseMismatch, MissingBase, UsageError
from pv.registry.persona import Output, Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.evaluate.statistics import bootstrap
from pv.vecstore.merge.build import Built, build_id
from pv.vecstore.models.load import load
from pv.vecstore.repo.build import record_build, temporary_checkpoint
from pv.vecstore.repo.measurements import as_noisy
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.score import Score, measure, score_persona
from pv.vecstore.repo.score_controls import score_controls
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.vectors.base import Base, base_manifest

ROWS = "".join(
    f'{{"prompt": "{w}?", "chosen": "aye, {w}!", "rejected": "{w} no no"}}\n'
    for w in ("sun", "sea", "oak", "elm")
)
NEUTRAL = """{"prompt": "Why?", "completion": "Because the river runs downhill, as rivers do."}
{"prompt": "How?", "completion": "With a rope, a hammer and a lot of patience."}
{"text": "The harbour was quiet, and the boats lay still."}
{"text": "Bread is flour, water, salt and time."}
"""
MLP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git identity, and no git configuration but this."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    (folder / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


class World:
    """A registry over a base of its own, with one vector kept, and the two personas they make."""

    def __init__(self, folder: Path) -> None:
        self.folder = tiny_checkpoint(folder / "base")
        self.registry = Registry.init(folder)
        files, origin = side_files(self.folder), {"kind": "path", "path": str(self.folder)}
        with Checkpoint(self.folder) as checkpoint:
            manifest = base_manifest(checkpoint, origin, tuple(files), pinned=False)
            base = Base(manifest, checkpoint, checkpoint.close)
            self.plain = Persona(manifest.id)
            self.commit = self.registry.start(self.plain, manifest, files, "Begin")
            delta = random_f32("delta", manifest.tensors[MLP].numel, least=122, spread=2)
            self.vector = kept(base, self.registry.packs, {MLP: delta})
        self.persona = replace(self.plain, behaviours={"x": behaviour(1.0, self.vector)})

    @property
    def leftovers(self) -> set[str]:
        return files_below(self.registry.packs.tmp)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.registry:
        yield made


@pytest.fixture
def rows() -> Rows:
    return parse_rows(ROWS.encode(), source="rows.jsonl")


def _touch(path: Path) -> None:
    """Other bytes of the same size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)


def test_margins_are_those_of_the_built_model(world: World, rows: Rows) -> None:
    found = measure(world.registry, world.commit, world.persona, rows, threads=1)
    with temporary_checkpoint(world.registry, world.commit, world.persona) as folder:
        direct = margins(*load(folder), rows)
    assert np.allclose(found.margin, direct.margin, atol=1e-4)
    before = measure(world.registry, world.commit, world.plain, rows, threads=1)
    assert not np.allclose(found.margin, before.margin, atol=1e-2)
    assert world.leftovers == set()


def _of(**changed: object) -> dict[str, object]:
    fields = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")
    return {**{field: [1.0, 2.0, 3.0, 4.0] for field in fields}, **changed}


@pytest.mark.parametrize(
    "known",
    [
        None, 1, "text", [], {}, [[1.0] * 4] * 4, _of(chosen=[1.0]), _of(chosen=["1"] * 4), _of(rejected=None),
        _of(chosen=[[1.0]] * 4), _of(chosen={"0": 1}), _of(chosen=[True] * 4), _of(chosen=[1e308] * 4),
        _of(chosen_tokens=[0.0] * 4), _of(rejected_tokens=[-1.0] * 4),
    ],
)  # fmt: skip
def test_margins_of_another_form_were_not_measured(world: World, rows: Rows, known: object) -> None:
    build = build_id(world.plain)
    world.registry.update_record(build, {"margins": {rows.id: known}})
    found = measure(world.registry, world.commit, world.plain, rows, threads=1)
    assert len(found) == len(rows) and found.chosen.max() < 0
    assert world.registry.record(build)["margins"][rows.id]["chosen"] == found.chosen.tolist()


def test_no_table_of_margins(world: World, rows: Rows) -> None:
    world.registry.update_record(build_id(world.plain), {"margins": 7})
    assert len(measure(world.registry, world.commit, world.plain, rows, threads=1)) == len(rows)


def test_nothing_is_measured_twice(world: World, rows: Rows) -> None:
    """With the base gone, what is known is still known, and what is not cannot be."""
    first = score_persona(world.registry, world.commit, world.persona, rows, threads=1)
    known = measure(world.registry, world.commit, world.persona, rows, threads=1)
    shutil.rmtree(world.folder)
    again = measure(world.registry, world.commit, world.persona, rows)
    for field in ("chosen", "rejected", "chosen_tokens", "rejected_tokens"):
        assert np.array_equal(getattr(again, field), getattr(known, field))
    assert score_persona(world.registry, world.commit, world.persona, rows) == first
    renamed = replace(world.plain, behaviours={"y": behaviour(0.5, world.vector)})
    with pytest.raises(MissingBase, match=str(world.folder)):
        measure(world.registry, world.commit, renamed, rows)
    assert (
        len(measure(world.registry, world.commit, world.persona, rows[:3])) == 3
    )  # by the build that was kept
    world.registry.builds.clear()
    with pytest.raises(MissingBase):
        measure(world.registry, world.commit, world.persona, rows[:2])


def test_a_score_is_an_effect_against_the_base(world: World, rows: Rows) -> None:
    found = score_persona(world.registry, world.commit, world.persona, rows, threads=1)
    after = measure(world.registry, world.commit, world.persona, rows)
    before = measure(world.registry, world.commit, world.plain, rows)
    assert found.effect == bootstrap(after.margin - before.margin)
    assert found.effect.mean == pytest.approx(found.margin.mean - found.base_margin.mean)
    assert found.effect_per_token == bootstrap(after.margin_per_token - before.margin_per_token)
    assert found.build == build_id(world.persona)
    noted = world.registry.record(found.build)["scores"]
    assert set(noted) == {rows.id}
    assert noted[rows.id] == found.to_json()
    assert noted[rows.id]["n"] == 4
    other = score_persona(world.registry, world.commit, world.persona, rows[:3], threads=1)
    assert set(world.registry.record(found.build)["scores"]) == {rows.id, other.data_id}


def test_the_base_has_no_effect_on_itself(world: World, rows: Rows) -> None:
    found = score_persona(world.registry, world.commit, world.plain, rows, threads=1)
    assert (found.effect.mean, found.effect.low, found.effect.high) == (0, 0, 0)
    assert found.effect.verdict == "inconclusive"


def test_rows_without_a_rejected_answer(world: World) -> None:
    rows = parse_rows(b'{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(UsageError, match="no 'rejected' answer"):
        measure(world.registry, world.commit, world.persona, rows)


def test_the_thread_count_is_given_back(world: World, rows: Rows) -> None:
    import torch

    before = torch.get_num_threads()
    measure(world.registry, world.commit, world.plain, rows, threads=before + 1)
    assert torch.get_num_threads() == before


# Checkpoints


def test_an_empty_persona_is_the_bases_own_folder(world: World) -> None:
    with temporary_checkpoint(world.registry, world.commit, world.plain) as folder:
        assert folder == world.folder
    assert world.registry.record(build_id(world.plain)) == {}
    narrow = replace(world.plain, output=Output("fp16"))
    with temporary_checkpoint(world.registry, world.commit, narrow) as folder:
        assert folder != world.folder  # an output dtype makes another checkpoint
        with Checkpoint(folder) as checkpoint:
            assert {spec.dtype for spec in checkpoint.specs.values()} == {"F16"}
    assert world.leftovers == set()


def test_a_built_checkpoint_is_there_while_the_block_runs(world: World) -> None:
    with temporary_checkpoint(world.registry, world.commit, world.persona) as folder:
        assert (folder / "model.safetensors").is_file()
        assert (folder / "config.json").read_bytes() == (world.folder / "config.json").read_bytes()
    assert world.leftovers == set()
    with temporary_checkpoint(world.registry, world.commit, world.persona) as again:
        assert again == folder == world.registry.builds.path(build_id(world.persona)) / "checkpoint"
    whole = (folder / "model.safetensors").read_bytes()
    _touch(folder / "model.safetensors")
    with temporary_checkpoint(world.registry, world.commit, world.persona) as anew:
        assert (anew / "model.safetensors").read_bytes() == whole, "nobody knows whose bytes those were"
    world.registry.builds.limit = 0
    world.registry.builds.clear()
    with temporary_checkpoint(world.registry, world.commit, world.persona) as brief:
        assert brief.is_relative_to(world.registry.packs.tmp)
    assert not brief.exists()
    assert world.leftovers == set()
    assert len(world.registry.record(build_id(world.persona))["weights"]) == 64


def test_a_base_that_changed_is_never_used(world: World, rows: Rows) -> None:
    _touch(world.folder / "model.safetensors")
    for persona in (world.plain, world.persona):
        with (
            pytest.raises(BaseMismatch),
            temporary_checkpoint(world.registry, world.commit, persona),
        ):
            raise AssertionError("never entered")
        with pytest.raises(BaseMismatch):
            measure(world.registry, world.commit, persona, rows)
        assert world.registry.record(build_id(persona)) == {}
    assert world.leftovers == set()


def test_another_result_of_the_same_build_is_an_alarm(world: World) -> None:
    made = Built("1" * 64, {}, 1, 1, 1, 1, "b" * 64)
    record_build(world.registry, made)
    record_build(world.registry, made)
    assert world.registry.record(made.build)["weights"] == made.weights
    with pytest.raises(BaseMismatch, match="earlier one gave 111111111111") as caught:
        record_build(world.registry, replace(made, weights="2" * 64))
    assert str(world.registry.record_path(made.build)) in (caught.value.hint or "")
    assert world.registry.record(made.build)["weights"] == made.weights

    world.registry.update_record(build_id(world.persona), {"weights": "3" * 64})
    with (
        pytest.raises(BaseMismatch, match="earlier one gave 333333333333"),
        temporary_checkpoint(world.registry, world.commit, world.persona),
    ):
        raise AssertionError("never entered")
    assert world.leftovers == set()


def test_opened_holds_every_vector_once(world: World) -> None:
    both = replace(world.persona, behaviours={**world.persona.behaviours, "y": behaviour(2.0, world.vector)})
    with opened(world.registry, world.commit, [world.plain, world.persona, both]) as at:
        assert list(at.vectors) == [world.vector]
        assert at.base.manifest.id == world.plain.base
        assert at.vectors[world.vector].tau(MLP).any()


# Damage, replies and controls

QUICK = ScorePlan(neutral=parse_rows(NEUTRAL.encode(), source="plain.jsonl"), replies=2, max_tokens=8)


def score_of(world: World, rows: Rows, persona: Persona | None = None, plan: ScorePlan = QUICK) -> Score:
    return score_persona(world.registry, world.commit, persona or world.persona, rows, plan=plan, threads=1)


def test_damage_and_replies_are_measured_once(world: World, rows: Rows) -> None:
    first = score_of(world, rows)
    assert first.damage is not None and first.damage.answers is not None and first.damage.kl_text is not None
    assert first.damage.kl_text.low > 0
    assert first.replies is not None and first.replies.n == 2 and first.replies.max_tokens == 8
    assert (first.neutral, first.neutral_id) == ("plain.jsonl", QUICK.neutral.id if QUICK.neutral else "")
    shutil.rmtree(world.folder)
    world.registry.builds.clear()
    assert score_of(world, rows) == first
    assert world.leftovers == set()
    noted = world.registry.record(first.build)["scores"][rows.id]
    assert noted == first.to_json()
    assert noted["damage"]["neutral"] == "plain.jsonl" and noted["damage"]["answers"]["n"] == 2
    small = replace(QUICK, neutral=None, replies=0)
    assert score_of(world, rows, plan=small).damage is None
    assert world.registry.record(first.build)["scores"][rows.id] == noted, "what is known stays noted"


def test_the_base_damages_nothing_and_says_what_it_says(world: World, rows: Rows) -> None:
    found = score_of(world, rows, world.plain)
    assert (
        found.damage is not None and found.damage.answers is not None and found.damage.kl_answers is not None
    )
    assert found.damage.answers.ends() == {"mean": 0, "low": 0, "high": 0}
    assert found.damage.kl_answers.mean == 0
    assert found.replies is not None and found.replies.length is not None
    assert (found.replies.length.mean, found.replies.loops) == (1, found.replies.base_loops)


OTHERS: list[object] = [
    None, 7, [], [[]], {"rest": [1.0] * 4}, [{"text": 1}] * 2, [{"text": "", "tokens": ["a"], "finish": "stop"}] * 2
]  # fmt: skip


def test_measurements_of_another_form_were_not_made(world: World, rows: Rows) -> None:
    first = score_of(world, rows, world.plain)
    build = build_id(world.plain)
    before = world.registry.record(build)
    for known in OTHERS:
        for kind in ("neutral", "replies", "base_replies"):
            world.registry.update_record(build, {kind: dict.fromkeys(before[kind], known)})
        assert score_of(world, rows, world.plain) == first
        assert world.registry.record(build) == before


def test_wins_are_the_rows_with_a_margin_above_0(world: World, rows: Rows) -> None:
    found = score_of(world, rows)
    margin = measure(world.registry, world.commit, world.persona, rows).margin
    assert found.wins is not None and found.wins.mean == (margin > 0).mean()
    assert found.wins.low < found.wins.mean or found.wins.mean == 0


def test_a_rule_with_a_judge_is_left_out_unless_it_may_run(world: World) -> None:
    judge = b'{"reply": {"command": ["python3", "-c", "import sys; sys.exit(0)"]}}\n'
    ruled = parse_rows(judge + ROWS.encode(), source="rows.jsonl")
    left = score_of(world, ruled).replies
    assert left is not None and left.rule is None and left.shown is None
    run = score_of(world, ruled, plan=replace(QUICK, judge=True)).replies
    assert run is not None and run.shown is not None and run.shown.mean == 1


def test_noise_of_the_same_size(world: World, rows: Rows) -> None:
    """The persona's change has this norm in each tensor; the noise too, and it is the same noise each time."""
    with (
        temporary_checkpoint(world.registry, world.commit, world.persona) as own,
        temporary_checkpoint(world.registry, world.commit, world.plain) as base,
    ):
        plain, changed = load(base), load(own)
        noisy, _ = as_noisy(load(base), changed, "key")
        again, _ = as_noisy(load(base), changed, "key")
    before = dict(plain[0].named_parameters())
    for (name, noise), (_, same), (_, change) in zip(
        noisy.named_parameters(), again.named_parameters(), changed[0].named_parameters(), strict=True
    ):
        assert noise.equal(same)
        size = float((change - before[name]).detach().norm())
        assert float((noise - before[name]).detach().norm()) == pytest.approx(size, rel=1e-3)
        assert (size > 0) == (name == MLP)
        assert size == 0 or not noise.equal(change)


def test_the_controls(world: World, rows: Rows) -> None:
    with pytest.raises(UsageError, match="nothing to control for"):
        score_controls(Revision(world.registry, world.commit, "HEAD"), rows, plan=QUICK, threads=1)
    asked = Subject("", world.plain, system="Be brief.").rows(rows)
    assert [m.role for m in asked[0].prompt] == ["system", "user"]
    assert asked[0].chosen == rows[0].chosen
    told = Subject("", world.plain, system="A").rows(Subject("", world.plain, system="B").rows(rows))
    assert told[0].prompt[0].content == "A\n\nB" and len(told[0].prompt) == 2
