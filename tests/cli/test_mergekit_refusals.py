"""pv build --from-mergekit: everything that is wrong with a document or a model. One error, nothing written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.mergekit import Document, document, make_models, snapshot, write
from support.tiny import tiny_checkpoint


@pytest.fixture
def models(made: World, tmp_path: Path) -> Path:
    return make_models(made, tmp_path)


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
    "empty": (" \n", "merge.yml is empty"),
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
    "two to pass through": (document(merge_method="passthrough", base_model=None), "passthrough merges 1 model,"),
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
    "weight is true": (weighing(True), "must be a number, not true"),
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
    "a number of 44 digits": (weighing(int("9" * 44)), "parameters.weight is larger than any parameter"),
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


HINTS: Mapping[str, tuple[Document | str, str, str]] = {
    "a parameter at the top": (document(**{"lambda": 2}), "lambda is not in the subset", "write it under parameters"),
    "a parameter beside a model": (
        document(models=[{"model": "./a", "weight": 1}]), "models[0].weight", "write it under models[0].parameters"),
    "of the document, at a model": (
        document(merge_method="sce", models=[{"model": "./a", "parameters": {"wieght": 1}}]),
        "is not a parameter of sce", "under the document's own parameters also: select_topk"),
    "an entry without a value": (weighing([{"filter": "mlp"}]), "value: NUMBER}, and has no value", "an entry"),
    "an entry with another key": (
        weighing([{"filter": "mlp", "value": 1, "x": 2}]), "value: NUMBER}, and has a key x", "an entry"),
    "a filter that is in no name": (
        weighing([{"filter": "mpl", "value": 1}, {"value": 0.5}]), "the filter 'mpl'", "no tensor of the base"),
    "a filter behind all": (
        weighing([{"value": 0.5}, {"filter": "mlp", "value": 1}]), "the filter 'mlp'", "put it above"),
    "null": (weighing(None), "must be a number, not null", "or a list"),
    "a method in capitals": (document(merge_method="TIES"), "pv has no 'TIES'", "did you mean ties?"),
    "a method of pv's own": (
        document(merge_method="consensus"), "mergekit has no 'consensus'", "`pv combine consensus`"),
    "two along an arc": (
        document(merge_method="slerp", models=[{"model": "./a"}, {"model": "./b"}], parameters={"t": 0.5}),
        "slerp merges 1 model besides the base, the document names 2", "leave out all but 1"),
    "too few": (document(merge_method="model_stock", models=[{"model": "./a"}]), "merges 2 or more models", "name the"),
    "a base beside linear": (
        document(merge_method="linear"), "base_model: weight is missing", "the base is one of the models in linear"),
    "a negative weight, no base": (
        document(merge_method="linear", base_model=None, models=[
            {"model": "./a", "parameters": {"weight": -1}}, {"model": "./b", "parameters": {"weight": 1}}]),
        "the weight of ./a is -1", "weights of 0 and more"),
    "too deep": ("models: " + "[" * 5000 + "]" * 5000, "too deep for a mergekit document", "lists"),
    "two documents": ("a: 1\n---\nb: 2\n", "a second document begins there", "correct"),
}  # fmt: skip


@pytest.mark.parametrize("case", HINTS)
def test_what_a_hint_says(models: Path, pv: InProcess, case: str) -> None:
    wrong, words, hint = HINTS[case]
    write(models, wrong)
    refused(models, pv, 2, words, hint)


@pytest.mark.parametrize("data", [b"merge_method: ti\xe9s\n", b"\x00\x01\xff\xfe", b"PK\x03\x04"])
def test_what_is_no_text(models: Path, pv: InProcess, data: bytes) -> None:
    (models / "merge.yml").write_bytes(data)
    refused(models, pv, 2, "merge.yml is not UTF-8 text: byte", "save it as UTF-8")


def test_a_model_that_is_not_there_is_named_by_its_place(models: Path, pv: InProcess) -> None:
    write(models, document(models=[{"model": "./a"}, {"model": "./c"}], parameters={"weight": 1}))
    refused(models, pv, 5, "models[1].model: no checkpoint at")
    write(models, document(base_model="./c"))
    refused(models, pv, 5, "base_model: no checkpoint at")


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
    "lacks a tensor": (in_weights(lambda t: t.pop(NORM)), 3, f"'{NORM}' is missing", "b does not fit the base, ./base"),
    "has one more": (in_weights(lambda t: t.update({"more.weight": t[NORM]})), 3, "'more.weight' is not in", "b does"),
    "another shape": (in_weights(other_shape), 3, f"'{UP}' has shape", "fine-tunes of one base"),
    "another dtype": (in_weights(other_dtype), 3, f"'{UP}' is I16", "b does not fit the base, ./base"),
    "another vocabulary": (in_weights(other_vocabulary), 3, "has a vocabulary of 288 tokens", "fine-tunes of one base"),
    "another architecture": (
        in_json("config.json", lambda c: c.update(model_type="mistral")), 3, "./b is another architecture", "mistral"),
    "other heads": (
        in_json("config.json", lambda c: c.update(num_attention_heads=8)), 3, "num_attention_heads is 8, not 4", "./b"),
    "another tokenizer": (in_json("tokenizer.json", swap_two_tokens), 3, "./b has another tokenizer", "'a'"),
    "NaN": (in_weights(with_bits(0x7FC0)), 3, f"./b: tensor '{UP}' holds NaN or infinity", "leave the model"),
    "infinity": (in_weights(with_bits(0xFF80)), 3, f"./b: tensor '{UP}' holds NaN or infinity", "leave"),
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
    refused(models, pv, 3, "./base: tensor", "holds NaN or infinity")


def test_what_is_copied_is_looked_at_too(models: Path, pv: InProcess) -> None:
    """A model alone at weight 1 is not computed."""
    in_weights(with_bits(0x7FC0))(models)
    write(models, document(models=[{"model": "./b", "parameters": {"weight": 1}}]))
    refused(models, pv, 3, "./b: tensor", "holds NaN or infinity")


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
    of_values = (
        any(word in error["message"] for word in ("infini", "NaN")) or "cannot be merged" in error["message"]
    )
    assert pv("-q", "build", "--from-mergekit", "merge.yml", "-o", "out", "-n").code == (
        0 if of_values else code
    )


def leftovers(models: Path) -> list[str]:
    return [path.name for path in models.iterdir() if path.name.startswith((".", "out"))]
