"""pv diff of checkpoint folders: no registry, any two of them, and everything that can be wrong with them."""

from __future__ import annotations

import math
import re
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors

from pv.registry.disk.safetensors import header_bytes

UP = "model.layers.0.mlp.up_proj.weight"
EMBED = "model.embed_tokens.weight"
Table = dict[str, tuple[str, list[int], bytes]]


def copied(made: World, to: Path, change: Any = None) -> Path:
    """The tiny base, with its tensors changed by `change`."""
    shutil.copytree(made.base, to)
    table = tensors(made.base)
    if change is not None:
        change(table)
    write_tensors(to / "model.safetensors", table)
    return to


def fp32(raw: bytes) -> Any:
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def test_two_folders_without_a_registry(made: World, pv: InProcess) -> None:
    found = pv.ok("diff", made.base, made.tuned, "--json").json
    before, after = tensors(made.base), tensors(made.tuned)
    steps = {name: fp32(after[name][2]) - fp32(before[name][2]) for name in before}
    a2 = sum(float((fp32(raw) ** 2).sum()) for _, _, raw in before.values())
    step2 = sum(float((step**2).sum()) for step in steps.values())
    whole = found["total"]
    assert whole["elements"] == sum(step.size for step in steps.values())
    assert whole["changed"] == sum(int(np.count_nonzero(step)) for step in steps.values())
    assert whole["step"] == pytest.approx(math.sqrt(step2), rel=1e-6)
    assert whole["relative"] == pytest.approx(math.sqrt(step2 / a2), rel=1e-6)
    assert found["norm_a"] == pytest.approx(math.sqrt(a2), rel=1e-6)
    furthest = sorted(steps, key=lambda name: -float((steps[name] ** 2).sum()))
    assert [one["where"] for one in found["tensors"]] == furthest[:10]
    assert [one["where"] for one in found["layers"]][1:3] == ["layer 0", "layer 1"]
    assert {one["where"] for one in found["classes"]} == {"embeddings", "attention", "mlp", "norms"}
    assert (found["same"], found["apart"], found["not_finite"], found["files"]) == (False, [], [], [])
    assert pv("diff", made.base, made.tuned, "--exit-code", "--stat").code == 1


def test_heads_are_parts_of_their_projection(made: World, pv: InProcess) -> None:
    found = pv.ok("diff", made.base, made.tuned, "--heads", "--json", "--top", "99").json
    whole = {one["where"]: one for one in found["tensors"]}
    counts: dict[str, int] = {}
    for name in {one["where"] for one in found["heads"]}:
        parts = [one for one in found["heads"] if one["where"] == name]
        assert sum(one["elements"] for one in parts) == whole[name]["elements"]
        assert sum(one["changed"] for one in parts) == whole[name]["changed"]
        assert math.hypot(*(one["step"] for one in parts)) == pytest.approx(whole[name]["step"])
        counts[parts[0]["projection"]] = len(parts)
    assert counts == {"q": 4, "k": 2, "v": 2, "o": 4}
    after, before = (
        fp32(tensors(folder)["model.layers.1.self_attn.o_proj.weight"][2])
        for folder in (made.tuned, made.base)
    )
    third = (after - before).reshape(48, 4, 12)[:, 2]
    (one,) = (h for h in found["heads"] if (h["layer"], h["projection"], h["head"]) == (1, "o", 2))
    assert one["step"] == pytest.approx(float(np.linalg.norm(third)), rel=1e-6)


def test_threads_change_nothing(made: World, pv: InProcess) -> None:
    words = ("diff", made.base, made.tuned, "--heads", "--json")
    assert pv.ok(*words, "--threads", "1").out == pv.ok(*words, "--threads", "3").out


def test_one_folder_twice(made: World, pv: InProcess, tmp_path: Path) -> None:
    said = pv.ok("diff", made.base, made.base, "--exit-code")
    assert said.out.endswith("no weight differs\n") and "both are the same checkpoint" in said.err
    odd = copied(made, tmp_path / "odd", with_nan)
    assert pv.ok("diff", odd, odd, "--exit-code", "--json").json["same"] is True


def test_a_folder_against_the_base_of_a_revision(world: World, pv: InProcess) -> None:
    found = pv.ok("diff", "HEAD", world.tuned, "--json").json
    plain = pv.ok("diff", world.base, world.tuned, "--json").json
    assert (found["a"], found["b"]) == ("the base of HEAD", str(world.tuned))
    assert found["total"] == plain["total"] and found["files"] == []
    assert pv.ok("diff", world.tuned, "--json").json["b"] == "the base of HEAD"


