"""Steering terms as files of other tools: written, read back, and what neither way takes."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import InProcess, World
from support.registries import new_registry
from support.scripting import keeps_to_it
from support.steering import directions
from support.tiny import tiny_checkpoint

from pv.registry.errors import StorageError
from pv.registry.persona import Persona
from pv.registry.provenance import Imported
from pv.registry.registry import Registry
from pv.registry.steering import SteeringTerm
from pv.vecstore.activations.formats import gguf, safetensors
from pv.vecstore.activations.formats.values import Model
from pv.vecstore.models.load import load
from pv.vecstore.repo.repo import Repo
from pv.vecstore.repo.steer.applied import applied
from pv.vecstore.vectors.steering import open_steering, write_steering

BLOCKS = ("model.layers.0", "model.layers.1")
WIDTH = 48
HEAD = "model.layers.0.self_attn.o_proj:input[1/4]"
TOKENS = torch.tensor([[3, 77, 200, 41]])
FILES = [
    ("v.gguf", "gguf", "llama.cpp", BLOCKS[1:]),
    ("v.gguf", "gguf", "repeng", BLOCKS),
    ("v.gguf", "gguf", "cvector-generator", BLOCKS[:1]),
    ("v.pt", "lm-eval", None, (*BLOCKS, "model.layers.0.mlp")),
    ("v.pt", "persona-vectors", None, BLOCKS),
    ("v.svec", "svec", "applied", BLOCKS[:1]),
    ("v.svec", "svec", "measured", BLOCKS),
    ("v.safetensors", "safetensors", None, (*BLOCKS, HEAD, "model.layers.1.mlp.down_proj:input")),
]
KEEP = {"lm-eval", "safetensors"}  # the coefficient


def make(registry: Registry, name: str, at: tuple[str, ...], coefficient: float = 2.5, **values: Any) -> str:
    """A steering term of the tiny base; the id of its vector."""
    sizes = {HEAD: WIDTH // 4, "model.layers.1.mlp.down_proj:input": 2 * WIDTH}
    found = {site: next(iter(directions(3, (site,), sizes.get(site, WIDTH)).values())) for site in at}
    manifest = write_steering(found, registry.base().id, registry.packs)
    term = SteeringTerm(coefficient, manifest.id, **values)
    registry.change(
        f"steer extract {name}", f"Steer {name}", lambda p: p.with_steering(name, term),
        vectors={manifest.id: (manifest, Imported("test", "given"))},
    )  # fmt: skip
    return manifest.id


@pytest.fixture
def registry(world: World) -> Iterator[Registry]:
    with Registry.find(world.folder) as opened:
        yield opened


def scaled(registry: Registry, name: str) -> dict[str, bytes]:
    """The bits of what a term adds."""
    term = registry.persona().steering_term(name)
    found = open_steering(term.vector, registry.base().id, registry.packs)
    return {site: (np.float32(term.coefficient) * found[site]).tobytes() for site in term.sites or found}


def logits(registry: Registry, model: Any, name: str) -> torch.Tensor:
    persona = registry.persona()
    lone = Persona(persona.base).with_steering(name, persona.steering_term(name))
    with torch.no_grad(), applied(model, lone, registry.packs):
        found: torch.Tensor = model(TOKENS).logits
    return found


@pytest.mark.parametrize(
    ("file", "kind", "convention", "sites"), FILES, ids=[f"{kind} {c or ''}" for _, kind, c, _ in FILES]
)
def test_there_and_back(
    file: str,
    kind: str,
    convention: str | None,
    sites: tuple[str, ...],
    registry: Registry,
    world: World,
    pv: InProcess,
    tmp_path: Path,
) -> None:
    vector = make(registry, "formal", sites)
    said = ("--convention", convention) if convention else ()
    out = pv("-q", "steer", "export", "formal", "-o", tmp_path / file, "--format", kind, *said, "--json")
    assert out.code == 0 and keeps_to_it(out, "steer export") == [], out
    assert (out.json["kept"], out.json["coefficient"], out.json["vector"]) == (kind in KEEP, 2.5, vector)
    made = pv("-q", "steer", "import", tmp_path / file, "--as", "again", *said, "--json")
    assert made.code == 0 and keeps_to_it(made, "steer import") == [], made
    assert (made.json["format"], made.json["convention"]) == (kind, convention)
    assert made.json["term"]["coefficient"] == (2.5 if kind in KEEP else 1)
    assert (made.json["vector"] == vector) == (kind in KEEP)
    assert scaled(registry, "again") == scaled(registry, "formal")
    model, _ = load(world.base)
    with torch.no_grad():
        plain = model(TOKENS).logits
    assert torch.equal(logits(registry, model, "again"), logits(registry, model, "formal"))
    assert not torch.allclose(logits(registry, model, "again"), plain, atol=0.1)
    known = "\n".join(pv.ok("show", made.json["vector"][:12]).out.split())
    assert "imported" in known and (f"({kind}" in known or made.json["vector"] == vector)
    pv.ok("fsck", "--deep")


def test_what_is_said(registry: Registry, pv: InProcess, tmp_path: Path) -> None:
    make(registry, "formal", BLOCKS, sites=BLOCKS[1:])
    out = pv.ok("steer", "export", "formal", "-o", tmp_path / "v.gguf").err
    assert "formal as gguf, convention llama.cpp" in out and "multiplied by 2.5" in out
    made = pv.ok("steer", "import", tmp_path / "v.gguf", "--as", "again").err
    assert "read from v.gguf as gguf, convention llama.cpp: directions at model.layers.1" in made
    assert "applied 1 × at all its sites, all positions" in made and "cvector-generator" in made
    assert "imported from v.gguf" in pv.ok("vectors").out
    out = pv.ok("steer", "export", "formal", "-o", tmp_path / "v.safetensors", "--all-sites").err
    assert "the coefficient is in the file" in out
    pv.ok("steer", "set", "--rule", "preserve-norm")
    out = pv.ok("steer", "export", "HEAD~1:formal", "-o", tmp_path / "w.bin", "--format", "gguf").err
    assert "rule" not in out and "files of gguf end in .gguf" in out
    assert "preserve-norm" in pv.ok("steer", "export", "formal", "-o", tmp_path / "x.gguf").err


def test_how_strong_and_where(registry: Registry, pv: InProcess, tmp_path: Path) -> None:
    make(registry, "formal", BLOCKS, sites=BLOCKS[1:])
    file = tmp_path / "v.safetensors"
    pv.ok("steer", "export", "formal", "-o", file, "--all-sites", "--coefficient", "-2")
    made = pv.ok(
        "steer",
        "import",
        file,
        "--as",
        "b",
        "--layer",
        "0",
        "--positions",
        "reply",
        "--coefficient",
        "0.5",
        "--json",
    ).json
    term = made["term"]
    assert (term["coefficient"], term["sites"], term["positions"]) == (0.5, ["model.layers.0"], "reply")
    assert made["sites"] == list(BLOCKS)
    made = pv.ok("steer", "import", file, "--as", "b", "--site", BLOCKS[1], "--json").json
    term = made["term"]  # the next version of b: the file's coefficient, and the positions that b has
    assert (term["coefficient"], term["sites"], term["positions"]) == (-2, ["model.layers.1"], "reply")
    pv.ok("steer", "export", "formal", "-o", tmp_path / "one.safetensors", "--unit", "--site", BLOCKS[0])
    pv.ok("steer", "import", tmp_path / "one.safetensors", "--as", "one")
    term_of_one = registry.persona().steering_term("one")
    (one,) = open_steering(term_of_one.vector, registry.base().id, registry.packs).values()
    assert term_of_one.coefficient == 1 and abs(np.linalg.norm(one.astype(np.float64)) - 1) < 1e-6


def test_the_choices_are_those_of_the_formats() -> None:
    from pv.cli.commands.steering import import_
    from pv.vecstore.activations.formats import table

    assert tuple(one.name for one in table.FORMATS) == import_.FORMATS
    assert tuple(name for one in table.FORMATS for name in one.conventions) == import_.CONVENTIONS


class Code:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (open, (str(self.file), "w"))


def with_code(file: Path, mark: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("v/data.pkl", pickle.dumps(Code(mark), protocol=2))
        archive.writestr("v/version", "3\n")
    file.write_bytes(out.getvalue())


def test_files_that_are_refused_change_nothing(registry: Registry, pv: InProcess, tmp_path: Path) -> None:
    make(registry, "formal", BLOCKS[1:])
    good, mark = tmp_path / "v.gguf", tmp_path / "ran"
    pv.ok("steer", "export", "formal", "-o", good)
    whole = good.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-40])
    (tmp_path / "lies.gguf").write_bytes(whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:])
    (tmp_path / "text.gguf").write_text("GG")
    with_code(tmp_path / "code.pt", mark)
    theirs = directions(1, BLOCKS, 64)
    foreign = Model(BLOCKS, 64, "llama", "")
    gguf.write(tmp_path / "wide.gguf", theirs, foreign, convention="repeng")
    safetensors.write(tmp_path / "wide.safetensors", theirs, foreign)
    safetensors.write(tmp_path / "base.safetensors", directions(1, BLOCKS, WIDTH), Model((), base="ab" * 32))
    safetensors.write(tmp_path / "no.safetensors", directions(1, ("model.layerz.1",), WIDTH), Model(()))
    deep = (*BLOCKS, "model.layers.2")
    gguf.write(tmp_path / "deep.gguf", directions(1, deep[2:], WIDTH), Model(deep, WIDTH, "llama", ""))
    before = pv.ok("log", "--json").out, sorted(registry.packs.ids())
    cases: Mapping[tuple[str, ...], tuple[int, str]] = {
        ("cut.gguf",): (3, "cut short"),
        ("lies.gguf",): (3, "claims"),
        ("text.gguf",): (3, "no steering vector in a format that pv knows"),
        ("code.pt",): (3, "code.pt"),
        ("code.pt", "--format", "lm-eval"): (3, "code.pt"),
        ("wide.gguf", "--convention", "repeng"): (3, "64"),
        ("wide.safetensors",): (3, "does not fit model.layers.0"),
        ("base.safetensors",): (3, "abababababab"),
        ("no.safetensors",): (3, "no module 'model.layerz.1'"),
        ("deep.gguf",): (3, "no place in a model of 2 blocks"),
        ("v.gguf", "--format", "safetensors"): (3, "v.gguf"),
        ("v.gguf", "--format", "gif"): (2, "gif"),
        ("v.gguf", "--convention", "mine"): (2, "mine"),
        ("v.gguf", "--layer", "0"): (2, "no direction at model.layers.0"),
        ("v.gguf", "--layer", "9"): (2, "no layer 9"),
        ("v.gguf", "--coefficient", "nan"): (2, "nan"),
        ("v.gguf", "--positions", "some"): (2, "some"),
        ("nowhere.gguf",): (5, "no file"),
        (".",): (2, "is a folder"),
    }
    for (file, *rest), (code, says) in cases.items():
        said = pv("steer", "import", tmp_path / file, "--as", "x", *rest)
        assert (said.code, said.out) == (code, "") and says in said.err, (file, rest, said)
        assert "Traceback" not in said.err and "error:" in said.err
    assert "cannot name a steering term" in pv("steer", "import", good, "--as", "a b").err
    assert not mark.exists()
    assert (pv.ok("log", "--json").out, sorted(registry.packs.ids())) == before


def test_what_no_file_has_room_for(registry: Registry, pv: InProcess, tmp_path: Path) -> None:
    vector = make(registry, "formal", (*BLOCKS, HEAD), sites=BLOCKS[1:])
    pv.ok("steer", "rename", "formal", "f")
    make(registry, "off", BLOCKS[1:], 0)
    make(registry, "late", BLOCKS[1:], positions="reply")
    pv.ok("steer", "add", "sometimes=HEAD:late")
    pv.ok("steer", "set", "sometimes", "--when", f"{BLOCKS[1]}>0.1")
    there = tmp_path / "there.gguf"
    there.write_text("mine")
    cases: Mapping[tuple[str, ...], tuple[int, str]] = {
        ("nobody", "a.gguf"): (5, "no steering term 'nobody'"),
        ("late", "a.gguf"): (2, "steers reply positions"),
        ("sometimes", "a.gguf"): (2, "for some prompts alone"),
        ("off", "a.gguf"): (2, "coefficient 0"),
        ("f", "a.pt"): (2, "of lm-eval and of persona-vectors"),
        ("f", "a.bin"): (2, "which format"),
        ("f", "a.gguf", "--format", "gif"): (2, "gif"),
        ("f", "a.pt", "--format", "lm-eval", "--convention", "repeng"): (2, "knows no convention"),
        ("f", "a.gguf", "--all-sites"): (2, "holds directions after blocks"),
        ("f", "a.gguf", "--site", BLOCKS[0]): (2, "no direction.0"),
        ("f", "a.gguf", "--site", "lm_head"): (2, "no direction at 'lm_head'"),
        ("f", "a.gguf", "--unit", "--coefficient", "2"): (2, "unit"),
        ("f", "a.gguf", "--site", BLOCKS[1], "--all-sites"): (2, "exclude each other"),
        ("f", "missing/a.gguf"): (2, "no folder"),
        ("f", "there.gguf"): (2, "exists"),
        ("f", ".", "--format", "gguf"): (2, "is a folder"),
        ("HEAD~99:f", "a.gguf"): (5, "HEAD~99"),
    }
    for (what, file, *rest), (code, says) in cases.items():
        said = pv("steer", "export", what, "-o", tmp_path / file, *rest)
        assert (said.code, said.out) == (code, "") and says in said.err, (what, file, rest, said)
        assert "Traceback" not in said.err
    assert there.read_text() == "mine" and not list(tmp_path.glob("a.*"))
    pv.ok("steer", "export", "f", "-o", there, "--force")
    assert there.read_bytes().startswith(b"GGUF")
    assert pv.ok("steer", "export", "f", "-o", tmp_path / "b.gguf", "--json").json["vector"] == vector


def test_a_file_is_whole_or_not_there(
    registry: Registry, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pv.registry.disk import durable

    make(registry, "formal", BLOCKS[1:])
    file = tmp_path / "out" / "v.gguf"
    file.parent.mkdir()
    file.write_text("before")

    def interrupted(label: str) -> None:
        if label == "write v.gguf":
            raise KeyboardInterrupt

    with Repo.open(world.folder) as repo:
        monkeypatch.setattr(durable, "fault", interrupted)
        with pytest.raises(KeyboardInterrupt):
            repo.steer.export("formal", file, force=True)
        monkeypatch.undo()
        assert [one.name for one in file.parent.iterdir()] == ["v.gguf"] and file.read_text() == "before"
        with pytest.raises(StorageError, match="cannot write"):
            repo.steer.export("formal", file.parent / ("x" * 300 + ".gguf"))


def test_a_base_that_transformers_does_not_know(tmp_path: Path) -> None:
    """Names of sites are taken as they are, every rank; what counts blocks is refused."""
    (tmp_path / "r").mkdir()
    new_registry(tmp_path / "r").close()
    filters = {"block2.conv": np.arange(12, dtype=np.float32).reshape(3, 2, 2)}
    safetensors.write(tmp_path / "v.safetensors", filters, Model(()), coefficient=0.5)
    pv = InProcess(tmp_path / "r")
    made = pv.ok("steer", "import", tmp_path / "v.safetensors", "--as", "cheese")
    assert "whether it fits the base was not checked" in made.err
    assert "use --site" in pv("steer", "import", tmp_path / "v.safetensors", "--as", "x", "--layer", "0").err
    pv.ok("steer", "export", "cheese", "-o", tmp_path / "w.safetensors")
    read = safetensors.read(tmp_path / "w.safetensors", Model(()))
    assert np.array_equal(read.directions["block2.conv"], filters["block2.conv"]) and read.coefficient == 0.5
    said = pv("steer", "export", "cheese", "-o", tmp_path / "w.gguf")
    assert said.code == 2 and "this model has none" in said.err


def test_a_base_of_another_width(registry: Registry, pv: InProcess, tmp_path: Path) -> None:
    make(registry, "formal", BLOCKS)
    other = tmp_path / "other"
    other.mkdir()
    base = tiny_checkpoint(tmp_path / "sources" / "base")
    config = (base / "config.json").read_text()
    pv.ok("steer", "export", "formal", "-o", tmp_path / "v.pt", "--format", "persona-vectors")
    from support.tiny import tiny_model, tiny_tokenizer

    shutil.rmtree(base)
    tiny_model(hidden=32).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    assert config != (base / "config.json").read_text()
    pv.ok("init", "--base", base, at=other)
    said = pv("steer", "import", tmp_path / "v.pt", "--as", "formal", at=other)
    assert said.code == 3 and "directions of 48 numbers, and the model's blocks put out 32" in said.err
    assert pv.ok("steer", "list", at=other).out == "no steering terms\n"
