"""Builds of personas that steer: what is in the folder, what is listed beside it, and that nothing else changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.baking import WIDE, direction, loaded, logits, new_repo, steer, tiny_baked
from support.commands import InProcess

from pv.registry.errors import BaseMismatch, IntegrityError, NotFoundError, UsageError
from pv.registry.persona import Behaviour, Term
from pv.registry.provenance import Unknown
from pv.registry.steering import Condition
from pv.vecstore.activations.hooks import steered
from pv.vecstore.activations.listed import listed, listed_terms
from pv.vecstore.models.reply_columns import reply_from
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.repo import Repo
from pv.vecstore.repo.verify import find_and_verify
from pv.vecstore.vectors.encode import encode_vector

DOWN = "model.layers.1.mlp.down_proj.bias"
SITE = "model.layers.1"
ONE = direction(WIDE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "llama"
    tiny_baked("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def repo(base: Path, tmp_path: Path) -> Iterator[Repo]:
    with new_repo(tmp_path / "repo", base) as made:
        yield made


def build(repo: Repo, out: Path, **options: Any) -> Any:
    return repo.at("HEAD").build(out, threads=1, **options)


def verified(repo: Repo, folder: Path, **options: Any) -> bool:
    return bool(repo.at("HEAD").verify(folder, threads=1, **options).same)


def sums(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def behave(repo: Repo) -> None:
    """A behaviour that moves what attention and MLP put out."""
    base = repo.registry.base()
    deltas = {
        name: 0.05 * np.random.default_rng(3).standard_normal(row.numel).astype(np.float32)
        for name, row in base.tensors.items()
        if name.endswith(("o_proj.weight", "down_proj.weight"))
    }
    vector = encode_vector(deltas, base, repo.registry.packs, encoding="float", options={"dtype": "F32"})
    repo.registry.change(
        "commit",
        "Behave",
        lambda persona: persona.with_behaviour("x", Behaviour(0.5, (Term(1.0, vector.id),))),
        vectors={vector.id: (vector, Unknown())},
    )


def test_without_steering_nothing_changes(repo: Repo, tmp_path: Path) -> None:
    behave(repo)
    before = build(repo, tmp_path / "before")
    steer(repo.registry, "a", {SITE: ONE})
    build(repo, tmp_path / "steered")
    assert sums(tmp_path / "steered") != sums(tmp_path / "before")
    for name, edit in {
        "off": lambda p: p.with_steering("a", p.steering.terms["a"].changed(coefficient=0.0)),
        "retired": lambda p: p.with_steering(
            "a", p.steering.terms["a"].changed(coefficient=1.0, retired_by="x")
        ),
        "dropped": lambda p: p.without_steering("a"),
    }.items():
        repo.registry.change(name, name, edit)
        made = build(repo, tmp_path / name)
        assert made.built.weights == before.built.weights and not (made.notes or made.baked or made.unbaked)
        lacking = {"persona.json"} if name == "off" else set()
        assert {n: s for n, s in sums(tmp_path / name).items() if n not in lacking} == {
            n: s for n, s in sums(tmp_path / "before").items() if n not in lacking
        }


def test_in_bf16_only_the_bias_is_rounded_and_to_nearest(repo: Repo, tmp_path: Path) -> None:
    behave(repo)
    steer(repo.registry, "a", {SITE: ONE}, 0.3)
    build(repo, tmp_path / "baked", dtype="bf16")
    build(repo, tmp_path / "plain", dtype="bf16", bake=False)
    tensors = load_file(tmp_path / "baked" / "model.safetensors")
    rounded = (torch.from_numpy(ONE).double() * 0.3).float().bfloat16()
    assert torch.equal(tensors[DOWN], rounded)
    assert all(one.dtype == torch.bfloat16 for one in tensors.values())
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert all(torch.equal(tensors[name], one) for name, one in plain.items())
    model = loaded(tmp_path / "plain")
    with steered(model, {SITE: rounded.float()}):
        hooked = logits(model)
    assert (logits(loaded(tmp_path / "baked")) - hooked).abs().max() < 1e-4


def test_a_bias_that_is_there_is_added_to_in_one_rounding(tmp_path: Path) -> None:
    tiny_baked("gpt2").save_pretrained(tmp_path / "base")
    with new_repo(tmp_path, tmp_path / "base") as repo:
        steer(repo.registry, "a", {"transformer.h.1": ONE}, 0.3)
        build(repo, tmp_path / "baked", dtype="bf16")
    own = load_file(tmp_path / "base" / "model.safetensors")
    tensors = load_file(tmp_path / "baked" / "model.safetensors")
    name = "transformer.h.1.mlp.c_proj.bias"
    assert tensors.keys() == own.keys()
    assert torch.equal(
        tensors[name], (own[name].double() + torch.from_numpy(ONE).double() * 0.3).float().bfloat16()
    )


def test_what_goes_into_attentions_projection_goes_through_the_weights_that_are_built(
    repo: Repo, tmp_path: Path
) -> None:
    behave(repo)
    site = "model.layers.0.self_attn.o_proj:input[1/4]"
    steer(repo.registry, "a", {site: direction(8)}, 2.0)
    build(repo, tmp_path / "baked")
    build(repo, tmp_path / "plain", bake=False)
    model = loaded(tmp_path / "plain")
    with steered(model, {site: 2 * torch.from_numpy(direction(8))}):
        hooked = logits(model)
    assert (logits(loaded(tmp_path / "baked")) - hooked).abs().max() < 1e-4
    assert verified(repo, tmp_path / "baked", recompute=True)


def test_not_baked_is_the_behaviours_alone_and_lists_all(repo: Repo, tmp_path: Path) -> None:
    behave(repo)
    alone = build(repo, tmp_path / "alone")
    steer(repo.registry, "a", {SITE: ONE}, 0.3)
    made = build(repo, tmp_path / "out", bake=False)
    assert (made.built.weights, made.built.build) == (alone.built.weights, alone.built.build)
    assert made.baked == () and made.unbaked == {"a": "as was asked for"}
    assert made.notes == ("steering term a: not in the weights, listed in steering.json: as was asked for",)
    assert sums(tmp_path / "out").keys() - sums(tmp_path / "alone").keys() == {
        "steering.json", "steering.safetensors", "model.safetensors.index.json",
    }  # fmt: skip
    assert sums(tmp_path / "out")["config.json"] == sums(tmp_path / "alone")["config.json"]
    assert json.loads((tmp_path / "out" / "persona.json").read_bytes())["schema"] == 2
    assert verified(repo, tmp_path / "out") and verified(repo, tmp_path / "out", recompute=True)
    assert repo.at("HEAD").verify(tmp_path / "out", threads=1).known[0].revision == "HEAD"
    assert build(repo, tmp_path / "out", bake=False).already
    model = loaded(tmp_path / "out")
    with listed(model, tmp_path / "out"):
        applied = logits(model)
    build(repo, tmp_path / "baked")
    assert (applied - logits(loaded(tmp_path / "baked"))).abs().max() < 1e-4
    assert (applied - logits(model)).abs().max() > 0.01
    with pytest.raises(NotFoundError, match="lists no steering terms"), listed(model, tmp_path / "baked"):
        pass


def test_one_is_baked_and_the_other_listed(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE}, 2.0)
    steer(repo.registry, "b", {SITE: direction(WIDE, 1), "model.norm": ONE}, 0.5, positions="reply")
    made = build(repo, tmp_path / "out")
    assert made.baked == ("a",) and "for the reply alone" in made.unbaked["b"]
    assert "steering term a: in the weights, as biases" in made.notes
    terms, rule = listed_terms(tmp_path / "out")
    assert rule == "add" and terms.keys() == {"b"} and terms["b"].positions == "reply"
    np.testing.assert_array_equal(terms["b"].directions["model.norm"], np.float32(0.5) * ONE)
    document = json.loads((tmp_path / "out" / "steering.json").read_bytes())
    assert document["baked"] == ["a"] and document["terms"]["b"]["sites"] == [SITE, "model.norm"]
    assert verified(repo, tmp_path / "out") and build(repo, tmp_path / "out").already
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_bytes())
    assert set(index["weight_map"].values()) == {"model.safetensors"} and DOWN in index["weight_map"]
    model = loaded(tmp_path / "out")
    with reply_from([4]), listed(model, tmp_path / "out"):
        after = logits(model)
    assert torch.equal(after[:, :4], logits(model)[:, :4]) and not torch.equal(after, logits(model))
    data = bytearray((tmp_path / "out" / "steering.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "out" / "steering.safetensors").write_bytes(data)
    (wrong,) = repo.at("HEAD").verify(tmp_path / "out", threads=1).files or ()
    assert (wrong.name, wrong.what) == ("steering.safetensors", "differs")


def test_a_condition_is_listed_with_the_direction_that_it_asks_for(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "asked", {SITE: direction(WIDE, 5)}, 0.0)
    vector = repo.registry.persona("HEAD").steering.terms["asked"].vector
    steer(repo.registry, "b", {SITE: ONE}, 2.0, positions="reply", when=Condition(vector, SITE, 0.25))
    made = build(repo, tmp_path / "out")
    assert made.baked == () and made.unbaked == {"b": "it depends on the prompt"}
    when = listed_terms(tmp_path / "out")[0]["b"].when
    assert when is not None and (when.site, when.above) == (SITE, 0.25)
    np.testing.assert_array_equal(when.direction, direction(WIDE, 5))


def test_in_shards_it_is_the_same_build(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE, "model.layers.0.self_attn": ONE}, 2.0)
    whole = build(repo, tmp_path / "whole")
    for number in (2, 1, 3):
        made = repo.at("HEAD").build_shard(tmp_path / "out", number, 3, threads=1)
    assert made.made is not None
    assert (made.made.built.weights, made.made.built.build, made.made.baked) == (
        whole.built.weights, whole.built.build, ("a",),
    )  # fmt: skip
    small = build(repo, tmp_path / "small", shard_bytes=20_000)
    assert small.built.weights == whole.built.weights and len(small.built.files) > 1
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(loaded(tmp_path / "small")))
    assert verified(repo, tmp_path / "out") and verified(repo, tmp_path / "small")


def test_another_coefficient_copies_all_but_the_bias(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE}, 2.0)
    build(repo, tmp_path / "out")
    repo.registry.change(
        "set", "Set", lambda p: p.with_steering("a", p.steering.terms["a"].changed(coefficient=3.0))
    )
    made = build(repo, tmp_path / "out", force=True)
    assert made.built.tensors - made.built.copied == 1
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(tensors[DOWN], 3 * torch.from_numpy(ONE))
    assert verified(repo, tmp_path / "out", recompute=True)


def test_what_pv_builds_for_itself_is_not_baked(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE}, 2.0)
    behave(repo)
    revision = repo.at("HEAD")
    with temporary_checkpoint(repo.registry, revision.commit, revision.persona) as folder:
        assert DOWN not in load_file(folder / "model.safetensors")
        assert not (folder / "steering.json").exists()
    build(repo, tmp_path / "out")
    assert DOWN in load_file(tmp_path / "out" / "model.safetensors")


def test_a_base_that_nothing_can_be_baked_into(tmp_path: Path, base: Path) -> None:
    import shutil

    strange = tmp_path / "strange"
    shutil.copytree(base, strange)
    config = json.loads((strange / "config.json").read_bytes())
    (strange / "config.json").write_text(json.dumps({**config, "model_type": "tiny"}))
    with new_repo(tmp_path, strange) as repo:
        steer(repo.registry, "a", {"anything[1/2]": direction(7)})
        made = build(repo, tmp_path / "out")
        assert made.built.weights == repo.registry.base().id
        assert made.unbaked == {"a": "pv has not been told where a tiny has biases"}
        assert verified(repo, tmp_path / "out")


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ({"model.layers.7": ONE}, "layer 7, which this base does not have"),
        ({SITE: direction(5)}, "5 numbers does not fit"),
    ],
)
@pytest.mark.parametrize("bake", [True, False])
def test_what_cannot_be_right_writes_nothing(
    repo: Repo, tmp_path: Path, directions: Any, message: str, bake: bool
) -> None:
    steer(repo.registry, "a", directions)
    before = sorted(tmp_path.iterdir())
    for attempt in (build, lambda repo, out, **how: repo.at("HEAD").plan_build(out, **how)):
        with pytest.raises(UsageError, match=message) as error:
            attempt(repo, tmp_path / "out", bake=bake)
        assert error.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_a_bias_that_the_dtype_cannot_hold(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE}, 1e6)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(IntegrityError, match=r"down_proj.bias' would hold infinite"):
        build(repo, tmp_path / "out", dtype="fp16")
    assert sorted(tmp_path.iterdir()) == before


def test_on_the_command_line(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE})
    pv = InProcess(tmp_path / "repo")
    assert "note: steering term a: in the weights, as biases" in pv.ok("build", "-o", tmp_path / "out").err
    said = pv.ok("build", "-o", tmp_path / "not", "--no-bake", "--json").json
    assert said["baked"] == [] and said["unbaked"].keys() == {"a"}
    assert (
        "note: steering term a: not in the weights"
        in pv.ok("build", "-o", tmp_path / "one", "--no-bake", "--shards", "1/1").err
    )
    assert pv.ok("verify", tmp_path / "not", "--json").json["same"]
    assert pv.ok("verify", tmp_path / "one", "--json").json["same"]
    plan = pv.ok("build", "-n", "-o", tmp_path / "new", "--json").json["sizes"]["model.safetensors"]
    other = pv.ok("build", "-n", "-o", tmp_path / "new", "--no-bake", "--json").json["sizes"][
        "model.safetensors"
    ]
    assert plan - other == 2 * (WIDE + 48 + 48) * 4


def test_whose_build_it_is(repo: Repo, tmp_path: Path) -> None:
    behave(repo)
    build(repo, tmp_path / "before")
    steer(repo.registry, "a", {SITE: ONE})
    build(repo, tmp_path / "baked")
    build(repo, tmp_path / "not", bake=False)

    def whose(path: Path) -> tuple[str, bool]:
        found = find_and_verify(repo.registry, path, None, threads=1)
        return found.revision, found.same

    assert whose(tmp_path / "before") == ("HEAD~1", True)
    assert whose(tmp_path / "baked") == whose(tmp_path / "not") == ("HEAD", True)
    (tmp_path / "before" / "model.safetensors").rename(tmp_path / "weights.safetensors")
    assert whose(tmp_path / "weights.safetensors") == ("HEAD~1", True)


def test_a_pv_that_knows_more_places_builds_the_same_persona_again(repo: Repo, tmp_path: Path) -> None:
    steer(repo.registry, "a", {SITE: ONE})
    made = build(repo, tmp_path / "out")
    repo.registry.update_record(made.built.build, {"weights": "0" * 64, "baked": []})
    again = build(repo, tmp_path / "again")
    assert again.recorded and again.built.weights == made.built.weights
    repo.registry.update_record(made.built.build, {"weights": "0" * 64})
    with pytest.raises(BaseMismatch, match="an earlier one gave 000000000000"):
        build(repo, tmp_path / "third")
