"""`pv compress`: smaller encodings of a behaviour, their errors, and how much of the effect they keep."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import InProcess, World

from pv.registry.errors import UsageError
from pv.registry.persona import Behaviour, Term
from pv.registry.registry import Registry
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.progress import Tick
from pv.vecstore.repo.candidates import Candidate, Trial, next_try, smallest
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.repo import Repo
from pv.vecstore.vectors.derive import LADDER, EncodingSpec


@pytest.fixture
def held_out(world: World) -> Path:
    return world.rows.with_name("rows.heldout.jsonl")


def terms(pv: InProcess, name: str = "listening") -> list[Any]:
    found: list[Any] = pv.ok("status", "--json").json["persona"]["behaviours"][name]["terms"]
    return found


def tau(world: World, name: str = "listening") -> dict[str, np.ndarray]:
    """tau of the behaviour's vectors, summed, in fp64."""
    with Registry.find(world.folder) as registry:
        head = registry.resolve("HEAD")
        persona = registry.persona(head)
        found: dict[str, np.ndarray] = {}
        with opened(registry, head, [persona]) as at:
            for term in persona.behaviour(name).terms:
                for tensor in at.vectors[term.vector].manifest.tensors:
                    delta = at.vectors[term.vector].tau(tensor).astype(np.float64) * term.coefficient
                    found[tensor] = found.get(tensor, 0) + delta
    return found


# One encoding


@pytest.mark.parametrize("encoding", ["float", "float:fp32", "int8", "ternary", "lowrank:2", "sparse:0.1"])
def test_a_packed_behaviour_is_another_vector(world: World, pv: InProcess, encoding: str) -> None:
    before, had = tau(world), terms(pv)
    pv.ok("scale", "listening", "0.5")
    if encoding == "int8":
        pv.ok("compress", "listening", "--to", "float", "--force")
        had, before = terms(pv), tau(world)
    said = pv.ok("compress", "listening", "--to", encoding, "--json", "--force")
    assert said.json["chosen"] == encoding
    assert said.json["before"]["encodings"] == ["float" if encoding == "int8" else "int8"]
    ((old, new),) = said.json["vectors"].items()
    assert [[1, old]] == had
    assert terms(pv) == [[1, new]]
    assert pv.ok("status", "--json").json["persona"]["behaviours"]["listening"]["weight"] == 0.5

    shown = pv.ok("show", "--json").json
    provenance = shown["provenance"][new]
    (found,) = said.json["candidates"]
    assert provenance["kind"] == "derived"
    assert provenance["derived_from"] == old
    assert provenance["encoding"] == encoding
    assert provenance["original"]["kind"] == "trained"
    assert provenance["error"] == found["error"]
    after = tau(world)
    change = np.concatenate([(after[name] - before[name]).ravel() for name in sorted(before)])
    whole = np.concatenate([before[name].ravel() for name in sorted(before)])
    assert found["error"]["relative_l2"] == pytest.approx(np.linalg.norm(change) / np.linalg.norm(whole))
    assert found["error"]["max_abs"] == pytest.approx(np.abs(change).max())
    assert found["stored_bytes"] == (world.folder / ".pv" / "packs" / new[:2] / new).stat().st_size

    pv.ok("build", "-o", world.folder / "built")
    pv.ok("undo")
    assert terms(pv) == had


def test_what_a_person_sees(world: World, pv: InProcess, held_out: Path) -> None:
    said = pv.ok("compress", "listening", "--to", "ternary", "--data", held_out)
    assert "✓ " in said.err
    assert "listening is ternary: " in said.err
    assert re.search(r"int8 \(now\) +\S+ .B +- +[+-]\d", said.out)
    assert re.search(r"ternary +\S+ .B +0\.\d+ +[+-]\d+\.\d+ \[.*\] +\d\.\d+ \[\d", said.out)
    quiet = pv.ok("-q", "compress", "listening", "--to", "sparse:0.05")
    assert (quiet.out, quiet.err) == ("", "")
    assert "Compress listening as sparse:0.05" in pv.ok("log").out


