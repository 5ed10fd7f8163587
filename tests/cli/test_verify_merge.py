"""`pv verify` of a folder that `pv build --from-mergekit` wrote: what it says without a registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import InProcess, World, tensors, write_tensors
from support.mergekit import document, make_models, write
from support.scripting import keeps_to_it


@pytest.fixture
def merged(made: World, tmp_path: Path, pv: InProcess) -> Path:
    folder = make_models(made, tmp_path)
    write(folder, document(merge_method="ties", parameters={"density": 0.5}))
    pv.ok("build", "--from-mergekit", "merge.yml", "-o", "out", "--hash", at=folder)
    return folder


def test_it_is_what_its_record_says(merged: Path, pv: InProcess) -> None:
    said = pv.ok("verify", "out")
    assert (
        "the merge by ties of 3 models, weights and files" in said.err
        and "as pv-merge.json records" in said.err
    )
    assert "./a: the files that were merged" in said.err
    assert "not checked: that these models give these weights" in said.err
    answer = pv.ok("-q", "verify", "out", "--json")
    assert keeps_to_it(answer, "verify") == []
    record = json.loads((merged / "out" / "pv-merge.json").read_bytes())
    assert answer.json["found"] == answer.json["expected"] == record["weights"]
    assert [model["same"] for model in answer.json["models"]] == [True, True, True]
    assert not (merged / ".pv").exists()


def test_merged_again(merged: Path, pv: InProcess) -> None:
    said = pv.ok("verify", "out", "--recompute")
    assert "merged again" in said.err and "not checked" not in said.err
    assert pv.ok("verify", "out", "--recompute", "--threads", "3", "--json").json["recomputed"] is True


def test_a_changed_weight_is_found(merged: Path, pv: InProcess) -> None:
    file = merged / "out" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    said = pv("verify", "out")
    assert said.code == 1 and "the weights differ" in said.out
    answer = pv("verify", "out", "--recompute", "--json")
    assert answer.code == 1 and len(answer.json["differing"]) == 1
    # the record is changed to suit: only merging again tells
    record = json.loads((merged / "out" / "pv-merge.json").read_bytes())
    record["weights"] = answer.json["found"]
    (merged / "out" / "pv-merge.json").write_text(json.dumps(record))
    assert "not checked: that these models give" in pv.ok("verify", "out").err
    assert pv("verify", "out", "--recompute").code == 1


def test_every_file_counts(merged: Path, pv: InProcess) -> None:
    out = merged / "out"
    for file in sorted(out.iterdir()):
        if file.suffix == ".safetensors" or file.name == "pv-merge.json":
            continue
        before = file.read_bytes()
        file.write_bytes(before + b" ")
        said = pv("verify", "out")
        assert said.code == 1 and f"{file.name} differs" in said.out
        assert pv("verify", "out", "--weights-only").code == 0
        file.unlink()
        assert f"{file.name} is missing" in pv("verify", "out").out
        file.write_bytes(before)
    (out / "modeling_evil.py").write_text("")
    assert "modeling_evil.py is not part of the build" in pv("verify", "out").out
    (out / "modeling_evil.py").unlink()
    (out / "README.md").write_text("fine")
    pv.ok("verify", "out")


def test_a_model_that_was_changed_or_is_gone_is_said(merged: Path, pv: InProcess) -> None:
    table = tensors(merged / "a")
    name = sorted(table)[0]
    table[name] = (*table[name][:2], bytes(len(table[name][2])))
    write_tensors(merged / "a" / "model.safetensors", table)
    (merged / "b").rename(merged / "elsewhere")
    said = pv.ok("verify", "out")  # the folder itself is as it was
    assert (
        "./a: model.safetensors differs from what was merged" in said.err and "./b: is not here" in said.err
    )
    assert pv("verify", "out", "--recompute").code == 5
    (merged / "elsewhere").rename(merged / "b")
    assert pv("verify", "out", "--recompute").code == 1


def test_without_sums_it_says_so(merged: Path, pv: InProcess) -> None:
    pv.ok("build", "--from-mergekit", "merge.yml", "-o", "plain")
    said = pv.ok("verify", "plain")
    assert "./a: its files were not hashed" in said.err and "(--hash" in said.err
    record = json.loads((merged / "plain" / "pv-merge.json").read_bytes())
    del record["files"]  # as an earlier pv wrote it
    (merged / "plain" / "pv-merge.json").write_text(json.dumps(record))
    (merged / "plain" / "config.json").write_text("{}")
    assert "has no sums of them" in pv.ok("verify", "plain").err


def test_a_record_that_names_a_file_elsewhere_is_refused(merged: Path, pv: InProcess) -> None:
    record = json.loads((merged / "out" / "pv-merge.json").read_bytes())
    name = record["models"][0]["model"]
    record["models"][0]["files"] = {"../b/model.safetensors": "0" * 64}
    (merged / "out" / "pv-merge.json").write_text(json.dumps(record))
    said = pv("verify", "out")
    assert said.code == 3 and f"'../b/model.safetensors' is no file of {name}" in said.err


def test_a_document_that_is_another_is_not_merged_again(merged: Path, pv: InProcess) -> None:
    (merged / "out" / "mergekit_config.yml").write_text(write(merged, document()).read_text())
    said = pv("verify", "out", "--recompute")
    assert said.code == 3 and "is not the document that" in said.err
    assert pv("verify", "out", "--dtype", "fp32").code == 2


def test_in_a_registry_a_revision_may_still_be_named(world: World, merged: Path, pv: InProcess) -> None:
    assert "not the build of HEAD" in pv("verify", merged / "out", "HEAD", at=world.folder).out
    assert "the merge by ties" in pv("verify", merged / "out", at=world.folder).err
