"""pv build and pv chat: checkpoints that load elsewhere, byte for byte the same each time, and their replies."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors


def sums(out: str) -> dict[str, str]:
    """The `sha256` lines of a build's answer: {file: digest}."""
    return {line.split()[2]: line.split()[1] for line in out.splitlines() if line.startswith("sha256")}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Build


def test_the_sums_that_are_printed_are_those_of_the_files(world: World, pv: InProcess) -> None:
    said = pv.ok("build", "-o", "built")
    built = world.folder / "built"
    assert sums(said.out) == {"model.safetensors": digest(built / "model.safetensors")}
    assert said.out.splitlines()[0].startswith("build    ")
    assert "built listening 1 into" in said.err
    assert sorted(p.name for p in built.iterdir()) == sorted(
        [p.name for p in world.base.iterdir()] + ["persona.json"]
    )
    assert (built / "config.json").read_bytes() == (world.base / "config.json").read_bytes()
    assert json.loads((built / "persona.json").read_bytes()) == pv.ok("status", "--json").json["persona"]
    ours, base = tensors(built), tensors(world.base)
    assert {n: t[:2] for n, t in ours.items()} == {n: t[:2] for n, t in base.items()}
    assert ours != base
    assert ours["model.embed_tokens.weight"] == base["model.embed_tokens.weight"]


def test_it_loads_in_transformers_alone(world: World, pv: InProcess) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pv.ok("build", "-o", "built")
    model = AutoModelForCausalLM.from_pretrained(world.folder / "built", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "built")
    assert model.dtype == torch.bfloat16
    ids = tokenizer("hello", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()
    raw = tensors(world.folder / "built")["model.norm.weight"][2]
    assert torch.equal(model.model.norm.weight, torch.frombuffer(bytearray(raw), dtype=torch.bfloat16))


def test_a_base_that_is_trained_in_place_takes_nothing_away(world: World, pv: InProcess) -> None:
    """Its pinned copy stands in, tensor by tensor; what the folder holds now is never taken for the base."""
    before = sums(pv.ok("build", "-o", "before").out)
    plain = sums(pv.ok("build", "HEAD~1", "-o", "plain").out)
    weights = world.base / "model.safetensors"
    whole, changed = weights.read_bytes(), tensors(world.base)
    dtype, shape, raw = changed["model.norm.weight"]
    try:
        write_tensors(weights, {**changed, "model.norm.weight": (dtype, shape, raw[::-1])})
        assert sums(pv.ok("build", "-o", "after").out) == before
        assert sums(pv.ok("build", "HEAD~1", "-o", "after plain").out) == plain
        pv.ok("verify", "after plain", "HEAD~1")
        pv.ok("chat", "HEAD~1", "-p", "hello", "--max-tokens", "2")
    finally:
        weights.write_bytes(whole)


def test_json_says_the_same(world: World, pv: InProcess) -> None:
    said = pv.ok("build", "HEAD", "-o", "built", "--json").json
    assert said["files"] == {"model.safetensors": digest(world.folder / "built" / "model.safetensors")}
    assert said["output"] == str(world.folder / "built")
    assert said["tensors"] == len(tensors(world.base))
    assert 0 < said["touched"] < said["tensors"]
    assert said["bytes"] == sum(len(raw) for _, _, raw in tensors(world.base).values())
    again = pv.ok("build", "HEAD", "-o", "again", "--json", "--threads", "1").json
    assert {**again, "output": said["output"]} == said


def test_shards_hold_the_same_tensors(world: World, pv: InProcess) -> None:
    whole = pv.ok("build", "-o", "whole", "--json").json
    parts = pv.ok("build", "-o", "parts", "--shard-size", "0.03", "--json").json
    assert len(parts["files"]) > 2
    assert parts["weights"] == whole["weights"]
    for name, expected in parts["files"].items():
        assert digest(world.folder / "parts" / name) == expected
    assert tensors(world.folder / "parts") == tensors(world.folder / "whole")
    index = json.loads((world.folder / "parts" / "model.safetensors.index.json").read_bytes())
    assert set(index["weight_map"]) == set(tensors(world.folder / "whole"))
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(world.folder / "parts", dtype="auto")


@pytest.mark.parametrize(
    ("dtype", "stored", "word"), [("fp32", "F32", "float32"), ("fp16", "F16", "float16")]
)
def test_another_dtype(world: World, pv: InProcess, dtype: str, stored: str, word: str) -> None:
    plain = pv.ok("build", "-o", "plain", "--json").json
    said = pv.ok("build", "-o", "built", "--dtype", dtype, "--rounding", "nearest", "--json").json
    assert said["build"] != plain["build"]
    assert {dtype for dtype, _, _ in tensors(world.folder / "built").values()} == {stored}
    assert json.loads((world.folder / "built" / "config.json").read_bytes())["dtype"] == word


def test_fp32_is_base_plus_weight_times_delta(world: World, pv: InProcess) -> None:
    """Half a weight lies half-way: computed here with nothing of pv's."""
    name = "model.layers.0.mlp.up_proj.weight"

    def values(folder: str) -> list[float]:
        raw = tensors(world.folder / folder)[name][2]
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))

    for weight in ("0", "0.5", "1"):
        pv("scale", "listening", weight)
        pv.ok("build", "-o", weight, "--dtype", "fp32")
    for none, half, full in zip(values("0"), values("0.5"), values("1"), strict=True):
        assert half == pytest.approx((none + full) / 2, abs=2e-7 * max(1, abs(none)))


def test_after_a_revert_the_bytes_are_those_from_before(world: World, pv: InProcess) -> None:
    before = sums(pv.ok("build", "-o", "before").out)
    pv.ok("commit", world.tuned, "--as", "tuned", "--weight", "0.7")
    between = sums(pv.ok("build", "-o", "between").out)
    pv.ok("revert", "HEAD")
    after = sums(pv.ok("build", "-o", "after").out)
    assert before == after != between
    for file in sorted(path.name for path in (world.folder / "before").iterdir()):
        assert (world.folder / "before" / file).read_bytes() == (world.folder / "after" / file).read_bytes()
    pv.ok("undo")
    pv.ok("scale", "tuned", "0")
    zero = sums(pv.ok("build", "-o", "zero").out)
    assert zero == before, "a weight of 0 builds as if the behaviour were absent"


def test_a_folder_is_replaced_only_if_pv_made_it_and_it_is_told_to(world: World, pv: InProcess) -> None:
    pv.ok("build", "-o", "built")
    first = digest(world.folder / "built" / "model.safetensors")
    pv.ok("scale", "listening", "2")
    said = pv("build", "-o", "built")
    assert (said.code, said.out) == (2, "")
    assert "--force replaces a folder that pv built" in said.err
    assert digest(world.folder / "built" / "model.safetensors") == first
    pv.ok("build", "-o", "built", "--force")
    assert digest(world.folder / "built" / "model.safetensors") != first
    mine = world.folder / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for options in ((), ("--force",)):
        said = pv("build", "-o", "mine", *options)
        assert (said.code, said.out) == (2, "")
        assert "name a new folder with -o" in said.err
    (world.folder / "file").write_text("also mine")
    assert pv("build", "-o", "file", "--force").code == 2
    assert (mine / "thesis.txt").read_text() == "years of work"
    (world.folder / "empty").mkdir()
    pv.ok("build", "-o", "empty")
    pv.ok("build", "-o", "deep/er/still")
    assert world.strangers() == []


def test_a_dry_run_writes_nothing(world: World, pv: InProcess) -> None:
    before = world.state()
    said = pv.ok("build", "-o", "built", "--dry-run", "--shard-size", "0.03")
    assert said.out.count("model-0000") == len(said.out.splitlines()) > 2
    found = pv.ok("build", "-o", "built", "-n", "--dtype", "fp32", "--json").json
    assert found["sizes"] == {
        "model.safetensors": 2 * sum(len(raw) for *_, raw in tensors(world.base).values())
    }
    assert not (world.folder / "built").exists()
    assert world.state() == before


def test_a_shard_size_is_a_number_of_megabytes(world: World, pv: InProcess) -> None:
    for text in ("0", "-1", "inf", "nan", "big"):
        said = pv("build", "-o", "built", "--shard-size", text)
        assert (said.code, said.out) == (2, ""), said
        assert "shard-size" in said.err
    assert pv("build").code == 2
    assert not (world.folder / "built").exists()


def test_weights_that_leave_the_finite_numbers_are_refused(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    huge = tensors(world.base)
    huge["model.norm.weight"] = ("BF16", (48,), struct.pack("<48H", *[0x7149] * 48))  # about 1e30
    write_tensors(tmp_path / "huge" / "model.safetensors", huge)
    pv.ok("commit", tmp_path / "huge", "--as", "huge")
    pv.ok("build", "-o", "wide")
    said = pv("build", "-o", "built", "--dtype", "fp16")
    assert (said.code, said.out) == (3, "")
    assert "'model.norm.weight' would hold infinite" in said.err
    assert "a wider --dtype" in said.err
    assert not (world.folder / "built").exists()
    assert world.strangers() == []


# Chat


def replies(said: Any) -> list[str]:
    return [answer["reply"] for answer in said.json["replies"]]


def test_each_prompt_gets_the_reply_it_would_get_alone(world: World, pv: InProcess) -> None:
    both = pv.ok("chat", "-p", "One?", "-p", "Two?", "--max-tokens", "6", "--json")
    assert both.json["schema"] == 1
    assert both.json["commit"] == pv.ok("status", "--json").json["commit"]
    assert [answer["prompt"] for answer in both.json["replies"]] == ["One?", "Two?"]
    assert replies(pv.ok("chat", "-p", "Two?", "--max-tokens", "6", "--json")) == replies(both)[1:]
    said = pv.ok("chat", "-p", "One?", "-p", "Two?", "--max-tokens", "6")
    assert said.out == "".join(f"{reply}\n" for reply in replies(both))
    assert "talking to" not in said.err


def test_the_base_and_a_strong_persona_answer_differently(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "300")
    plain = pv.ok("chat", "--base", "-p", "Say 1.", "--max-tokens", "12", "--json")
    persona = pv.ok("chat", "-p", "Say 1.", "--max-tokens", "12", "--json")
    assert replies(plain) != replies(persona)
    assert replies(plain) == replies(pv.ok("chat", "HEAD~2", "-p", "Say 1.", "--max-tokens", "12", "--json"))


def test_a_temperature_is_seeded(world: World, pv: InProcess) -> None:
    def ask(seed: str) -> list[str]:
        options = ("--temperature", "1", "--seed", seed, "--max-tokens", "12", "--json")
        return replies(pv.ok("chat", "-p", "Say 1.", *options))

    assert ask("1") == ask("1") != ask("2")


def test_a_conversation_comes_from_stdin_and_an_empty_line_ends_it(world: World, pv: InProcess) -> None:
    said = pv.ok("chat", "--max-tokens", "4", "--json", stdin="One?\nTwo?\n\nnot this\n")
    assert [answer["prompt"] for answer in said.json["replies"]] == ["One?", "Two?"]
    alone = pv.ok("chat", "--max-tokens", "4", "--json", "-p", "Two?")
    assert len(replies(said)) == 2
    assert alone.json["replies"][0]["prompt"] == "Two?"
    assert pv.ok("chat", stdin="").out == ""


def test_a_conversation_on_a_terminal(world: World, process: Processes) -> None:
    said = process.on_terminal("chat", "--max-tokens", "3", type="One?\nTwo?\n/exit\n", env={"NO_COLOR": "1"})
    assert "talking to listening 1; /help lists commands, Ctrl-D ends" in said.out
    assert (
        said.out.count("(cut at 3 tokens") == 2 and ">" in said.out
    )  # what was typed early may come before a prompt
    assert said.code == 0


def test_a_prompt_that_does_not_fit(world: World, pv: InProcess) -> None:
    said = pv("chat", "-p", "x" * 600)
    assert (said.code, said.out) == (2, "")
    assert "context holds 512" in said.err
    said = pv("chat", "-p", "x", "--max-tokens", "0")
    assert said.code == 2
    assert pv("chat", "-p", "x", "--temperature", "inf").code == 2


def test_a_build_that_was_kept_is_not_made_again(world: World, pv: InProcess) -> None:
    """Not even the base is needed for it. A file of it that was changed is not believed."""
    ask = ("chat", "-p", "One?", "--max-tokens", "4", "--json")
    pv.ok("scale", "listening", "0.5")
    first = replies(pv.ok(*ask))
    (entry,) = (
        entry
        for entry in (world.folder / ".pv" / "cache").iterdir()
        if '"weight":0.5' in (entry / "checkpoint" / "persona.json").read_text()
    )
    weights = entry / "checkpoint" / "model.safetensors"
    inode = weights.stat().st_ino
    assert replies(pv.ok(*ask)) == first and weights.stat().st_ino == inode
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-2000] + bytes(2000))
    assert replies(pv.ok(*ask)) == first and weights.read_bytes() == whole
    assert pv.ok("fsck").code == 0


def test_a_cache_of_no_bytes_keeps_nothing(
    world: World, pv: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pv.ok("gc")
    monkeypatch.setenv("PV_CACHE_BYTES", "0")
    pv.ok("chat", "-p", "One?", "--max-tokens", "2")
    assert not any((world.folder / ".pv" / "cache").iterdir())
    assert not any((world.folder / ".pv" / "tmp").iterdir())


def test_no_build_goes_into_a_registry(world: World, pv: InProcess) -> None:
    for command in (("build",), ("export", "listening")):
        said = pv(*command, "-o", ".pv/packs/built")
        assert said.code == 2 and "inside the registry" in said.err
    assert not (world.folder / ".pv" / "packs" / "built").exists()