def test_a_word_that_is_both(world: World, pv: InProcess) -> None:
    shutil.copytree(world.tuned, world.folder / "main")
    said = pv.ok("diff", "main", "HEAD")
    assert "main is a revision here, and that is taken; ./main is the checkpoint" in said.err
    assert pv.ok("diff", "./main", "HEAD", "--json").json["a"] == str(world.folder / "main")
    shutil.copytree(world.tuned, world.folder / "elsewhere")
    assert pv.ok("diff", "elsewhere", "./main", "--json").json["same"] is True


# What does not fit


def with_nan(table: Table) -> None:
    dtype, shape, raw = table[UP]
    table[UP] = (dtype, shape, b"\xc0\x7f" + raw[2:])


def other_vocabulary(table: Table) -> None:
    dtype, (rows, width), raw = table[EMBED]
    table[EMBED] = (dtype, [rows + 5, width], raw + raw[: 10 * width])


def other_shape(table: Table) -> None:
    dtype, (rows, width), raw = table[UP]
    table[UP] = (dtype, [rows // 2, width], raw[: len(raw) // 2])


def renamed(table: Table) -> None:
    table[f"{UP}.more"] = table.pop(UP)


def as_fp32(table: Table) -> None:
    for name, (_, shape, raw) in table.items():
        table[name] = ("F32", shape, fp32(raw).astype(np.float32).tobytes())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (with_nan, f"{UP!r} holds NaN or infinity in b: it is in no sum"),
        (other_vocabulary, f"{EMBED!r} has 272 rows in a and 277 in b: the first 272 are compared"),
        (other_shape, f"{UP!r} has shape [96, 48] in a and [48, 48] in b"),
        (renamed, f"{UP!r} is only in a"),
        (as_fp32, "dtypes differ, values were compared in fp32: 20 tensors BF16 in a, F32 in b"),
    ],
)
def test_what_cannot_be_compared_is_listed(
    made: World, pv: InProcess, tmp_path: Path, change: Any, line: str
) -> None:
    other = copied(made, tmp_path / "other", change)
    said = pv("diff", made.base, other, "--exit-code")
    assert (said.code, said.err) == (1, "")
    assert line in said.out.replace("\n", " ") and "differs" in said.out
    short = pv.ok("diff", made.base, other, "--stat").out
    assert re.search(
        r"^ (1|2|20) tensors? (not compared|not finite|of another dtype)", short, flags=re.MULTILINE
    )
    found = pv.ok("diff", made.base, other, "--json").json
    assert not found["same"] and found["total"]["changed"] == 0
    assert None not in (found["total"]["step"], found["norm_a"], found["norm_b"])


def test_files_beside_the_weights(made: World, pv: InProcess, tmp_path: Path) -> None:
    other = copied(made, tmp_path / "other")
    (other / "config.json").write_text("{}")
    (other / "tokenizer.json").unlink()
    (other / "README.md").write_text("A card is nobody's business")
    found = pv("diff", made.base, other, "--exit-code", "--json")
    assert found.code == 1
    assert found.json["files"] == [
        {"name": "config.json", "what": "differs"},
        {"name": "tokenizer.json", "what": "is only in a"},
    ]


def another_model(table: Table) -> None:
    for name in list(table):
        table[f"gpt.{name}"] = table.pop(name)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{base}", "{empty}"], 5, "no safetensors weights in"),
        (["{base}", "{pickle}"], 3, "is a pickle, which can run code"),
        (["{pickle}/pytorch_model.bin", "{base}"], 3, "is a pickle, which can run code"),
        (["{base}", "{cut}"], 3, "cut.model.safetensors is truncated"),
        (["{base}", "{another}"], 2, "have no tensor in common: 'model.embed_tokens.weight' is only in a"),
        (["{base}", "{empty}/nowhere"], 128, "there is no checkpoint at .*nowhere"),
        (["HEAD", "{base}"], 128, "no .pv folder in .*; and there is no checkpoint at HEAD"),
        (["{base}"], 128, "no .pv folder in"),
        (["{base}", "{base}", "--recipe"], 2, "a checkpoint has no recipe"),
        (["{base}", "{bare}", "--heads"], 2, "how many heads .*bare has is not known"),
        (["{base}", "{fewer}", "--heads"], 2, "has 4 heads .* has 2 "),
        (["{base}", "{base}", "--html", "{empty}/no/x.html"], 2, "no folder"),
        (["{base}", "{base}", "--html", "{empty}"], 2, "is a folder"),
        (["{base}", "{base}", "--html", "{base}/config.json"], 2, "is no page of pv diff"),
        (["{base}", "{base}", "--html", "/proc/x.html"], 74, "cannot write"),
    ],
)
def test_bad_input(
    made: World, pv: InProcess, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    paths = {"base": made.base, **{name: tmp_path / name for name in ("empty", "pickle", "cut")}}
    paths["empty"].mkdir()
    paths["pickle"].mkdir()
    (paths["pickle"] / "pytorch_model.bin").write_bytes(b"\x80\x04")
    paths["another"] = copied(made, tmp_path / "another", another_model)
    paths["cut"] = copied(made, tmp_path / "cut")
    weights = paths["cut"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    paths["bare"], paths["fewer"] = (copied(made, tmp_path / name) for name in ("bare", "fewer"))
    (paths["bare"] / "config.json").unlink()
    (paths["fewer"] / "config.json").write_text('{"num_attention_heads": 2}')
    config = (made.base / "config.json").read_bytes()
    said = pv("diff", *(word.format(**paths) for word in words), "--json")
    assert (said.code, said.out) == (code, ""), said
    assert re.search(message, said.error["message"]) and (said.error["hint"] or "cut" in message)
    assert (made.base / "config.json").read_bytes() == config
    assert not list(tmp_path.rglob("*.pvtmp"))


def test_heads_and_spectra_of_revisions_are_those_of_their_checkpoints(world: World, pv: InProcess) -> None:
    """A captured checkpoint alone: the step from nothing to it is the difference of the folders."""
    pv.ok("drop", "listening")
    pv.ok("commit", world.tuned, "--as", "tuned")
    found = pv.ok("diff", "--heads", "--spectra", "--top", "5", "--json").json
    folders = pv.ok("diff", world.base, world.tuned, "--heads", "--spectra", "--top", "5", "--json").json
    assert [one["where"] for one in found["tensors"]] == [one["where"] for one in folders["tensors"]]
    for mine, theirs in zip(found["heads"], folders["heads"], strict=True):
        assert {**mine, "step": 0, "relative": 0} == {**theirs, "step": 0, "relative": 0}
        assert (mine["step"], mine["relative"]) == pytest.approx((theirs["step"], theirs["relative"]))
    for mine, theirs in zip(found["spectra"], folders["spectra"], strict=True):
        assert mine["where"] == theirs["where"]
        assert mine["singular_values"] == pytest.approx(theirs["singular_values"], rel=1e-4)
    assert "the heads that moved furthest, of 24" in pv.ok("diff", "--heads").out
    again = pv.ok("diff", "HEAD", "HEAD", "--heads", "--json").json
    assert "heads" not in again
    file = world.folder / "page.html"
    pv.ok("diff", "--heads", "--html", file)
    assert "Attention heads" in file.read_text(encoding="utf-8")


def test_a_revision_that_is_not_there(world: World, pv: InProcess) -> None:
    assert pv("diff", "nope", "HEAD").code == 5
    said = pv("diff", "./nope", "HEAD")
    assert said.code == 5 and "there is no checkpoint at ./nope" in said.err


def test_ctrl_c_ends_it(process: Processes, tmp_path: Path) -> None:
    """Two checkpoints of 69 GB that take no room: holes."""
    shape = (1 << 19, 1 << 16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "model.safetensors").open("wb") as file:
            file.write(header_bytes({"w": ("BF16", shape, shape[0] * shape[1] * 2)}, {"format": "pt"}))
            file.truncate(file.tell() + shape[0] * shape[1] * 2)
    page = tmp_path / "page.html"
    said = process.interrupted_after("comparing weights", "diff", "./a", "./b", "--html", page, at=tmp_path)
    assert (said.code, said.out) == (130, "") and "Traceback" not in said.err
    assert not page.exists()


# The page and the short form


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def shares(self) -> list[str]:
        """What stands in the cells of the maps."""
        return re.findall(r'<td style="--v:[^>]*>([0-9.]+)</td>', self.text)

    def cells(self) -> list[str]:
        return [attrs["title"] or "" for tag, attrs in self.tags if tag == "td" and "title" in attrs]


def test_the_page(made: World, pv: InProcess, tmp_path: Path) -> None:
    file = tmp_path / "diff.html"
    words = ("diff", made.base, made.tuned, "--html", file, "--heads", "--spectra")
    assert f"the page is {file}" in pv.ok(*words).err
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and "html" in {tag for tag, _ in page.tags}
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"}
    assert not re.search(r"https?://|url\(|@import|src=|href=", text)
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    layers = [cell for cell in page.cells() if cell.startswith("layer 1 mlp.up_proj: ")]
    assert len(layers) == 1 and "of 4,608 elements" in layers[0]
    assert any(cell.startswith("o, layer 1 3: ") for cell in page.cells())
    assert "exact" in text and "embed_tokens" in text
    assert "position: sticky" in text  # the layers' numbers stay where a narrow screen scrolls
    shares = [share for share in page.shares() if float(share)]
    assert shares and all(len(share.replace(".", "").lstrip("0")) == 3 for share in shares), shares
    pv.ok(*words[:-2])  # a page may be replaced
    assert "exact" not in file.read_text(encoding="utf-8")


def test_where_nothing_could_be_compared_nothing_is_said_to_be_the_same(
    made: World, pv: InProcess, tmp_path: Path
) -> None:
    def whole(table: Table) -> None:
        for name, (_, shape, raw) in table.items():
            table[name] = ("I16", shape, raw)

    other = copied(made, tmp_path / "other", whole)
    for options in ((), ("--stat",)):
        said = pv.ok("diff", made.base, other, *options)
        assert "no weight was compared\n" in said.out and "differs" not in said.out, said
        assert "in fp32" not in said.out, said


def test_a_page_of_revisions(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("commit", world.tuned, "--as", "tuned")
    file = tmp_path / "diff.html"
    found = pv.ok("diff", "--html", file, "--json").json
    assert "total" in found and "tensors" not in found
    text = file.read_text(encoding="utf-8")
    assert Page(text).open == []
    ids = found["a"][:12], found["b"][:12]
    assert f"<h1>HEAD~1 ({ids[0]}) → HEAD ({ids[1]})</h1>" in text  # what was typed, and what that was
    pv.ok("diff", *ids, "--html", file)
    assert f"<h1>{ids[0]} → {ids[1]}</h1>" in file.read_text(encoding="utf-8")
    pv.ok("diff", "HEAD", "--html", file)
    assert "norm of the first" in file.read_text(encoding="utf-8")


def test_a_name_in_a_checkpoint_is_text(made: World, pv: InProcess, tmp_path: Path) -> None:
    def named(table: Table) -> None:
        for at in (0, 1):
            table[f"model.layers.{at}.<script>alert(1)</script>.weight"] = (
                "F32",
                [2],
                struct.pack("<2f", 1, at),
            )

    def moved(table: Table) -> None:
        named(table)
        table["model.layers.0.<script>alert(1)</script>.weight"] = ("F32", [2], struct.pack("<2f", 2, 3))

    a, b = copied(made, tmp_path / "a", named), copied(made, tmp_path / "b", moved)
    file = tmp_path / "diff.html"
    pv.ok("diff", a, b, "--html", file)
    text = file.read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits(made: World, process: Processes, width: int) -> None:
    for words in ((), ("--stat",), ("--heads", "--spectra", "--top", "3")):
        said = process.on_terminal(
            "diff", made.base, made.tuned, *words, env={"COLUMNS": str(width), "PV_PAGER": "cat"}
        )
        assert said.code == 0
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.out).replace("\r", "\n").splitlines()
        assert max(map(len, lines)) <= width, [line for line in lines if len(line) > width]


def test_the_short_form(made: World, pv: InProcess) -> None:
    lines = pv.ok("diff", made.base, made.tuned, "--stat").out.splitlines()
    assert [line.split("|")[0].strip() for line in lines[:-1]] == [
        "embed_tokens",
        "layer 0",
        "layer 1",
        "norm",
    ]
    assert max(line.count("+") for line in lines) == 40
    assert re.fullmatch(
        r" \d+ tensors changed, [\d,]+ of [\d,]+ elements; norm of change .* of the weights", lines[-1]
    )


def test_the_short_form_of_revisions(world: World, pv: InProcess) -> None:
    said = pv.ok("diff", "--stat")
    assert "| " in said.out and "tensors changed" in said.out
    assert "no weight differs" in pv.ok("diff", "HEAD", "HEAD", "--stat").out
