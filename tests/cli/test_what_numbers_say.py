"""Every number is what it says: an effect is of the vector and the rows it is shown with, a step was run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, World, write_rows

from pv.vecstore.progress import Tick
from pv.vecstore.repo.repo import Repo
from pv.vecstore.train.options import TrainOptions

QUICK = ("--max-steps", "2", "--threads", "1")


@pytest.fixture
def held_out(world: World) -> Path:
    return world.rows.with_name("rows.heldout.jsonl")


# Vectors in another encoding


def test_a_compressed_vector_shows_the_effect_that_was_measured_of_it(
    world: World, pv: InProcess, held_out: Path
) -> None:
    before = pv.ok("status", "--json").json["persona"]["behaviours"]["listening"]["terms"][0][1]
    was = pv.ok("show").out
    (old,) = re.findall(r"^  (held-out effect .*)$", was, re.MULTILINE)
    said = pv.ok("compress", "listening", "--to", "sparse:0.1", "--data", held_out, "--json").json
    effect, kept = said["candidates"][0]["effect"], said["candidates"][0]["kept"]
    text = pv.ok("show").out
    assert (
        f"  in this encoding: held-out effect {effect['mean']:+.2f} [{effect['low']:+.2f}, {effect['high']:+.2f}] "
        f"nats at weight 1, 95 %, n=4 (rows.heldout.jsonl); "
        f"{kept['mean']:.3f} [{kept['low']:.3f}, {kept['high']:.3f}] of that before\n"
    ) in text
    assert f"  {old}, of {before[:12]}, before compression\n" in text
    assert f"  {old}\n" not in text, "the effect of another vector is not shown as this one's"

    pv.ok("compress", "listening", "--to", "ternary", "--force")
    text = pv.ok("show").out
    assert "  effect not measured in this encoding\n" in text
    assert f"  {old}, of {before[:12]}, before compression\n" in text, (
        "the first vector, also after two steps"
    )
    page = Repo.open(world.folder).at()._repr_html_()
    assert "effect not measured in this encoding" in page
    assert f"{old.replace(' at weight 1', '')}, of {before[:12]}, before" in page


def test_the_card_says_where_a_compressed_vector_came_from(
    world: World, pv: InProcess, held_out: Path
) -> None:
    pv.ok("compress", "listening", "--to", "sparse:0.3", "--data", held_out)
    effect = pv.ok("eval", held_out, "--json").json["effect"]
    card = pv.ok("push", "hf://ada/persona", "-n").out
    (line,) = [line for line in card.splitlines() if line.startswith("| `listening` |")]
    assert "| trained on 6 rows of `rows.jsonl`, 2 of 6 steps (--max-steps 2), 2 epochs, `apollo`" in line
    assert "; kept as `sparse:0.3` | in this encoding: held-out effect" in line
    assert f"held-out effect {effect['mean']:+.2f} [" in line
    assert ", before compression; damage " in line and "; n=4 is too few for an interval" in line
    assert "- `rows.heldout.jsonl`: n=4 is too few for an interval to be trusted" in card


# Overlap


def test_training_rows_give_no_held_out_effect(world: World, pv: InProcess, tmp_path: Path) -> None:
    write_rows(tmp_path / "tr.jsonl", 3)
    rows = [json.loads(line) for line in (tmp_path / "tr.jsonl").read_text().splitlines()]
    rows[0] = {**rows[0], "prompt": " SAY  0. ", "chosen": "yes,0."}
    rows[1] = {**rows[1], "chosen": "Another answer."}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "tr.heldout.jsonl").write_text(text)
    said = pv.ok("train", tmp_path / "tr.jsonl", "--as", "ov", *QUICK)
    assert "held-out effect " not in said.err.replace("not a held-out effect", "")
    assert "  effect on rows of which 2 are training rows " in said.err
    for words in (
        "  2 of 3 rows are training rows (lines 1, 3): this is not a held-out effect\n",
        "  1 of 3 prompts occurs in training, with another chosen answer\n",
        "  n=3 is too few for an interval to be trusted\n",
    ):
        assert words in said.err and words in pv.ok("show").out
    found = pv.ok("show", "--json").json["provenance"].values()
    scores = {one["data"]["name"]: one["held_out"]["overlap"] for one in found}
    assert scores["tr.jsonl"] == {"rows": 2, "prompts": 1, "lines": [1, 3], "unknown": []}
    assert scores["rows.jsonl"] == {"rows": 0, "prompts": 0, "lines": [], "unknown": []}
    card = pv.ok("push", "hf://ada/persona", "-n").out
    assert "effect on rows of which 2 are training rows" in card


def test_eval_compares_with_the_training_rows_that_are_kept(
    world: World, pv: InProcess, held_out: Path
) -> None:
    said = pv.ok("eval", world.rows)
    lines = "lines 1, 2, 3, 4, 5, 6"
    assert f"\n6 of 6 rows are training rows ({lines}): this is not a held-out effect\n" in said.out
    assert pv.ok("eval", world.rows, "--json").json["overlap"]["rows"] == 6
    assert pv.ok("eval", held_out, "--json").json["overlap"]["rows"] == 0
    assert "training rows" not in pv.ok("eval", held_out).out
    assert pv.ok("eval", "HEAD~1", world.rows, "--json").json["overlap"]["rows"] == 0, "the base saw none"
    page = Repo.open(world.folder).at().score(world.rows)._repr_html_()
    assert "6 of 6 rows are training rows" in page

    pv.ok("compress", "listening", "--to", "sparse:0.3")  # still the same training
    assert pv.ok("eval", world.rows, "--json").json["overlap"]["rows"] == 6
    pv.ok("scale", "listening", "0")
    assert pv.ok("eval", world.rows, "--json").json["overlap"]["rows"] == 0, "at weight 0 it has no say"


def test_training_rows_that_are_not_kept(world: World, pv: InProcess, held_out: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "own.jsonl", 4, first=20)
    pv.ok("train", tmp_path / "own.jsonl", "--as", "own", *QUICK, "--no-data", "--held-out", "none")
    pv.ok("commit", world.tuned, "--as", "tuned")
    found = pv.ok("eval", held_out, "--json").json["overlap"]
    assert found == {"rows": 0, "prompts": 0, "lines": [], "unknown": ["own", "tuned"]}
    words = "not compared with the training rows of own, tuned, which are not in the registry"
    assert words in pv.ok("eval", held_out).out
    found = pv.ok("eval", tmp_path / "own.jsonl", "--json").json["overlap"]
    assert (found["rows"], found["unknown"]) == (4, ["tuned"]), "the id of the rows is kept, if not the rows"


@pytest.mark.parametrize("harm", ["cut", "gone", "a folder"])
def test_kept_rows_that_cannot_be_read_stop_no_measurement(
    world: World, pv: InProcess, held_out: Path, harm: str
) -> None:
    (origin,) = pv.ok("show", "--json").json["provenance"].values()
    pack = world.folder / ".pv" / "packs" / origin["data"]["id"][:2] / origin["data"]["id"]
    data = pack.read_bytes()
    pack.chmod(0o644)
    pack.unlink()
    if harm == "cut":
        pack.write_bytes(data[:-3])
    elif harm == "a folder":
        pack.mkdir()
    assert pv.ok("eval", held_out, "--json").json["overlap"]["unknown"] == ["listening"]


def test_compress_says_on_which_rows(world: World, pv: InProcess, held_out: Path) -> None:
    said = pv.ok("compress", "listening", "--to", "sparse:0.3", "--data", world.rows)
    assert said.out.startswith("effect on rows of which 6 are training rows on rows.jsonl, n=6\n")
    assert "6 of 6 rows are training rows" in said.out and "n=6 is too few" in said.out
    assert "relative L2 error" in said.out and "error of tau" not in said.out + said.err
    (origin,) = pv.ok("show", "--json").json["provenance"].values()
    assert origin["measured"]["overlap"]["rows"] == 6
    assert "\neffect   on rows of which 6 are training rows " in pv.ok("log", "listening").out
    assert "\n  effect on rows of which 6 are training rows " in pv.ok("vectors").out
    assert "(6 training rows; n too small)" in pv.ok("log", "listening", "--oneline").out
    assert "(6 training rows; n too small)" in pv.ok("show", "listening").out
    pv.ok("eval", world.rows)
    assert "\neffect   on rows of which 6 are training rows " in pv.ok("log", "--scores", "-1").out
    assert "(6 training rows; n too small)" in pv.ok("log", "--scores", "--oneline", "-1").out
    shown = pv.ok("show", origin["original"]["data"]["id"][:12], "--json").json
    assert shown["kind"] == "rows"
    (vector,) = pv.ok("show", "--json").json["provenance"]
    assert vector in {one["id"] for one in shown["trained"]}, "the rows lead to it, however it is kept now"
    assert "in this encoding: effect on rows of which 6 are training rows" in pv.ok("show").out
    pv.ok("undo")
    said = pv.ok("compress", "listening", "--to", "sparse:0.3", "--data", held_out)
    assert said.out.startswith("held-out effect on rows.heldout.jsonl, n=4\n")


# What was run


def test_a_training_says_how_far_it_got(world: World, pv: InProcess, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "many.jsonl", 20)
    said = pv.ok("train", rows, "--as", "short", "--max-steps", "1", "--threads", "1", "--json")
    settings = said.json["provenance"]["settings"]
    run = [settings[key] for key in ("steps", "planned_steps", "rows_seen", "epochs_run")]
    assert run == [1, 18, 8, 0.4]
    text = pv.ok("show").out
    assert "trained on 8 of 20 rows of many.jsonl" in text
    assert "  1 of 18 steps (--max-steps 1), 0.4 epochs, apollo, lr 0.0001, batch 8, seed 0; loss " in text
    assert re.search(r"loss \d\.\d{3} at step 1\n", text)
    card = pv.ok("push", "hf://ada/persona", "-n").out
    assert "trained on 8 of 20 rows of `many.jsonl`, 1 of 18 steps (--max-steps 1), 0.4 epochs" in card
    pv.ok("compress", "short", "--to", "ternary")
    assert "trained on 8 of 20 rows of many.jsonl" in pv.ok("show").out

    said = pv.ok("train", rows, "--as", "whole", "--epochs", "1", "--threads", "1")
    assert "whole trained on 20 rows of many.jsonl: 3 steps, 1 epoch, apollo" in said.err
    assert re.search(r"loss \d\.\d+ at step 1, \d\.\d+ at step 3 \(of that step's batch", said.err)
    assert re.search(r"✓ .* whole is vector .*, on branch main\n", said.err)


def test_the_base_has_no_effect_by_definition(world: World, pv: InProcess, held_out: Path) -> None:
    pv.ok("combine", "ties")
    pv.ok("scale", "listening", "0")
    said: list[Tick] = []
    with Repo.open(world.folder) as repo:
        found = repo.at().score(write_rows(world.folder / "new.jsonl", 5), progress=said.append)
    assert (found.effect.mean, found.margin) == (0, found.base_margin)
    assert sum(tick.stage == "loading the model" for tick in said) == 1, "it is measured once"
    text = pv.ok("eval", held_out).out
    assert "no behaviour has a weight: this is the base, whose effect is 0 by definition\n" in text
    assert "stronger" not in text


# Progress


STAGES = [
    "checking the base",
    "loading the model",
    "measuring the base on h.jsonl",
    "what it takes",
    "reading what the base says to these prompts",
    "training x",
    "writing the vector",
    "measuring the base on pv's neutral set",
    "building x",
    "measuring x on h.jsonl",
    "measuring x on pv's neutral set",
    "sketching the vector",
    "encoding x as sparse:0.3",
    "measuring the base on other.jsonl",
    "measuring x on other.jsonl",
    "building x as sparse:0.3",
    "measuring x as sparse:0.3 on other.jsonl",
]


def test_no_stage_counts_to_nothing(world: World) -> None:
    """Of a stage that counts, the total is known from its first tick on; and that a model is loaded is said."""
    said: list[Tick] = []
    other = write_rows(world.folder / "other.jsonl", 3, first=60)
    with Repo.open(world.folder) as repo:
        repo.train(
            world.rows, name="x", held_out=write_rows(world.folder / "h.jsonl", 3, first=50), max_steps=2,
            threads=1, progress=said.append,
        )  # fmt: skip
        repo.compress("x", "sparse:0.3", data=other, progress=said.append)
    takes = {tick.stage: "what it takes" for tick in said if tick.stage.startswith("it takes about ")}
    stages = list(dict.fromkeys(takes.get(tick.stage, tick.stage) for tick in said))
    assert stages == STAGES
    counting = [tick for tick in said if tick.unit not in ("", "bytes")]
    assert {tick.unit for tick in counting} == {"rows", "steps", "tensors"}
    assert all(tick.total > 0 for tick in counting)
    training = [tick for tick in said if tick.unit == "steps"]
    assert [(tick.done, tick.total) for tick in training] == [(0, 2), (1, 2), (2, 2)]
    assert training[0].loss is None and training[1].loss
    before = said[: said.index(training[0])]
    assert [takes.get(tick.stage, tick.stage) for tick in before[-3:]] == [
        "loading the model",
        "what it takes",
        "reading what the base says to these prompts",
    ]


def test_a_terminal_shows_step_0_of_all(world: World, process: Any) -> None:
    said = process.on_terminal("train", world.rows, "--as", "brief", *QUICK, "--held-out", "none")
    assert said.code == 0
    assert "step 0/2" in said.out and "None" not in said.out and "loading the model" in said.out


# Help


def test_the_help_of_train_has_every_default(pv: InProcess) -> None:
    text = " ".join(pv.ok("train", "--help").out.split())
    options = TrainOptions()
    for option in ("lr", "batch", "rank", "seed", "preference", "optimizer"):
        default = re.escape(str(getattr(options, option)))
        assert re.search(rf" --{option} (?:(?! --).)*\[default: {default}[];]", text), option
    assert "as many as make about 18 steps, but 2 to 6; --learn all: 2" in text
    assert f"first {options.warmup:.0%} of the steps, then {options.schedule} to 0" in text
    for words in ("SFT + P * preference", "log(1 + exp(r - c))", "Batch size", "Epochs", "in fp32"):
        assert words in text
    for words in ("alone is trained on", "only imitate", "Let the gradient through"):
        assert words not in text
