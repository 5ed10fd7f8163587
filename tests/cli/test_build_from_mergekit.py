"""pv build --from-mergekit: folders to a folder, and everything that is wrong with a document or a model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.scripting import keeps_to_it
from support.tiny import tiny_checkpoint

Document = dict[str, Any]


@pytest.fixture
def models(made: World, tmp_path: Path) -> Path:
    """base, a and b beside each other: b's fine-tune is a's, doubled."""
    shutil.copytree(made.base, tmp_path / "base")
    shutil.copytree(made.tuned, tmp_path / "a")
    shutil.copytree(made.base, tmp_path / "b")
    table, moved = tensors(made.base), tensors(made.tuned)
    for name, (dtype, shape, raw) in table.items():
        both = [
            (np.frombuffer(x, np.uint16).astype(np.uint32) << 16).view(np.float32)
            for x in (raw, moved[name][2])
        ]
        out = (2 * both[1] - both[0]).view(np.uint32) >> 16
        table[name] = (dtype, shape, out.astype(np.uint16).tobytes())
    write_tensors(tmp_path / "b" / "model.safetensors", table)
    return tmp_path


def document(**changes: Any) -> Document:
    """Task arithmetic of a and b; a change to None takes the key out."""
    whole: Document = {
        "merge_method": "task_arithmetic",
        "base_model": "./base",
        "models": [
            {"model": "./a", "parameters": {"weight": 0.5}},
            {"model": "./b", "parameters": {"weight": 0.25}},
        ],
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


def write(folder: Path, document: Document | str) -> Path:
    file = folder / "merge.yml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return file


def f32(raw: bytes) -> Any:
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)


# What it makes


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
    said = process(*build, "-o", "no", env=env)
    assert said.code == 5 and "no such model on the Hub" in said.err and not (models / "no").exists()


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


# What is wrong with the document


def weighing(weight: Any, **parameters: Any) -> Document:
    return document(models=[{"model": "./a", "parameters": {"weight": weight, **parameters}}])


def sliced(*ranges: Any, **more: Any) -> Document:
    sources = [
        {"model": f"./{name}", "layer_range": r} for name, r in zip(("base", "a"), ranges, strict=True)
    ]
    return document(models=None, slices=[{"sources": sources, **more}], parameters={"weight": 1})


DOCUMENTS: Mapping[str, tuple[Document | str, str]] = {
    "not YAML": ("models: [", "merge.yml, line 1: not YAML"),
    "a Python object": ("!!python/object/apply:os.system ['true']", "not YAML that can be read"),
    "no mapping": ("- 1\n", "is not a mergekit document"),
    "empty": ("", "is not a mergekit document"),
    "two documents": ("a: 1\n---\nb: 2\n", "not YAML that can be read"),
    "a key twice": ("merge_method: ties\nmerge_method: linear\n", "key 'merge_method' appears twice"),
    "a date": ("merge_method: 2020-01-01\n", "merge_method is a date"),
    "not finite": ("merge_method: ties\nparameters: {weight: .nan}\n", "parameters.weight is not a finite number"),
    "a bomb": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "too large or too deep",
    ),
    "a key of numbers": ("1: x\n", "is not a text"),
    "unknown key": (document(merge_methods="x"), "merge_methods is not in the subset"),
    "unknown key of a model": (document(models=[{"model": "./a", "weight": 1}]), "models[0].weight is not in the"),
    "modules": (document(modules={}), "modules is not in the subset"),
    "chat_template": (document(chat_template="auto"), "chat_template is not in the subset"),
    "tokenizer": (document(tokenizer={"source": "union"}), "tokenizer is not in the subset"),
    "tokenizer_source": (document(tokenizer_source="union"), "tokenizer_source: 'union' is not"),
    "unknown method": (document(merge_method="frankenmerge"), "pv has no 'frankenmerge'"),
    "no method": (document(merge_method=None), "merge_method is missing"),
    "no base": (document(base_model=None), "base_model is missing: task_arithmetic needs it"),
    "no models": (document(models=None), "either models or slices"),
    "models are no list": (document(models={"model": "./a"}), "models must be a list"),
    "no model": (document(models=[]), "models must be a list"),
    "a model without a name": (document(models=[{"parameters": {}}]), "models[0] must have a key model"),
    "a model that is a table": (document(models=[{"model": {"path": "x"}}]), "models[0].model must be a folder"),
    "only the base": (document(models=[{"model": "./base"}]), "merges 1 or more models besides the base"),
    "a model twice": (document(models=[*document()["models"], document()["models"][0]]), "models[2] is './a' again"),
    "two to pass through": (document(merge_method="passthrough", base_model=None), "passthrough merges 1 models"),
    "one folder, two names": (
        document(models=[{"model": "base"}, *document()["models"]]), "'./base' and 'base' are the same checkpoint"),
    "an adapter on a model": (document(models=[{"model": "./a+./lora"}]), "a model and an adapter on it are not in"),
    "unknown parameter": (weighing(1, wieght=2), "models[0].parameters.wieght is not a parameter of task_arithmetic"),
    "unknown global parameter": (document(parameters={"t": 0.5}), "parameters.t is not a parameter"),
    "a global parameter at a model": (weighing(1, normalize=True), "models[0].parameters.normalize: normalize is one"),
    "parameters are no table": (document(parameters=[1]), "parameters must be a table"),
    "no weight": (document(models=[{"model": "./a"}]), "models[0]: weight is missing"),
    "no weight for some": (weighing([{"filter": "mlp", "value": 1}]), "models[0]: weight is missing for tensor"),
    "weight is no number": (weighing("much"), "models[0].parameters.weight must be a number, not 'much'"),
    "weight is true": (weighing(True), "must be a number, not True"),
    "weight is too much": (weighing(1e9), "models[0].parameters.weight is 1e+09"),
    "a switch that is none": (document(parameters={"normalize": "yes please"}), "parameters.normalize must be true"),
    "an empty gradient": (weighing([]), "models[0].parameters.weight is an empty list"),
    "an entry that is none": (weighing([{"filter": "mlp"}]), "models[0].parameters.weight[0] must be {filter"),
    "a filter that is none": (weighing([{"filter": 3, "value": 1}]), "weight[0].filter must be part of a"),
    "a filter for nothing": (
        weighing([{"filter": "self_atn", "value": 1}, {"value": 0.5}]),
        "weight[0]: the filter 'self_atn' decides for no tensor",
    ),
    "a filter behind all": (
        weighing([{"value": 0.5}, {"filter": "mlp", "value": 1}]), "weight[1]: the filter 'mlp' decides for no tensor"
    ),
    "density 0": (document(merge_method="ties", parameters={"density": 0}), "parameters.density is 0"),
    "density 2": (document(merge_method="ties", parameters={"density": 2}), "parameters.density is 2"),
    "rescale": (document(merge_method="ties", parameters={"rescale": True}), "parameters.rescale: pv"),
    "weights that sum to 0": (
        document(merge_method="linear", base_model=None, parameters={"weight": 0},
                 models=[{"model": "./a"}, {"model": "./b"}]), "the weights sum to 0"),
    "weights of 0": (
        document(merge_method="ties", parameters={"weight": 0}, models=[{"model": "./a"}, {"model": "./b"}]),
        "the weights of all models are 0"),
    "a negative weight, normalized": (
        document(merge_method="ties", parameters={"weight": -1}, models=[{"model": "./a"}]),
        "the weight of ./a is -1: divided by the sum"),
    "a negative weight of arithmetic, normalized": (
        document(parameters={"normalize": True}, models=[{"model": "./a", "parameters": {"weight": -1}}]),
        "the weight of ./a is -1"),
    "dtype": (document(dtype="float8"), "dtype cannot be 'float8'"),
    "out_dtype": (document(out_dtype=16), "out_dtype cannot be 16"),
    "two slices": (document(models=None, slices=[{}, {}]), "slices must be a list with one slice"),
    "some layers": (sliced([0, 1], [0, 1]), "slices[0] has layers [0, 1] of 2"),
    "other layers": (sliced([0, 2], [1, 2]), "slices[0].sources[1].layer_range differs"),
    "no layers": (sliced([0, 2], None), "slices[0].sources[1].layer_range must be"),
    "layers in words": (sliced("all", "all"), "layer_range must be [0, NUMBER_OF_LAYERS]"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS)
def test_what_a_document_may_not_say(models: Path, pv: InProcess, case: str) -> None:
    wrong, words = DOCUMENTS[case]
    write(models, wrong)
    refused(models, pv, 2, words)


def test_a_document_that_is_not_there(models: Path, pv: InProcess) -> None:
    refused(models, pv, 5, "no file")
    (models / "merge.yml").mkdir()
    refused(models, pv, 2, "cannot be read")
    (models / "merge.yml").rmdir()
    (models / "merge.yml").write_bytes(b"# " + b"x" * (2 << 20))
    refused(models, pv, 2, "longer than")


# What is wrong with the models


def in_weights(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(models: Path) -> None:
        table = tensors(models / "b")
        change(table)
        write_tensors(models / "b" / "model.safetensors", table)

    return apply


def in_json(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def apply(models: Path) -> None:
        content = json.loads((models / "b" / name).read_bytes())
        change(content)
        (models / "b" / name).write_text(json.dumps(content))

    return apply


NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"


def empty(models: Path) -> None:
    shutil.rmtree(models / "b")
    (models / "b").mkdir()


def other_shape(table: dict[str, Any]) -> None:
    dtype, shape, raw = table[UP]
    table[UP] = (dtype, (shape[0] // 2, shape[1]), raw[: len(raw) // 2])


def other_vocabulary(table: dict[str, Any]) -> None:
    dtype, (rows, width), raw = table["model.embed_tokens.weight"]
    table["model.embed_tokens.weight"] = (dtype, (rows + 16, width), raw + bytes(32 * width))


def other_dtype(table: dict[str, Any]) -> None:
    _, shape, raw = table[UP]
    table[UP] = ("I16", shape, raw)


def with_bits(bits: int) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        dtype, shape, raw = table[UP]
        table[UP] = (dtype, shape, raw[:-2] + bits.to_bytes(2, "little"))

    return change


def swap_two_tokens(tokenizer: Any) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


MODELS: Mapping[str, tuple[Callable[[Path], object], int, str, str]] = {
    "missing": (lambda m: shutil.rmtree(m / "b"), 5, "no checkpoint at", "b"),
    "an empty folder": (empty, 5, "no safetensors", "b"),
    "lacks a tensor": (in_weights(lambda t: t.pop(NORM)), 3, f"'{NORM}' is missing", "b does not fit"),
    "has one more": (in_weights(lambda t: t.update({"more.weight": t[NORM]})), 3, "'more.weight' is not in", "b does"),
    "another shape": (in_weights(other_shape), 3, f"'{UP}' has shape", "fine-tunes of one base"),
    "another dtype": (in_weights(other_dtype), 3, f"'{UP}' is I16", "b does not fit"),
    "another vocabulary": (in_weights(other_vocabulary), 3, "has a vocabulary of 288 tokens", "fine-tunes of one base"),
    "another architecture": (
        in_json("config.json", lambda c: c.update(model_type="mistral")), 3, "./b is another architecture", "mistral"),
    "other heads": (
        in_json("config.json", lambda c: c.update(num_attention_heads=8)), 3, "num_attention_heads is 8, not 4", "./b"),
    "another tokenizer": (in_json("tokenizer.json", swap_two_tokens), 3, "./b has another tokenizer", "'a'"),
    "NaN": (in_weights(with_bits(0x7FC0)), 3, f"./b: tensor '{UP}' holds infinite or undefined", "leave the model"),
    "infinity": (in_weights(with_bits(0xFF80)), 3, f"./b: tensor '{UP}' holds infinite or undefined", "leave"),
    "not JSON": (lambda m: (m / "b" / "config.json").write_text("{"), 3, "./b: config.json is not", ""),
    "cut": (lambda m: os.truncate(m / "b" / "model.safetensors", 5000), 3, "model.safetensors", ""),
    "an adapter": (
        lambda m: ((m / "b" / "model.safetensors").rename(m / "b" / "adapter_model.safetensors"),
                   (m / "b" / "adapter_config.json").write_text("{}")), 3, "is an adapter", ""),
    "a pickle": (
        lambda m: (m / "b" / "model.safetensors").rename(m / "b" / "pytorch_model.bin"), 3, "is a pickle", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_what_a_model_may_not_be(models: Path, pv: InProcess, case: str, method: str) -> None:
    break_it, code, *words = MODELS[case]
    write(models, document(merge_method=method))
    break_it(models)
    refused(models, pv, code, *words)


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80])
def test_a_base_that_is_not_finite(models: Path, pv: InProcess, bits: int) -> None:
    write(models, document())
    table = tensors(models / "base")
    with_bits(bits)(table)
    write_tensors(models / "base" / "model.safetensors", table)
    refused(models, pv, 3, "./base: tensor", "holds infinite or undefined weights")


def test_what_is_copied_is_looked_at_too(models: Path, pv: InProcess) -> None:
    """A model alone at weight 1 is not computed."""
    in_weights(with_bits(0x7FC0))(models)
    write(models, document(models=[{"model": "./b", "parameters": {"weight": 1}}]))
    refused(models, pv, 3, "./b: tensor", "holds infinite or undefined weights")


def test_integers_must_be_the_same(models: Path, pv: InProcess) -> None:
    write(models, document())
    for i, name in enumerate(("base", "a", "b")):
        table = tensors(models / name)
        table["steps"] = ("I32", (1,), i.to_bytes(4, "little"))
        write_tensors(models / name / "model.safetensors", table)
    refused(models, pv, 3, "tensor 'steps' is I32, which cannot be merged", "./base and ./a")
    for name in ("a", "b"):
        table = tensors(models / name)
        table["steps"] = ("I32", (1,), bytes(4))
        write_tensors(models / name / "model.safetensors", table)
    pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert tensors(models / "out")["steps"] == ("I32", (1,), bytes(4))


def test_a_head_of_its_own(models: Path, pv: InProcess, tmp_path: Path) -> None:
    """An untied base, and a model without a head: it is not taken for tied because nobody hashed the base."""
    write(models, document())
    shutil.rmtree(models / "base")
    tiny_checkpoint(models / "base", tied=False)
    refused(models, pv, 3, "the base has a head of its own", "lm_head.weight")


def test_another_chat_template_is_a_note(models: Path, pv: InProcess) -> None:
    write(models, document())
    (models / "b" / "chat_template.jinja").write_text("{{ messages }}")
    said = pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert "note: ./b has another chat template than ./base, whose the result has" in said.err


def test_too_much_for_the_output(models: Path, pv: InProcess) -> None:
    write(models, weighing(1e6) | {"dtype": "float16", "parameters": {"lambda": 1e6}})
    refused(models, pv, 3, "would hold infinite or undefined weights as F16")


def test_a_full_disk(models: Path, process: Processes) -> None:
    write(models, document())
    limit = 40 * 1024
    said = process(
        "build", "--from-mergekit", "merge.yml", "-o", "out", preexec_fn=lambda: _limit_files(limit)
    )
    assert said.code == 74, said
    assert not leftovers(models)


def _limit_files(nbytes: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))


def refused(models: Path, pv: InProcess, code: int, *words: str) -> None:
    """One error with a hint, nothing written, the models as they were."""
    before = snapshot(models)
    said = pv("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "--json", "--threads", "1")
    assert (said.code, said.out) == (code, ""), said
    error = said.error
    assert error["hint"], error
    for word in words:
        assert word in f"{error['message']} {error['hint']}", error
    assert snapshot(models) == before
    of_values = "infinite" in error["message"] or "cannot be merged" in error["message"]
    assert pv("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "-n").code == (
        0 if of_values else code
    )


def leftovers(models: Path) -> list[str]:
    return [path.name for path in models.iterdir() if path.name.startswith((".", "out"))]


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }
