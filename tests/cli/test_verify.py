"""`pv verify`: every tampered tensor and file is found, and what a folder is the build of is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import InProcess, World, tensors, write_tensors

from pv.registry import registry as pv_registry

NAMES = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
)
ADDED = (
    "modeling_evil.py",
    "adapter_config.json",
    "adapter_model.safetensors",
    "pytorch_model.bin",
    "consolidated.safetensors",
    "model.gguf",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "README.json",
    "LICENSE.py",
    ".hidden.py",
    "no suffix",
)
HARMLESS = ("README.md", "LICENSE", "LICENSE.txt", "notice.TXT", ".gitattributes", ".DS_Store", "plot.png")


@pytest.fixture(params=["one file", "shards"])
def build(world: World, pv: InProcess, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shards = [] if request.param == "one file" else ["--shard-size", "0.05"]
    pv.ok("build", "-o", tmp_path / "out", *shards)
    return tmp_path / "out"


def test_the_build_is_the_build(pv: InProcess, build: Path) -> None:
    assert {file.name for file in build.iterdir()} >= {*NAMES, "persona.json"}
    said = pv.ok("verify", build)
    assert "the build of HEAD (" in said.err and "weights and files" in said.err
    pv.ok("verify", build, "main")


def test_every_side_file_that_is_changed_or_removed_is_named(pv: InProcess, build: Path) -> None:
    for file in sorted(build.iterdir()):
        if file.suffix == ".safetensors":
            continue
        before = file.read_bytes()
        file.write_bytes(before + b" ")
        if not file.name.endswith(".index.json"):  # white space in the index says nothing
            check(pv, build, file.name)
        if file.name == "persona.json":
            file.unlink()  # whoever only wants the model may leave it out
            pv.ok("verify", build)
        elif not file.name.endswith(".index.json"):
            file.unlink()
            check(pv, build, file.name, "is missing")
            file.mkdir()
            check(pv, build, file.name)
            file.rmdir()
        file.write_bytes(before)
        pv.ok("verify", build)


def check(pv: InProcess, build: Path, name: str, what: str = "") -> None:
    said = pv("verify", build)
    assert said.code == 1, (name, said)
    first = said.out.splitlines()[0]
    assert first.startswith("not the build of HEAD (") and "the weights are the same, 1 file differs" in first
    assert f"  {name} {what}" in said.out
    pv.ok("verify", build, "--weights-only")
    pv.ok("verify", build, "HEAD", "--weights-only")
    document = pv("verify", build, "--json")
    assert document.code == 1
    found = document.json
    assert (found["same"], found["weights_same"], found["side_files"]) == (False, True, [name])


def test_every_added_file_is_named(pv: InProcess, build: Path) -> None:
    for name in ADDED:
        (build / name).write_text("{}")
        check(pv, build, name, "is not part of the build")
        (build / name).unlink()
    (build / "custom_generate").mkdir()
    check(pv, build, "custom_generate/", "is not part of the build")
    (build / "custom_generate").rmdir()
    (build / "dangling.py").symlink_to("nowhere")
    check(pv, build, "dangling.py", "is not part of the build")


def test_what_nothing_loads_may_be_added(pv: InProcess, build: Path) -> None:
    for name in HARMLESS:
        (build / name).write_text("x")
    (build / ".cache" / "huggingface").mkdir(parents=True)
    (build / ".git").mkdir()
    pv.ok("verify", build)


def test_an_index_that_says_more(pv: InProcess, build: Path) -> None:
    index = build / "model.safetensors.index.json"
    if not index.exists():
        index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors(build), "model.safetensors")}))
        pv.ok("verify", build)
        return
    whole = json.loads(index.read_text())
    for odd in (
        {**whole, "metadata": {"total_size": 1}},
        {**whole, "auto_map": {}},
        {**whole, "metadata": 3},
    ):
        index.write_text(json.dumps(odd))
        check(pv, build, index.name)
    whole["metadata"]["total_parameters"] = sum(len(raw) // 2 for _, _, raw in tensors(build).values())
    index.write_text(json.dumps(whole))
    pv.ok("verify", build)
    shutil.copy(
        sorted(build.glob("*.safetensors"))[0], build / "model.safetensors"
    )  # transformers takes this one
    check(pv, build, "model.safetensors")


def test_every_tensor_with_a_flipped_bit_is_named(pv: InProcess, build: Path) -> None:
    for file in sorted(build.glob("*.safetensors")):
        whole = file.read_bytes()
        for name, (dtype, shape, raw) in tensors(file).items():
            for bit in (0, 8 * len(raw) - 1):
                flipped = bytearray(raw)
                flipped[bit // 8] ^= 1 << bit % 8
                write_tensors(file, {**tensors(file), name: (dtype, shape, bytes(flipped))})
                said = pv("verify", build)
                assert said.code == 1
                assert said.out.splitlines()[0].startswith("not a known build; compared with HEAD (")
                assert "1 of " in said.out.splitlines()[0] and f"  {name} has other values" in said.out
                file.write_bytes(whole)
    pv.ok("verify", build)


def test_few_tensors_are_shown_and_all_with_v(world: World, pv: InProcess) -> None:
    said = pv("verify", world.base, "HEAD")
    assert said.code == 1
    shown = [line for line in said.out.splitlines() if line.endswith("has other values")]
    count = int(said.out.partition(": ")[2].split()[0])
    assert len(shown) == 10 < count and f"and {count - 10} more" in said.out
    everything = pv("-v", "verify", world.base, "HEAD").out
    assert everything.count("has other values") == count and "more" not in everything


# Which revision is it?


def test_an_earlier_build_is_found(world: World, pv: InProcess, tmp_path: Path) -> None:
    out, commit = tmp_path / "out", pv.ok("status", "--json").json["commit"]
    pv.ok("build", "-o", out)
    pv.ok("tag", "v1")
    for weight in ("2", "3", "4"):
        pv.ok("scale", "listening", weight)
    said = pv.ok("verify", out)
    assert f"the build of v1 ({commit[:12]})" in said.err
    pv.ok("tag", "-d", "v1")
    assert f"the build of HEAD~3 ({commit[:12]})" in pv.ok("verify", out).err
    said = pv("verify", out, "HEAD")
    assert said.code == 1
    assert said.out.splitlines()[1] == f"  the weights are those of HEAD~3 ({commit[:12]})"
    assert "persona.json is the persona of HEAD~3" in said.out
    assert pv("verify", out, "HEAD", "--json").json["known"] == [
        {"commit": commit, "revision": "HEAD~3", "options": {}}
    ]
    shutil.rmtree(world.folder / ".pv" / "records")  # then the persona beside the weights says where to look
    said = pv.ok("verify", out)
    assert f"the build of HEAD~3 ({commit[:12]})" in said.err and "computed again" in said.err
    (out / "persona.json").unlink()  # and then there is nothing to go by
    assert pv("verify", out).out.startswith("not a known build; compared with HEAD (")
    pv.ok("verify", out, "HEAD~3")


def test_the_options_of_the_build_are_found_too(world: World, pv: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pv.ok("build", "-o", out, "--dtype", "fp32")
    assert " --dtype fp32, weights and files" in pv.ok("verify", out).err
    said = pv("verify", out, "HEAD")
    assert said.code == 1 and "  the weights are those of HEAD (" in said.out and "--dtype fp32" in said.out
    pv.ok("verify", out, "HEAD", "--dtype", "fp32")
    assert pv("verify", out, "--dtype", "bf16").code == 1


def test_the_base_is_known(world: World, pv: InProcess) -> None:
    said = pv.ok("verify", world.base)
    assert "these are the base's weights and files: base (" in said.err
    document = pv("verify", world.base, "HEAD", "--json")
    assert document.code == 1 and document.json["is_base"]
    assert "these are the base's weights: base (" in pv("verify", world.base, "HEAD").out
    pv.ok("verify", world.base, "HEAD~1")


def test_the_build_of_a_persona_with_weights_of_0_is_the_base(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    pv.ok("scale", "listening", "0")
    pv.ok("build", "-o", tmp_path / "out")
    for folder in (world.base, tmp_path / "out"):
        said = pv.ok("verify", folder)
        assert (
            "these are the base's weights and files: base (" in said.err
            and "  and the build of HEAD (" in said.err
        )
        found = pv.ok("verify", folder, "--json").json
        assert found["is_base"] and [one["revision"] for one in found["known"]] == ["HEAD", "HEAD~2"]


def test_two_commits_with_one_persona(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("build", "-o", tmp_path / "out")
    pv.ok("scale", "listening", "2")
    pv.ok("revert", "HEAD")
    said = pv.ok("verify", tmp_path / "out")
    assert "the build of HEAD (" in said.err and "and of HEAD~2 (" in said.err


def test_a_weight_file_alone(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("build", "-o", tmp_path / "out")
    lone = tmp_path / "downloads" / "model.safetensors"
    lone.parent.mkdir()
    shutil.copy(tmp_path / "out" / "model.safetensors", lone)
    (lone.parent / "other.py").touch()
    assert ", weights: " in pv.ok("verify", lone).err
    assert pv.ok("verify", lone, "--json").json["files"] is None


def test_a_record_that_rotted_says_nothing_about_others(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("build", "-o", tmp_path / "out")
    pv.ok("scale", "listening", "2")
    pv.ok("build", "-o", tmp_path / "louder")
    records = sorted((world.folder / ".pv" / "records").iterdir())
    louder = json.loads(pv.ok("build", "-o", tmp_path / "more", "--json").out)["build"]
    (world.folder / ".pv" / "records" / f"{louder}.json").write_text("{")
    assert len(records) >= 2
    pv.ok("verify", tmp_path / "out")


# What is typed wrong


SWAPPED: list[tuple[Callable[[Path], list[str]], str]] = [
    (lambda out: ["main", str(out)], "the checkpoint comes first"),
    (lambda out: ["nothing", str(out)], "the checkpoint comes first"),
]


def test_a_record_of_somebody_else_is_not_believed_with_recompute(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    """A record is sealed, but not signed: who copies a registry copies what its owner noted."""
    pv.ok("build", "-o", tmp_path / "out")
    same = pv.ok("verify", tmp_path / "out", "HEAD", "--recompute", "--json").json
    assert (same["same"], same["recorded"]) == (True, False)
    assert "computed again" in pv.ok("verify", tmp_path / "out", "--recompute").err
    table = tensors(tmp_path / "out")
    name, (dtype, shape, raw) = min(table.items())
    table[name] = (dtype, shape, bytes([raw[0] ^ 1]) + raw[1:])
    write_tensors(tmp_path / "out" / "model.safetensors", table)
    found = pv("verify", tmp_path / "out", "HEAD", "--json").json
    with pv_registry.Registry.find(world.folder) as registry:
        registry.update_record(found["build"], {"weights": found["found"]})
    assert pv("verify", tmp_path / "out", "HEAD").code == 0
    said = pv("verify", tmp_path / "out", "HEAD", "--recompute", "--json")
    assert said.code == 1 and said.json["known"] == [], said
    assert [one["tensor"] for one in said.json["differing"]] == [name]
    refused = pv("build", "-o", tmp_path / "again")
    assert refused.code == 3 and f"{found['build']}.json" in "".join(refused.err.split())
    next((world.folder / ".pv" / "records").glob(f"{found['build']}.json")).unlink()
    pv.ok("build", "-o", tmp_path / "thrice")
    pv.ok("verify", tmp_path / "thrice", "HEAD")


@pytest.mark.parametrize("how", ["pipe", "device"])
def test_a_recipe_that_is_no_file(pv: InProcess, build: Path, how: str) -> None:
    (build / "persona.json").unlink()
    if how == "pipe":
        os.mkfifo(build / "persona.json")
    else:
        (build / "persona.json").symlink_to("/dev/zero")
    said = pv("verify", build)
    assert said.code in (1, 3), said


@pytest.mark.parametrize(("words", "message"), SWAPPED)
def test_the_other_way_round(
    world: World, pv: InProcess, words: Callable[[Path], list[str]], message: str
) -> None:
    out = world.folder / "out"
    pv.ok("build", "-o", out)
    said = pv("verify", *words(Path("./out")))
    assert said.code == 2 and "./out is a folder, not a revision" in said.err.replace("out is", "./out is")
    assert message in said.err
    hint = "pv verify out main" if words(Path())[0] == "main" else "pv verify out\n"
    assert hint in said.err.replace("./out", "out")


def test_a_revision_alone(world: World, pv: InProcess) -> None:
    said = pv("verify", "main")
    assert said.code == 5 and "no checkpoint at" in said.err and "pv verify DIR main" in said.err
    assert "no branch, tag or commit" in pv("verify", world.base, "nope").err
    assert pv("verify", "nowhere", "nope").code == 5
