"""pv build --from-mergekit: folders to a folder, without a registry."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.mergekit import document, f32, make_models, snapshot, write
from support.scripting import keeps_to_it


@pytest.fixture
def models(made: World, tmp_path: Path) -> Path:
    return make_models(made, tmp_path)


def test_no_registry_is_needed(models: Path, pv: InProcess) -> None:
    text = "# a comment\n" + write(models, document()).read_text()
    write(models, text)
    said = pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert "merged 3 models by task_arithmetic into" in said.err and "rounded to nearest" in said.err
    assert not (models / ".pv").exists()
    base, a, b, out = (tensors(models / name) for name in ("base", "a", "b", "out"))
    assert out.keys() == base.keys()
    for name, (dtype, shape, raw) in out.items():
        assert (dtype, shape) == base[name][:2]
        exact = f32(base[name][2]) + (
            np.float32(0.5) * (f32(a[name][2]) - f32(base[name][2]))
            + np.float32(0.25) * (f32(b[name][2]) - f32(base[name][2]))
        )
        bits = exact.view(np.uint32)
        nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        assert raw == nearest.astype(np.uint16).tobytes()
    beside = {file.name for file in (models / "base").iterdir()}
    assert {file.name for file in (models / "out").iterdir()} == {
        *beside,
        "pv-merge.json",
        "mergekit_config.yml",
    }
    for name in beside - {"model.safetensors"}:
        assert (models / "out" / name).read_bytes() == (models / "base" / name).read_bytes()
    assert (models / "out" / "mergekit_config.yml").read_text() == text


def test_it_says_what_made_it(models: Path, pv: InProcess) -> None:
    write(models, document(out_dtype="float32"))
    made = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "--json", "--hash").json
    record = json.loads((models / "out" / "pv-merge.json").read_bytes())
    assert (record["schema"], record["kind"], record["engine"]) == (1, "merge", 2)
    assert record["weights"] == made["weights"]
    assert record["config"] == document(out_dtype="float32")
    assert record["output"] == {"dtype": "fp32", "rounding": "nearest", "seed": 0} == made["written_as"]
    digest = hashlib.sha256((models / "a" / "model.safetensors").read_bytes()).hexdigest()
    assert record["models"][1] == {
        "model": "./a", "bytes": made["models"][1]["bytes"], "files": {"model.safetensors": digest}
    }  # fmt: skip
    config = json.loads((models / "out" / "config.json").read_bytes())
    assert config["dtype"] == "float32"
    assert {dtype for dtype, _, _ in tensors(models / "out").values()} == {"F32"}


def test_the_same_bytes_whatever_the_threads_and_shards(models: Path, pv: InProcess) -> None:
    write(models, document(merge_method="ties", parameters={"density": 0.3}))
    build = ("-q", "build", "--from-mergekit", "merge.yml", "--json", "--force", "-o", "out")
    one = pv.ok(*build, "--threads", "1").json
    for options in (("--threads", "3"), ("--shard-size", "0.03", "--threads", "2")):
        assert pv.ok(*build, *options).json["weights"] == one["weights"]
    assert pv.ok(*build, "--rounding", "stochastic").json["weights"] != one["weights"]
    assert pv.ok(*build, "--dtype", "fp32").json["written_as"]["dtype"] == "fp32"


def test_a_model_alone_at_weight_1_is_its_own_bytes(models: Path, pv: InProcess) -> None:
    write(models, document(models=[{"model": "./a", "parameters": {"weight": 1}}]))
    pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert tensors(models / "out") == tensors(models / "a")
    write(models, {"merge_method": "passthrough", "models": [{"model": "./b"}]})
    pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out", "--force")
    assert tensors(models / "out") == tensors(models / "b")


def test_a_negated_model_is_negated(models: Path, pv: InProcess) -> None:
    """mergekit's `normalize` gives weight -1 as +1."""
    for method, parameters in (("task_arithmetic", {}), ("ties", {"normalize": False})):
        found = {}
        for weight in (1, -1):
            own = [{"model": "./a", "parameters": {"weight": weight}}]
            write(models, document(merge_method=method, models=own, parameters=parameters, dtype="float32"))
            pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out", "--force")
            found[weight] = tensors(models / "out")
        for name, (_, _, raw) in tensors(models / "base").items():
            up, down = (np.frombuffer(found[w][name][2], np.float32) - f32(raw) for w in (1, -1))
            np.testing.assert_allclose(down, -up, rtol=0, atol=1e-7)


def test_folders_are_seen_from_where_pv_runs(models: Path, pv: InProcess) -> None:
    (models / "elsewhere").mkdir()
    shutil.move(write(models, document()), models / "elsewhere")
    pv.ok("build", "--from-mergekit", "elsewhere/merge.yml", "-o", "out")
    assert (models / "out" / "model.safetensors").is_file()
    said = pv("build", "--from-mergekit", "merge.yml", "-o", "out2", at=models / "elsewhere")
    assert said.code == 5 and "no checkpoint at" in said.err


