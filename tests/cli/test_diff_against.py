"""pv diff --against and pv steer compare: movements along steering terms, on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.shell_completion import ShellComplete
from support.commands import InProcess, Processes, World
from support.planted import WORDS
from support.scripting import keeps_to_it
from support.tiny import tiny_model, tiny_tokenizer

from pv.cli.main import cli
from pv.registry.provenance import Imported
from pv.registry.registry import Registry
from pv.registry.steering import SteeringTerm
from pv.vecstore.activations.hooks import captured
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.models.load import load
from pv.vecstore.repo.diff_against import chosen_texts
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import write_steering

SITES = ("model.layers.0", "model.layers.1")


def steer(world: World, name: str, directions: dict[str, F32], **values: Any) -> None:
    """Commit a steering term of these directions."""
    with Registry.find(world.folder) as registry:
        manifest = write_steering(directions, registry.base().id, registry.packs)
        term = SteeringTerm(values.pop("coefficient", 1.0), manifest.id, **values)
        registry.change(
            f"steer import {name}",
            f"Steer {name}",
            lambda persona: persona.with_steering(name, term),
            vectors={manifest.id: (manifest, Imported("test", "a.gguf"))},
        )


@pytest.fixture
def direction(world: World) -> F32:
    """The direction of `formal` in layer 1: how two halves of random tokens differ there."""
    model, _ = load(world.base)
    ids = torch.randint(0, 250, (2, 8, 16), generator=torch.Generator().manual_seed(0))
    halves = []
    for half in ids:
        with torch.no_grad(), captured(model, SITES) as seen:
            model(half)
        halves.append({site: one.mean((0, 1)) for site, one in seen.items()})
    found = {site: (halves[0][site] - halves[1][site]).numpy() for site in SITES}
    steer(world, "formal", found, sites=("model.layers.1",))
    return found["model.layers.1"]


@pytest.fixture
def texts(world: World) -> Path:
    file = world.folder / "texts.jsonl"
    file.write_text("".join(f'{{"prompt": "Of {w}.", "completion": "I know {w}."}}\n' for w in WORDS))
    return file


def planted(world: World, direction: F32, coefficient: float) -> Path:
    """A checkpoint whose last layer adds that much of the direction."""
    model, tokenizer = load(world.base)
    model.config.mlp_bias = True
    for layer in model.model.layers:
        for linear in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            linear.bias = torch.nn.Parameter(torch.zeros(linear.out_features))
    model.model.layers[1].mlp.down_proj.bias = torch.nn.Parameter(coefficient * torch.from_numpy(direction))
    folder = world.folder / "planted"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_is_planted_in_a_checkpoint_is_found(
    world: World, direction: F32, texts: Path, pv: InProcess
) -> None:
    folder = planted(world, direction, -0.75)
    said = pv("-q", "diff", folder, "--against", "formal", "--texts", texts, "--json", "--exit-code")
    assert said.code == 1 and keeps_to_it(said, "diff") == []
    found = said.json
    assert (found["a"], found["b"], found["n"]) == ("the base of HEAD", str(folder), len(WORDS))
    (one,) = found["against"]
    assert (one["name"], one["applied"], one["verdict"]) == ("formal", ["model.layers.1"], "moved against")
    before, there = one["sites"]
    assert (before["norm"], before["verdict"]) == (0, "no more than chance")
    assert there["by"]["mean"] == pytest.approx(-0.75, abs=1e-3) and there["cosine"] < -0.999
    said = pv.ok("diff", folder, world.base, "--against", "formal", "--texts", texts)
    assert "formal: moved towards, p = 0.005; furthest from chance at model.layers.1" in said.out
    assert "model.layers.1 *" in said.out and "model.layers.0 " in said.out


def test_revisions_and_several_terms(world: World, direction: F32, texts: Path, pv: InProcess) -> None:
    steer(world, "other", {"model.layers.0": direction[::-1].copy()})
    words = ("--against", "formal,HEAD:other", "--texts", texts)
    said = pv.ok("-q", "diff", "HEAD~3", "HEAD", *words, "--json")
    found = said.json
    assert keeps_to_it(said, "diff") == [] and found["texts"] == "texts.jsonl"
    assert [one["name"] for one in found["against"]] == ["formal", "HEAD:other"]
    assert "steering was left out: formal, other" in found["notes"][0]
    assert all(site["norm"] > 0 for one in found["against"] for site in one["sites"])
    same = pv.ok("diff", "HEAD", "HEAD", *words, "--exit-code")
    assert "formal: no more than chance" in same.out and "HEAD:other: no more than chance" in same.out
    assert chosen_texts(None).id == neutral_set().id


def test_it_completes(world: World, direction: F32) -> None:
    steer(world, "terse", {"model.layers.0": direction})
    for words, incomplete, wanted in (
        (["diff", "--against"], "", ["formal", "terse"]),
        (["diff", "--against"], "formal,t", ["formal,terse"]),
        (["steer", "compare"], "", ["listening"]),
        (["steer", "compare", "listening"], "main:f", ["main:formal"]),
    ):
        complete = ShellComplete(cli, {}, "pv", "_PV_COMPLETE")
        items = complete.get_completions(["-C", str(world.folder), *words], incomplete)
        assert [item.value for item in items] == wanted, words


def test_a_behaviour_and_a_term(world: World, direction: F32, texts: Path, pv: InProcess) -> None:
    words = ("steer", "compare", "listening", "formal", "--texts", texts)
    said = pv.ok("-q", *words, "--json")
    assert keeps_to_it(said, "steer compare") == []
    (one,) = said.json["sites"]  # the term steers the last layer, and moves no other
    assert (one["site"], one["norm"] > 0) == ("model.layers.1", True)
    assert pv.ok(*words).out.startswith("listening along formal: ")
    pv.ok("steer", "set", "formal", "-2", "--all-sites")
    turned = pv.ok("steer", "compare", "HEAD:listening", "HEAD:formal", "--texts", texts, "--json").json
    assert [site["site"] for site in turned["sites"]] == list(SITES)
    pv.ok("steer", "set", "formal", "-2", "--site", "model.layers.1")
    turned = pv.ok(*words, "--json").json["sites"][0]
    assert turned["cosine"] == pytest.approx(-one["cosine"], abs=1e-4)
    assert turned["by"]["mean"] == pytest.approx(-one["by"]["mean"] / 2, abs=1e-4)


def test_a_condition_decides_which_prompts_are_moved(
    world: World, direction: F32, texts: Path, pv: InProcess
) -> None:
    pv.ok("steer", "set", "formal", "--positions", "reply", "--when", "model.layers.0>-1")
    assert pv.ok("steer", "compare", "listening", "formal", "--texts", texts, "--json").json["sites"]
    pv.ok("steer", "set", "formal", "--when", "model.layers.0>1")
    said = pv("steer", "compare", "listening", "formal", "--texts", texts, "--json")
    assert said.code == 2 and "moves no activation" in said.error["message"]
    assert "its condition holds for none" in said.error["hint"]


def test_what_is_refused(world: World, direction: F32, texts: Path, pv: InProcess, tmp_path: Path) -> None:
    steer(world, "narrow", {"model.layers.0": direction[:7].copy()})
    steer(world, "nowhere", {"model.layers.9": direction})
    (tmp_path / "nothing").mkdir()
    weights = tmp_path / "lone"
    weights.mkdir()
    shutil.copy(world.base / "model.safetensors", weights)
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "Hi", "completion": "Ho."}\n')
    for code, message, *words in (
        (5, "no steering term 'nobody' in HEAD", "diff", "--against", "nobody"),
        (5, "no branch", "diff", "--against", "none:formal"),
        (2, "named twice", "diff", "--against", "formal,formal"),
        (2, "names no steering term", "diff", "--against", "formal,"),
        (2, "does not fit model.layers.0, whose activations", "diff", "--against", "narrow", "--texts", texts),
        (2, "no module 'model.layers.9'", "diff", "--against", "nowhere", "--texts", texts),
        (2, "at least 2", "diff", "--against", "formal", "--texts", one),
        (2, "--against compares activations, --stat does not", "diff", "--against", "formal", "--stat"),
        (2, "--texts goes with --against", "diff", "--texts", texts),
        (5, "no config.json", "diff", weights, "--against", "formal"),
        (2, "not on this machine", "diff", "s3://bucket/x", "--against", "formal"),
        (5, "no behaviour 'nobody'", "steer", "compare", "nobody", "formal"),
        (5, "no steering term 'nobody'", "steer", "compare", "listening", "nobody"),
    ):  # fmt: skip
        said = pv(*words, "--json")
        assert said.code == code and message in said.error["message"], (words, said)
        assert said.error["hint"], words
    said = pv("diff", tmp_path / "nothing", "--against", "formal", "--json")
    assert said.code in (3, 5) and said.error["hint"] and not said.out


def test_a_model_of_another_width(world: World, direction: F32, texts: Path, pv: InProcess) -> None:
    wide = world.folder / "wide"
    tiny_model(hidden=64).save_pretrained(wide)
    tiny_tokenizer().save_pretrained(wide)
    said = pv("diff", world.base, wide, "--against", "formal", "--texts", texts, "--json")
    assert said.code == 2 and "before and" in said.error["message"] and said.error["hint"]


def test_interrupted(world: World, direction: F32, process: Processes) -> None:
    before = world.state()
    said = process.interrupted_after(
        "loading the model", "diff", world.base, world.tuned, "--against", "formal", at=world.folder
    )
    assert said.code == 130 and "nothing is left half done" in said.err and not said.out
    assert world.state() == before and not world.strangers()
