"""pv export --mergekit: the recipe as YAML, which gives the same weights; and what mergekit cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import InProcess, World, tensors, write_tensors
from support.scripting import keeps_to_it


@pytest.fixture
def two(world: World, pv: InProcess, tmp_path: Path) -> World:
    """A persona of two captured behaviours, `tuned` and `other`; `listening`, which pv trained, has no weight."""
    table = tensors(world.tuned)
    base = tensors(world.base)
    for i, name in enumerate(sorted(table)):
        if i % 2:
            table[name] = base[name]
    other = tmp_path / "other"
    other.mkdir()
    write_tensors(other / "model.safetensors", table)
    for source, name, weight in ((world.tuned, "tuned", "0.5"), (other, "other", "-0.25")):
        pv.ok("commit", source, "--as", name, "--weight", weight)
    pv.ok("scale", "listening", "0")
    return world


def exported(pv: InProcess, *words: str) -> dict[str, Any]:
    """The document, with every behaviour in the folder that it names."""
    said = pv("-q", "export", "--mergekit", *words, "-o", "merge.yml", "--force", "--json")
    assert said.code == 0 and keeps_to_it(said, "export") == [], said
    document: dict[str, Any] = yaml.safe_load((pv.at / "merge.yml").read_text())
    assert document == said.json["document"]
    for name, folder in said.json["folders"].items():
        pv.ok("export", name, "-o", folder, "--force")
    return document


def test_what_is_written_gives_the_same_weights(two: World, pv: InProcess) -> None:
    document = exported(pv)
    assert document == {
        "merge_method": "task_arithmetic",
        "base_model": str(two.base),
        "models": [
            {"model": "./other", "parameters": {"weight": -0.25}},
            {"model": "./tuned", "parameters": {"weight": 0.5}},
        ],
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    ours = pv.ok("-q", "build", "-o", "ours", "--rounding", "nearest", "--json").json
    theirs = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "theirs", "--json").json
    assert theirs["weights"] == ours["weights"]


def test_ties_gives_the_same_weights(two: World, pv: InProcess) -> None:
    pv.ok("scale", "other", "0.25")
    pv.ok("combine", "ties", "--preset", "mergekit", "--density", "0.3", "--lambda", "1.5")
    document = exported(pv)
    assert document["merge_method"] == "ties"
    assert document["parameters"] == {"density": 0.3, "normalize": True, "lambda": 1.5}
    ours = pv.ok("-q", "build", "-o", "ours", "--rounding", "nearest", "--json").json
    theirs = pv.ok("-q", "build", "--from-mergekit", "merge.yml", "-o", "theirs", "--json").json
    assert theirs["weights"] == ours["weights"]


def test_equal_weights_need_no_weighing(two: World, pv: InProcess) -> None:
    """The paper's election and mean, where all weights are the same."""
    for name in ("tuned", "other"):
        pv.ok("scale", name, "0.5")
    pv.ok("combine", "ties", "--density", "0.4")
    document = exported(pv)
    assert document["parameters"] == {"density": 0.4, "normalize": True, "lambda": 0.5}
    ours = pv.ok("-q", "build", "-o", "ours", "--dtype", "fp32", "--json").json
    exported_fp32 = pv.ok(
        "-q", "build", "--from-mergekit", "merge.yml", "-o", "theirs", "--dtype", "fp32", "--json"
    ).json
    assert ours["tensors"] == exported_fp32["tensors"]
    for name, (_, _, raw) in tensors(pv.at / "ours").items():
        import numpy as np

        a, b = (np.frombuffer(x, np.float32) for x in (raw, tensors(pv.at / "theirs")[name][2]))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_factors_of_modules_become_filters(two: World, pv: InProcess) -> None:
    from pv.registry.persona import Behaviour
    from pv.vecstore.mergekit.setting import read_setting
    from pv.vecstore.mergekit.write import _weight
    from pv.vecstore.repo.repo import Repo

    with Repo.open(pv.at) as repo:
        at = repo.at()
        terms = at.persona.behaviours["tuned"].terms
        modules = {"*.mlp.*": 0.5, "model.layers.1.*": 2.0}
        value = _weight(Behaviour(0.5, terms, modules), at.base)
        setting = read_setting(value, "weight", above=None, most=1e6)
        for name in at.base.tensors:
            entry = setting.entry(name)
            wanted = 0.5 * (0.5 if ".mlp." in name else 1) * (2 if ".layers.1." in name else 1)
            assert entry is not None and entry.at(0) == wanted


def test_it_says_what_it_needs_and_what_differs(two: World, pv: InProcess) -> None:
    said = pv.ok("export", "--mergekit")
    commit = pv.ok("status", "--json").json["commit"]
    assert f"#   pv export {commit[:12]}:tuned -o ./tuned\n" in said.out
    assert "listening" not in said.out
    assert "# the persona rounds stochastically, mergekit to nearest" in said.out
    assert "note: the persona rounds stochastically" in said.err
    assert yaml.safe_load(said.out)["merge_method"] == "task_arithmetic"
    assert pv.ok("export", "--mergekit", "-n", "-o", "merge.yml").out == said.out
    assert not (pv.at / "merge.yml").exists()


def test_a_file_is_replaced_only_if_it_is_told_to(two: World, pv: InProcess) -> None:
    pv.ok("export", "--mergekit", "-o", "merge.yml")
    before = (pv.at / "merge.yml").read_bytes()
    pv.ok("scale", "tuned", "0.75")
    said = pv("export", "--mergekit", "-o", "merge.yml")
    assert said.code == 2 and "--force replaces it" in said.err
    assert (pv.at / "merge.yml").read_bytes() == before
    pv.ok("export", "--mergekit", "-o", "merge.yml", "--force")
    assert (pv.at / "merge.yml").read_bytes() != before
    assert pv("export", "--mergekit", "-o", "no/such.yml").code == 2
    assert pv("export", "--mergekit", "-o", ".", "--force").code == 2


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (("combine", "ties"), "mergekit cannot say ties with elect=unweighted"),
        (("combine", "ties", "--elect", "weighted"), "mergekit cannot say ties with merge=mean"),
        (("drop", "tuned", "other"), "no behaviour has a weight"),
    ],
)
def test_what_mergekit_cannot_say(two: World, pv: InProcess, before: tuple[str, ...], words: str) -> None:
    pv.ok(*before)
    said = pv("-q", "export", "--mergekit", "-o", "merge.yml", "--json")
    assert (said.code, said.out) == (2, "")
    assert words in said.error["message"] and said.error["hint"]
    assert not (pv.at / "merge.yml").exists()


def test_what_is_missing_on_the_line(two: World, pv: InProcess) -> None:
    assert "no behaviour is named" in pv("export", "-o", "out").err
    assert "pv export tuned -o DIR" in pv("export", "tuned").err
    assert pv("export", "--mergekit", "nope").code == 5