def test_the_measured_effect_is_noted(world: World, pv: InProcess, held_out: Path) -> None:
    said = pv.ok("compress", "listening", "--to", "sparse:0.3", "--data", held_out, "--json").json
    (new,) = said["vectors"].values()
    measured = pv.ok("show", "--json").json["provenance"][new]["measured"]
    (trial,) = said["candidates"]
    assert measured["data"] == "rows.heldout.jsonl"
    assert measured["effect"] == trial["effect"]
    assert measured["kept"] == trial["kept"]
    # the same that eval says of the commit
    effect = pv.ok("eval", held_out, "--json").json["effect"]
    assert effect["mean"] == trial["effect"]["mean"]
    before = said["before"]["effect"]["mean"]
    assert trial["kept"]["mean"] == pytest.approx(trial["effect"]["mean"] / before)


# The search


def test_the_smallest_that_keeps_the_share(world: World, pv: InProcess, held_out: Path) -> None:
    ladder = ("--to", "float", "--to", "ternary", "--to", "sparse:0.3", "--to", "sparse:0.001")
    said = pv.ok("compress", "listening", "--keep", "0.5", "--data", held_out, *ladder, "--json").json
    sizes = [found["stored_bytes"] for found in said["candidates"]]
    assert sizes == sorted(sizes, reverse=True)
    tried = {found["encoding"]: found for found in said["candidates"]}
    assert "effect" not in tried["float"]  # not smaller than int8: not worth measuring
    assert tried["float"]["stored_bytes"] > said["before"]["stored_bytes"]
    good = [found for found in said["candidates"] if found.get("kept") and found["kept"]["low"] >= 0.5]
    assert said["chosen"] == min(good, key=lambda found: found["stored_bytes"])["encoding"]
    assert said["chosen"] != "sparse:0.001"
    assert terms(pv) == [[1, said["vectors"][next(iter(said["vectors"]))]]]
    measured = pv.ok("show", "--json").json["provenance"][terms(pv)[0][1]]["measured"]
    assert measured["share"] == 0.5
    # only what was chosen stays
    packs = {path.name for path in (world.folder / ".pv" / "packs").rglob("*") if path.is_file()}
    assert terms(pv)[0][1] in packs
    assert not list((world.folder / ".pv" / "tmp").iterdir())


def test_between_two_rungs_it_looks_closer(world: World, pv: InProcess, held_out: Path) -> None:
    said = pv.ok("compress", "listening", "--keep", "0.9", "--data", held_out, "--json").json
    tried = {found["encoding"]: found for found in said["candidates"]}
    more = [text for text in tried if text not in LADDER]
    assert 1 <= len(more) <= 3 and "lowrank:8" in more  # between 16, which keeps it, and 4
    good = [found for found in tried.values() if found.get("kept") and found["kept"]["low"] >= 0.9]
    assert said["chosen"] == min(good, key=lambda found: found["stored_bytes"])["encoding"]
    assert tried[said["chosen"]]["stored_bytes"] <= tried["lowrank:16"]["stored_bytes"]


@pytest.mark.parametrize(
    ("keeps", "loses", "wanted"),
    [
        ("lowrank:64", "lowrank:16", "lowrank:32"),
        ("lowrank:16", "lowrank:14", None),  # hardly smaller
        ("lowrank:2", "lowrank:1", None),  # nothing between
        ("sparse:0.1", "sparse:0.02", "sparse:0.045"),
        ("lowrank:4", "sparse:0.02", None),
        ("int8", "ternary", None),
    ],
)
def test_halfway(keeps: str, loses: str, wanted: str | None) -> None:
    trials = [
        Trial(_candidate(text, size), Interval(1, 1, 1, 4), Interval(low, low, low, 4))
        for text, size, low in [
            ("float", 99, 1.0),
            (loses, 10, 0.5),
            (keeps, 20, 0.9),
            ("sparse:0.001", 1, 0.1),
        ]
    ]
    found = next_try(trials, 0.8)
    assert (found and found.text) == wanted
    assert next_try(trials, 0.95) is None  # float keeps it, and has no rungs
    if found:  # once is enough
        again = Trial(_candidate(found.text, 10), Interval(1, 1, 1, 4), Interval(0.5, 0.5, 0.5, 4))
        assert (more := next_try([*trials, again], 0.8)) is None or more.text != found.text
    assert next_try(trials, 1.1) is None


def test_none_keeps_the_share(world: World, pv: InProcess, held_out: Path) -> None:
    state = {name: value for name, value in world.state().items() if not name.startswith("records/")}
    said = pv("compress", "listening", "--keep", "0.99", "--data", held_out, "--to", "sparse:0.001")
    assert said.code == 1
    assert "loses more" in said.out
    assert "no smaller encoding keeps 0.99 of the effect of listening" in said.err
    again = pv(
        "compress", "listening", "--keep", "0.99", "--data", held_out, "--to", "sparse:0.001", "--json"
    )
    assert again.code == 1
    assert again.json["commit"] is None
    assert again.json["chosen"] is None
    after = {name: value for name, value in world.state().items() if not name.startswith("records/")}
    assert after == state