def test_a_weight_file_is_a_model_too(models: Path, pv: InProcess) -> None:
    write(models, document())
    whole = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "--json").json
    (models / "files").mkdir()
    shutil.copy(models / "a" / "model.safetensors", models / "files" / "x.safetensors")
    one, two = document()["models"]
    write(models, document(models=[{**one, "model": "files/x.safetensors"}, two]))
    assert (
        pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "out2", "--json").json["weights"]
        == whole["weights"]
    )


def test_a_model_of_the_hub_is_fetched_at_a_full_commit(
    models: Path, process: Processes, hub: Any, tmp_path: Path
) -> None:
    from support.loopback_hub import client_env

    write(models, document())
    build = ("build", "--from-mergekit", "merge.yml", "--json")
    whole = process(*build, "-o", "out").json
    hub.create("somebody/tuned")
    hub.put("somebody/tuned", {file.name: file.read_bytes() for file in (models / "a").iterdir()})
    one, two = document()["models"]
    write(models, document(models=[{**one, "model": "somebody/tuned"}, two]))
    env = client_env(hub, tmp_path / "cache")
    said = process(*build, "-o", "fetched", env=env).json
    assert said["weights"] == whole["weights"]
    assert said["models"][1]["commit"] == hub.head("somebody/tuned").oid
    record = json.loads((models / "fetched" / "pv-merge.json").read_bytes())
    assert record["models"][1]["commit"] == said["models"][1]["commit"]
    write(models, document(models=[{**one, "model": "somebody/else"}, two]))
    refused = process(*build, "-o", "no", env=env)
    assert refused.code == 5 and "no such model on the Hub" in refused.err and not (models / "no").exists()


def test_fp32_models_on_a_bf16_base(models: Path, pv: InProcess) -> None:
    """A trainer that saved in fp32; the result is as wide as the base."""
    write(models, document())
    whole = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "--json").json
    table = {
        name: ("F32", shape, f32(raw).tobytes()) for name, (_, shape, raw) in tensors(models / "a").items()
    }
    write_tensors(models / "a" / "model.safetensors", table)
    again = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "--json", "--force").json
    assert again["weights"] == whole["weights"]


def test_a_dry_run_reads_headers_only(models: Path, process: Processes, pv: InProcess) -> None:
    write(models, document())
    answer = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "-n", "--json").json
    assert answer["method"] == "task_arithmetic" and answer["models"][1]["weights"] == [0.5, 0.5]
    assert answer["bytes_read"] == 3 * sum(answer["sizes"].values())
    said = pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out", "--dry-run")
    assert "./b" in said.out and "0.25" in said.out and "reads " in said.out
    assert not (models / "out").exists()
    for name in ("base", "a", "b"):  # 20 GB each, which no disk has
        shutil.rmtree(models / name)
        (models / name).mkdir()
        header = json.dumps(
            {
                "model.layers.0.x.weight": {
                    "dtype": "BF16",
                    "shape": [10_000_000_000],
                    "data_offsets": [0, 2 * 10**10],
                }
            }
        ).encode()
        with (models / name / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 2 * 10**10)
    assert process("build", "--from-mergekit", "merge.yml", "-o", "out", "-n").code == 0


def test_its_answers_have_the_documented_type(models: Path, pv: InProcess) -> None:
    write(models, document(parameters={"int8_mask": True}))
    for more in ((), ("-n",)):
        said = pv("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "--json", *more)
        assert keeps_to_it(said, "build") == []
        assert said.json["notes"] == ["parameters.int8_mask has no meaning in pv's task_arithmetic"]


def test_a_folder_is_replaced_only_if_pv_made_it_and_it_is_told_to(models: Path, pv: InProcess) -> None:
    write(models, document())
    build = ("build", "--from-mergekit", "merge.yml", "-o")
    pv.ok(*build, "out")
    assert "--force replaces" in pv(*build, "out").err
    pv.ok(*build, "out", "--force")
    for name in ("base", "a"):
        before = snapshot(models / name)
        said = pv(*build, name, "--force")
        assert (said.code, said.out) == (2, "") and "which is merged" in said.err
        assert snapshot(models / name) == before
    (models / "mine").mkdir()
    (models / "mine" / "notes.txt").write_text("mine")
    assert pv(*build, "mine", "--force").code == 2
    assert (models / "mine" / "notes.txt").read_text() == "mine"
    write(models, document(base_model="./out", models=[{"model": "./a", "parameters": {"weight": 1}}]))
    pv.ok(*build, "again")  # what was merged can be merged again, and takes nothing of pv's along
    assert json.loads((models / "again" / "pv-merge.json").read_bytes())["config"]["base_model"] == "./out"


def test_with_a_revision_or_without_a_folder_it_is_refused(models: Path, pv: InProcess) -> None:
    write(models, document())
    assert "leave one of the two out" in pv("build", "v1", "--from-mergekit", "merge.yml", "-o", "out").err
    assert "--hash goes with --from-mergekit" in pv("build", "-o", "out", "--hash").err
    assert "pv build --from-mergekit merge.yml -o DIR" in pv("build", "--from-mergekit", "merge.yml").err
