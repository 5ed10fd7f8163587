"""`pv commit` is not fooled: builds, fine-tunes of builds, adapters of another model; --on, and what it gives."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import InProcess, World, tensors, write_rows, write_tensors

from pv.registry.errors import UsageError
from pv.registry.persona import Persona, Term
from pv.vecstore.progress import Tick
from pv.vecstore.repo.repo import Repo


def tune(source: Path, to: Path, *, seed: int = 5, by: float = 3e-4, wide: bool = False) -> Path:
    """A fine-tune of the checkpoint in `source`: each of its weights moved by about so much."""
    shutil.copytree(source, to)
    (to / "persona.json").unlink(missing_ok=True)
    random, table = np.random.default_rng(seed), tensors(source)
    for name, (dtype, shape, raw) in table.items():
        old = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16 if dtype == "BF16" else None
        before = np.frombuffer(raw, np.float32) if old is None else old.view(np.float32)
        after = (before + random.standard_normal(before.size) * by).astype(np.float32)
        half = ((after.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
        keeps_fp32 = wide or dtype == "F32"
        table[name] = ("F32", shape, after.tobytes()) if keeps_fp32 else (dtype, shape, half.tobytes())
    write_tensors(to / "model.safetensors", table)
    return to


@pytest.fixture
def two(world: World, pv: InProcess) -> World:
    """`listening` is trained, `style` captured from a checkpoint; a tag `both`. On main listening alone is left."""
    pv.ok("commit", world.tuned, "--as", "style")
    pv.ok("tag", "both")
    pv.ok("drop", "style")
    return world


def built(pv: InProcess, folder: Path, revision: str = "HEAD", *options: str) -> Path:
    pv.ok("build", revision, "-o", folder, *options)
    return folder


# A build is no behaviour


def test_a_build_is_refused(two: World, pv: InProcess, tmp_path: Path) -> None:
    before = pv.ok("log", "--all", "--json").out
    for revision, held in (("both", "listening, style"), ("HEAD", "listening"), ("both~1", "listening")):
        folder = built(pv, tmp_path / revision, revision)
        said = pv("commit", folder, "--as", "more")
        assert said.code == 2 and f"it would count {held} twice" in said.err, said
        way_out = "pv add style=both:style" if revision == "both" else "HEAD has listening already"
        assert "is the build of " in said.err and way_out in said.err
    shutil.rmtree(two.folder / ".pv" / "records")  # not recorded here: made elsewhere, or pulled
    said = pv("commit", tmp_path / "both", "--as", "more")
    assert said.code == 2 and "is the build of both (" in said.err
    assert pv.ok("log", "--all", "--json").out == before
    assert list((two.folder / ".pv" / "tmp").iterdir()) == []
    pv.ok("commit", tmp_path / "both", "--as", "more", "--force")


def test_a_build_that_is_computed_again_says_how_far_it_is(two: World, pv: InProcess, tmp_path: Path) -> None:
    folder = built(pv, tmp_path / "out", "both")
    shutil.rmtree(two.folder / ".pv" / "records")
    ticks: list[Tick] = []
    with Repo.open(two.folder) as repo, pytest.raises(UsageError, match="is the build of both"):
        repo.commit(folder, name="more", threads=1, progress=ticks.append)
    found = [tick for tick in ticks if tick.stage == "computing the build of both"]
    assert found[-1].done == found[-1].total > 0


def test_what_to_do_instead_of_a_build_can_be_typed(two: World, pv: InProcess, tmp_path: Path) -> None:
    said = pv("commit", built(pv, tmp_path / "out", "both"), "--as", "more")
    words = said.err.partition("pv add ")[2].partition("`")[0]
    assert words == "style=both:style", "of what HEAD has not"
    pv.ok("add", words)


def test_the_build_of_a_behaviour_alone_is_that_behaviour(world: World, pv: InProcess) -> None:
    pv.ok("drop", "listening")
    pv.ok("commit", world.tuned, "--as", "style")
    assert "nothing changed: style is vector" in pv("commit", world.tuned, "--as", "style").err
    said = pv("commit", world.tuned, "--as", "copy")
    assert said.code == 2 and "would count style twice" in said.err


# A fine-tune of a build


@pytest.mark.parametrize("how", ["plain", "wide", "nearest", "fp32", "slight", "strong"])
def test_a_fine_tune_of_a_build_is_refused(two: World, pv: InProcess, tmp_path: Path, how: str) -> None:
    options = {"nearest": ["--rounding", "nearest"], "fp32": ["--dtype", "fp32"]}.get(how, [])
    by = {"slight": 1e-5, "strong": 1e-3}.get(how, 3e-4)
    folder = built(pv, tmp_path / "out", "both", *options)
    folder = tune(folder, tmp_path / "tuned", by=by, wide=how == "wide")
    said = pv("commit", folder, "--as", "more")
    assert said.code == 2, said
    assert "was fine-tuned from the build of both (" in said.err
    assert f"pv commit {folder} --on both --as more" in said.err and "--force" in said.err
    pv.ok("commit", folder, "--on", "both", "--as", "more")


def test_what_was_trained_apart_is_taken(two: World, pv: InProcess, tmp_path: Path) -> None:
    assert pv.ok("commit", tune(two.base, tmp_path / "a"), "--as", "other", "--json").json["notes"] == []
    pv.ok("commit", tune(two.base, tmp_path / "b", seed=6), "--as", "other")  # its next version
    rows = write_rows(tmp_path / "rows.jsonl", answer="No")
    pv.ok("switch", "-c", "side", "HEAD~3")
    pv.ok("train", rows, "--as", "no", "--max-steps", "2", "--threads", "1", "--held-out", "none")


def test_what_holds_all_of_a_behaviour_and_more_is_no_build(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    """Where the behaviour moves anything, it is the build bit for bit; elsewhere it was tuned."""
    table, few = tensors(world.tuned), tmp_path / "few"
    shutil.copytree(world.base, few)
    half = dict(sorted(table.items())[: len(table) // 2])
    write_tensors(few / "model.safetensors", {**tensors(world.base), **half})
    pv.ok("drop", "listening")
    pv.ok("commit", few, "--as", "few")
    said = pv("commit", world.tuned, "--as", "more")
    assert said.code == 2 and "was fine-tuned from the build of HEAD (" in said.err
    pv.ok("commit", world.tuned, "--on", "HEAD", "--as", "more")


def test_the_next_version_of_a_behaviour_may_come_from_its_build(
    two: World, pv: InProcess, tmp_path: Path
) -> None:
    pv.ok("switch", "-c", "alone", "HEAD~2")
    further = tune(built(pv, tmp_path / "out"), tmp_path / "further")
    pv.ok("commit", further, "--as", "listening")
    assert "would count listening twice" in pv("commit", further, "--as", "more").err


def test_damage_elsewhere_keeps_nobody_from_committing(two: World, pv: InProcess, tmp_path: Path) -> None:
    (vector,) = pv.ok("show", "both", "--json").json["persona"]["behaviours"]["style"]["terms"]
    pack = two.folder / ".pv" / "packs" / vector[1][:2] / vector[1]
    whole = pack.read_bytes()
    pack.chmod(0o644)
    for bad in (whole[:-7], whole[:5000] + bytes(len(whole) - 5000), b""):
        pack.write_bytes(bad)
        pv.ok("commit", tune(two.base, tmp_path / str(len(bad)), seed=len(bad)), "--as", "other")
    pack.unlink()
    pv.ok("commit", tune(two.base, tmp_path / "last", seed=9), "--as", "other")


# --on


def test_with_on_both_together_are_the_checkpoint(two: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("switch", "-c", "further", "both")
    pv.ok("scale", "style", "0.5")
    further = tune(built(pv, tmp_path / "out"), tmp_path / "further")
    said = pv.ok("commit", further, "--on", "HEAD", "--as", "polite")
    commit = pv.ok("log", "--json").json["commits"][1]["id"]
    assert f", less listening and style of {commit[:12]}: " in said.err

    document = pv.ok("show", "--json").json
    terms = document["persona"]["behaviours"]["polite"]["terms"]
    assert [coefficient for coefficient, _ in terms] == [1, -1, -0.5]
    assert document["provenance"][terms[0][1]]["on"]["commit"] == commit
    vectors = [one["terms"][0][1] for _, one in sorted(document["persona"]["behaviours"].items())]
    assert vectors == [terms[1][1], terms[0][1], terms[2][1]]

    assert close(built(pv, tmp_path / "whole"), further) == 0
    comes_back(pv, tmp_path / "export", further)
    for on in ("further~1", "HEAD"):
        assert "nothing changed: polite is vector" in pv("commit", further, "--on", on, "--as", "polite").err
    assert f"captured from further, trained on the build of {commit[:12]}" in pv.ok("show").out
    pv.ok("revert", "further~1")  # the weight of style
    pv.ok("drop", "listening")
    pv.ok("drop", "style")  # what is left is its own part: the noise of the build, and what was tuned
    own = built(pv, tmp_path / "own", "HEAD", "--dtype", "fp32")
    base = built(pv, tmp_path / "base", "further~2", "--dtype", "fp32")
    assert (
        0 < np.linalg.norm(values(own) - values(two.base)) < np.linalg.norm(values(base) - values(two.base))
    )
    pv.ok("scale", "polite", "0.5")
    half = built(pv, tmp_path / "half", "HEAD", "--dtype", "fp32")
    moved, step = values(half) - values(two.base), values(own) - values(two.base)
    assert np.allclose(moved, 0.5 * step, rtol=1e-5, atol=1e-7)


def test_such_a_behaviour_is_merged_reverted_and_kept(two: World, pv: InProcess, tmp_path: Path) -> None:
    further = tune(built(pv, tmp_path / "out", "both"), tmp_path / "further")
    pv.ok("switch", "-c", "further", "HEAD~3")  # the base
    assert pv.ok("status", "--json").json["persona"]["behaviours"] == {}
    said = pv.ok("commit", further, "--on", "both", "--as", "polite", "--json").json
    assert said["subtracted"] == ["listening", "style"]
    assert any("this branch holds something else" in note for note in said["notes"])
    pv.ok("fsck", "--deep")
    pv.ok("switch", "main")
    pv.ok("merge", "further")
    pv.ok("add", "style=both:style")
    assert close(built(pv, tmp_path / "whole"), further) == 0
    for command in ("log", "log --oneline", "status", "show", "diff --recipe"):
        assert "polite 1 × (1·" in pv.ok(*command.split()).out or command == "diff --recipe"
    pv.ok("verify", tmp_path / "whole")
    pv.ok("branch", "-d", "further")
    pv.ok("tag", "-d", "both")
    pv.ok("gc", "--grace", "0", "--expire", "0")
    pv.ok("build", "-o", tmp_path / "again")
    assert close(tmp_path / "again", further) == 0


def close(folder: Path, other: Path) -> int:
    """How many elements differ. Engine 1 may miss one in 10^8 by its fp32 difference; none of so few."""
    a, b = tensors(folder), tensors(other)
    return sum(int((bits(a[name]) != bits(b[name])).sum()) for name in a)


def bits(tensor: tuple[str, tuple[int, ...], bytes]) -> Any:
    return np.frombuffer(tensor[2], np.uint16)


def values(folder: Path) -> Any:
    found = []
    for _, (dtype, _, raw) in sorted(tensors(folder).items()):
        wide = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16 if dtype == "BF16" else None
        found.append(np.frombuffer(raw, np.float32) if wide is None else wide.view(np.float32))
    return np.concatenate(found).astype(np.float64)


def test_a_new_version_on_a_build_that_holds_it(two: World, pv: InProcess, tmp_path: Path) -> None:
    """REV with the new version in place of the old one is the checkpoint."""
    pv.ok("switch", "-c", "further", "both")
    further = tune(built(pv, tmp_path / "out"), tmp_path / "further")
    said = pv("commit", further, "--as", "style")
    assert said.code == 2 and "would count listening twice" in said.err
    assert pv.ok("commit", further, "--on", "HEAD", "--as", "style", "--json").json["subtracted"] == [
        "listening"
    ]
    assert close(built(pv, tmp_path / "whole"), further) == 0


def comes_back(pv: InProcess, to: Path, committed: Path, name: str = "polite") -> None:
    assert pv.ok("export", name, "-o", to, "--dry-run", "--json").json["captured"]
    said = pv.ok("export", name, "-o", to, "--json").json
    assert said["captured"] and said["build"] is None
    assert tensors(to) == tensors(committed)


def test_what_was_committed_with_on_is_exported_as_it_was(two: World, pv: InProcess, tmp_path: Path) -> None:
    further = tune(built(pv, tmp_path / "out", "both"), tmp_path / "further")
    pv.ok("commit", further, "--on", "both", "--as", "polite", "--weight", "0.3")
    comes_back(pv, tmp_path / "a", further)
    pv.ok("scale", "polite", "2", "--module", "*.mlp.*=0.5")
    pv.ok("add", "kind=HEAD:polite")
    pv.ok("drop", "listening")
    pv.ok("combine", "ties")
    comes_back(pv, tmp_path / "b", further, "kind")
    pv.ok("compress", "polite", "--to", "int8", "--force")
    said = pv.ok("export", "polite", "-o", tmp_path / "c")
    assert "not one captured checkpoint (3 vectors), so built alone at weight 1" in said.err


def test_with_one_more_term_it_is_that_checkpoint_no_more(two: World, pv: InProcess, tmp_path: Path) -> None:
    further = tune(built(pv, tmp_path / "out", "both"), tmp_path / "further")
    pv.ok("commit", further, "--on", "both", "--as", "polite")
    with Repo.open(two.folder) as repo:
        for more in (
            Term(0.5, repo.persona.behaviour("listening").terms[0].vector),
            repo.persona.behaviour("polite").terms[0],
        ):
            terms = (*repo.persona.behaviour("polite").terms, more)
            repo.registry.change("test", "One more", partial(Persona.with_terms, name="polite", terms=terms))
            assert not repo.at().plan_export("polite", tmp_path / "none").captured
            repo.undo()
        assert repo.at().plan_export("polite", tmp_path / "none").captured


def test_on_the_wrong_revision(two: World, pv: InProcess, tmp_path: Path) -> None:
    further = tune(built(pv, tmp_path / "out", "both"), tmp_path / "further")
    said = pv(
        "commit", further, "--on", "HEAD", "--as", "polite"
    )  # listening alone: style would be counted twice
    assert said.code == 2 and "fine-tuned from the build of both (" in said.err
    fresh = tune(two.base, tmp_path / "fresh", seed=8)
    said = pv("commit", fresh, "--on", "both", "--as", "polite")
    assert (
        said.code == 2
        and "does not hold what both (" in said.err
        and f"pv commit {fresh} --as polite" in said.err
    )
    said = pv("commit", tmp_path / "out", "--on", "both", "--as", "polite")
    assert said.code == 2 and "nothing of its own" in said.err
    said = pv("commit", further, "--on", "both~2", "--as", "polite")
    assert said.code == 2 and "there is nothing to subtract" in said.err
    assert pv("commit", further, "--on", "nowhere", "--as", "polite").code == 5
    pv.ok("commit", fresh, "--on", "both", "--as", "polite", "--force")


def test_on_what_is_no_sum(two: World, pv: InProcess, tmp_path: Path) -> None:
    further = tune(built(pv, tmp_path / "out", "both"), tmp_path / "further")
    pv.ok("switch", "-c", "odd", "both")
    pv.ok("combine", "ties", "--density", "0.5")
    said = pv("commit", further, "--on", "odd", "--as", "polite")
    assert said.code == 2 and "combined with ties" in said.err and "--force" in said.err
    pv.ok("combine", "add")
    pv.ok("scale", "style", "1", "--module", "*.mlp.*=0.5")
    said = pv("commit", further, "--on", "odd", "--as", "polite")
    assert said.code == 2 and "style has module factors" in said.err


# Adapters


@pytest.fixture
def adapter(world: World, tmp_path: Path) -> Path:
    from support.adapters import adapted  # which imports peft, quietly
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(world.base)
    return adapted(model, tmp_path / "lora", r=2, target_modules=["q_proj"])


def say(adapter: Path, named: str | None) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": named}))


@pytest.mark.parametrize(
    ("named", "note"),
    [
        ("someone/base", None),
        ("Someone/BASE", None),
        ("unsloth/base-bnb-4bit", None),
        ("/home/ada/.cache/huggingface/hub/models--ada--Base/snapshots/0123abc", None),
        ("C:\\models\\base\\", None),
        ("./my-model", "it was trained on ./my-model; the base here is base"),
        ("gpt2", "it was trained on gpt2; the base here is base"),
        (None, "does not say which model"),
        ("", "does not say which model"),
    ],
)
def test_an_adapter_of_this_model_or_of_nobody_knows(
    world: World, pv: InProcess, adapter: Path, named: str | None, note: str | None
) -> None:
    say(adapter, named)
    notes = pv.ok("commit", adapter, "--as", "brief", "--json").json["notes"]
    assert any(note in one for one in notes) if note else notes == []


@pytest.mark.parametrize(
    "named", ["meta-llama/Llama-3.2-1B", "ada/base-2", "/x/models--ada--Other/snapshots/base"]
)
def test_an_adapter_of_another_model_is_refused(
    world: World, pv: InProcess, adapter: Path, named: str
) -> None:
    say(adapter, named)
    said = pv("commit", adapter, "--as", "brief")
    assert said.code == 3 and f"was trained on {named}, the base here is base (" in said.err
    assert "--force" in said.err
    said = pv("commit", adapter / "adapter_model.safetensors", "--as", "brief")
    assert said.code == 3
    notes = pv.ok("commit", adapter, "--as", "brief", "--force", "--json").json["notes"]
    assert notes == [f"it was trained on {named}; the base here is base"]


def test_an_adapter_has_nothing_to_subtract(world: World, pv: InProcess, adapter: Path) -> None:
    said = pv("commit", adapter, "--on", "HEAD", "--as", "brief")
    assert said.code == 2 and "is an adapter: it holds its own difference only" in said.err


def test_a_config_that_names_another_model_is_noted(two: World, pv: InProcess, tmp_path: Path) -> None:
    folder = tune(two.base, tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "ada/other"}))
    said = pv.ok("commit", folder, "--as", "a")
    assert "its config.json names ada/other; what is kept is the difference from base" in said.err


def test_dora_is_called_what_it_is(world: World, pv: InProcess, tmp_path: Path) -> None:
    from support.adapters import adapted
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(world.base)
    dora = adapted(model, tmp_path / "dora", r=2, target_modules=["q_proj"], use_dora=True)
    said = pv.ok("commit", dora, "--as", "brief")
    assert "2 tensors (2 as difference)" in said.err and "2 tensors are kept as their difference" in said.err
    assert "  float, " in pv.ok("show").out
    lora = adapted(model, tmp_path / "lora", r=2, target_modules=["q_proj"])
    made = pv.ok("commit", lora, "--as", "brief", "--json").json
    assert (made["encoding"], made["kept_as"]) == ("lora", {"factors": 2})
    mixed = adapted(
        model, tmp_path / "mixed", r=2, target_modules=["q_proj"], use_dora=True, modules_to_save=["k_proj"]
    )
    made = pv.ok("commit", mixed, "--as", "brief", "--json").json
    assert made["encoding"] in ("lora", "float") and made["kept_as"]["difference"] == 2