def test_a_behaviour_without_an_effect(world: World, pv: InProcess, held_out: Path) -> None:
    rows = [json.loads(line) for line in held_out.read_text().splitlines()]
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    other = held_out.with_name("turned.jsonl")
    other.write_text("".join(json.dumps(row) + "\n" for row in turned))
    said = pv("compress", "listening", "--keep", "0.5", "--data", other, "--to", "ternary")
    assert said.code == 1
    assert "on these rows is not clearly above 0: there is nothing to keep" in said.err
    assert re.search(r"ternary .* - +loses more", said.out)


def test_an_effect_that_is_not_there_is_not_kept() -> None:
    nothing = Trial(_candidate("int8", 10), Interval(0.0, -1.0, 1.0, 4), None)
    assert not nothing.keeps(0.1)
    assert smallest([nothing], 0.1) is None


def test_the_whole_interval_must_lie_above() -> None:
    trials = [
        Trial(_candidate(text, stored), Interval(1, 0.5, 1.5, 4), Interval(mean, low, 1.2, 4))
        for text, stored, mean, low in [
            ("float", 90, 1.0, 0.99),
            ("int8", 50, 0.97, 0.96),
            ("ternary", 20, 0.98, 0.90),
        ]
    ]
    chosen = smallest(trials, 0.95)
    assert chosen is not None
    assert chosen.candidate.spec.text == "int8"
    assert smallest(trials, 0.995) is None


def _candidate(text: str, stored: int) -> Candidate:
    from pv.vecstore.vectors.derive import Error

    return Candidate(EncodingSpec.parse(text), {}, stored, Error(0.0, 0.0))


# Several vectors; other hands


def test_every_term_is_packed(world: World, pv: InProcess) -> None:
    pv.ok("commit", world.tuned, "--as", "other")
    with Registry.find(world.folder) as registry:
        persona = registry.persona()
        first, second = (persona.behaviour(name).terms[0].vector for name in ("listening", "other"))
        both = Behaviour(0.8, (Term(1.0, first), Term(-0.5, second), Term(0.25, first)), {"*mlp*": 0.5})
        registry.change("test", "Both", lambda p: p.with_behaviour("both", both))
    before = tau(world, "both")
    said = pv.ok("compress", "both", "--to", "lowrank:8", "--force", "--json").json
    assert said["before"]["encodings"] == ["exact", "int8"]
    new = said["vectors"]
    assert terms(pv, "both") == [[1, new[first]], [-0.5, new[second]], [0.25, new[first]]]
    assert terms(pv, "listening") == [[1, first]]  # the others keep what they have
    kept = pv.ok("status", "--json").json["persona"]["behaviours"]["both"]
    assert kept["modules"] == {"*mlp*": 0.5}
    after = tau(world, "both")
    change = sum(np.square(after[n] - before[n]).sum() for n in before)
    assert 0 < change < sum(np.square(before[n]).sum() for n in before)


def test_a_behaviour_that_changes_meanwhile(world: World, pv: InProcess) -> None:
    def meanwhile(*arguments: str | Path) -> Callable[[Tick], None]:
        """Run a command when the encoding begins, as another terminal would."""
        left = [arguments]

        def report(tick: Tick) -> None:
            if tick.stage.startswith("encoding") and left:
                pv.ok(*left.pop())

        return report

    with Repo.open(world.folder) as repo:
        repo.compress("listening", "ternary", progress=meanwhile("scale", "listening", "0.25"))
        assert repo.persona.behaviour("listening").weight == 0.25  # a weight is not what was compressed
        with pytest.raises(UsageError, match="has changed while it was being compressed"):
            changed = meanwhile("commit", world.tuned, "--as", "listening")
            repo.compress("listening", "sparse:0.2", force=True, progress=changed)


def test_packed_twice_the_first_origin_stays(world: World, pv: InProcess) -> None:
    pv.ok("compress", "listening", "--to", "float", "--force")
    (first,) = terms(pv)
    pv.ok("compress", "listening", "--to", "sparse:0.2")
    provenance = pv.ok("show", "--json").json["provenance"][terms(pv)[0][1]]
    assert provenance["derived_from"] == first[1]
    assert provenance["original"]["kind"] == "trained"


def test_what_would_be_larger_is_refused(world: World, pv: InProcess) -> None:
    state = world.state()
    said = pv("compress", "listening", "--to", "float")
    assert said.code == 2
    assert re.search(r"as float, listening would take \S+ kB, and takes \S+ kB now", said.err)
    assert "--force" in said.err
    assert world.state() == state
    assert "listening is int8 already" in pv("compress", "listening", "--to", "int8").err
    pv.ok("compress", "listening", "--to", "lowrank:4")
    assert "listening is lowrank:4 already" in pv("compress", "listening", "--to", "lowrank:4").err
    pv.ok("compress", "listening", "--to", "lowrank:2")
    pv.ok("undo")
    pv.ok("undo")
    pv.ok("compress", "listening", "--to", "float", "--force")
    shown = pv.ok("show").out
    assert re.search(r"~ listening  vector [0-9a-f]{12} -> [0-9a-f]{12}\n", shown)
    made = r"  float of [0-9a-f]{12}, relative L2 error of the vector 0\.00\d\n  effect not measured in this encoding\n"
    assert re.search(made + "  trained on ", shown)


def test_what_it_is_already(world: World, pv: InProcess) -> None:
    pv.ok("compress", "listening", "--to", "float", "--force")
    said = pv("compress", "listening", "--to", "float")
    assert said.code == 2
    assert "nothing changed" in said.err


# What is refused


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["listening"], 2, "--to ENCODING"),
        (["listening", "--to", "int8", "--to", "float"], 2, "--to ENCODING"),
        (["listening", "--keep", "0.9"], 2, "--data"),
        (["listening", "--to", "int9"], 2, "there are: float"),
        (["listening", "--to", "exact"], 2, "was captured"),
        (["listening", "--to", "lora:4"], 2, "lowrank:64 makes factors"),
        (["listening", "--to", "lowrank"], 2, "no encoding 'lowrank'"),
        (["listening", "--to", "lowrank:0"], 2, "no encoding"),
        (["listening", "--to", "lowrank:-4"], 2, "no encoding"),
        (["listening", "--to", "sparse:0"], 2, "no encoding"),
        (["listening", "--to", "sparse:nan"], 2, "no encoding"),
        (["listening", "--to", "sparse:1.5"], 2, "no encoding"),
        (["listening", "--to", "int8:4"], 2, "no encoding"),
        (["listening", "--keep", "0", "--data", "x"], 2, "--keep"),
        (["listening", "--keep", "1.5", "--data", "x"], 2, "--keep"),
        (["nobody", "--to", "int8"], 5, "nobody"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage(world: World, pv: InProcess, arguments: list[str], code: int, word: str) -> None:
    said = pv("compress", *arguments)
    assert said.code == code
    assert word in said.err


def test_every_rung_of_the_ladder_is_an_encoding() -> None:
    assert [EncodingSpec.parse(text).text for text in LADDER] == list(LADDER)


# Adapters


def test_an_adapter_is_committed_as_factors(world: World, pv: InProcess, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"])
        wrapped = peft.get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        wrapped.save_pretrained(tmp_path / "my-lora")
        merged = wrapped.merge_and_unload().state_dict()

    said = pv.ok("commit", tmp_path / "my-lora", "--as", "brief", "--json").json
    shown = pv.ok("show", "--json").json
    provenance = shown["provenance"][said["vector"]]
    assert provenance["kind"] == "captured"
    assert provenance["source"] == "my-lora"
    assert provenance["adapter"]["low_rank"] == said["tensors"] == 3
    assert provenance["adapter"]["config"]["peft_type"] == "LORA"
    pv.ok("drop", "listening")
    pv.ok("build", "-o", world.folder / "built", "--dtype", "fp32")
    for name, tensor in load_file(world.folder / "built" / "model.safetensors").items():
        assert torch.allclose(tensor, merged[name], rtol=1e-6, atol=1e-7), name
    note = pv.ok("commit", tmp_path / "my-lora", "--as", "again").err
    assert "the head moves with model.embed_tokens.weight" in note


def test_an_adapter_that_is_no_lora(world: World, pv: InProcess, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    said = pv("commit", tmp_path, "--as", "brief", "--json")
    assert said.code == 3
    assert "IA3" in said.error["message"]
    assert "merge_and_unload" in said.error["hint"]
