"""fsck, gc and verify as a person meets them: what they say, and how they exit."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, World, tensors, write_rows, write_tensors

from pv.registry import canonical
from pv.registry.registry import Registry


def vector_of(pv: InProcess, name: str) -> str:
    persona = pv.ok("show", "--json").json["persona"]
    vector: str = persona["behaviours"][name]["terms"][0][1]
    return vector


def pack(world: World, pack_id: str) -> Path:
    return world.folder / ".pv" / "packs" / pack_id[:2] / pack_id


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def test_fsck_of_a_sound_registry(world: World, pv: InProcess) -> None:
    before = world.state()
    said = pv.ok("fsck", "--deep")
    assert said.out == ""
    assert "nothing is damaged" in said.err and "every tensor decoded" in said.err
    document = pv.ok("fsck", "--json").json
    assert (document["schema"], document["clean"], document["findings"]) == (1, True, [])
    assert (document["commits"], document["packs"]) == (2, 4)  # the base, the vector, both its rows
    assert {k: v for k, v in world.state().items() if k != "gate"} == {
        k: v for k, v in before.items() if k != "gate"
    }


def test_fsck_deep_does_not_say_of_what_it_could_not_decode_that_it_did(
    world: World, pv: InProcess, tmp_path: Path
) -> None:
    base, home = tmp_path / "base", tmp_path / "home"
    shutil.copytree(world.base, base)
    home.mkdir()
    pv.ok("init", "--base", base, "--reference", at=home)
    pv.ok("commit", world.tuned, "--as", "tuned", at=home)
    assert "1 pack (" in pv.ok("fsck", "--deep", at=home).err
    base.rename(tmp_path / "away")
    said = pv.ok("fsck", "--deep", at=home)
    assert "not decoded: its base base (" in said.out and "base base (" in said.out
    assert "every tensor decoded" not in said.err
    assert "1 of 1 pack not decoded; as far as could be checked, nothing is damaged" in said.err
    pv.ok("undo", at=home)
    pv.ok("branch", "other", at=home)
    pv.ok("gc", "--grace", "0", "--expire", "0", at=home)
    said = pv.ok("fsck", "--deep", at=home)
    assert "every tensor decoded" not in said.err and "as far as could be checked" in said.err
    assert "1 commit, 1 operation, " in said.err and "0 packs" in said.err


def test_gc_says_what_undo_keeps(world: World, pv: InProcess) -> None:
    pv.ok("undo")
    pv.ok("branch", "other")
    pv.ok("gc")  # the builds that were kept
    said = pv.ok("gc")
    assert "nothing to delete" in said.err
    said = pv.ok("gc", "--expire", "0")
    assert "3 packs that nothing needs are younger than the grace period" in said.err
    assert re.search(r"operations? \d.* forgotten: `pv undo` can no longer take (it|them) back\n", said.out)
    text = " ".join(pv.ok("gc", "--help").out.split())
    assert "What `pv undo` can still bring back is kept" in text


def test_fsck_names_a_stranger_among_trainings(world: World, pv: InProcess) -> None:
    trainings = world.folder / ".pv" / "trainings"
    (trainings / ("0" * 32)).mkdir(parents=True, exist_ok=True)
    (trainings / "notes").mkdir()
    assert pv.ok("fsck").out == "note trainings/notes: not a file of pv's\n"


def test_fsck_names_what_is_affected(world: World, pv: InProcess) -> None:
    vector = vector_of(pv, "listening")
    commit = pv.ok("show", "--json").json["id"]
    flip(pack(world, vector))
    said = pv("fsck")
    assert said.code == 3
    assert f"damage packs/{vector[:2]}/{vector[:12]}" in said.out
    assert "behaviours: listening" in said.out and f"commits: {commit[:12]}" in said.out
    assert "affected behaviours: listening" in said.err
    assert "train it again: " in said.out and "--repair" not in said.err, "no repair brings that back"
    document = pv("fsck", "--json")
    assert document.code == 3
    (finding,) = document.json["findings"]
    assert finding["kind"] == "pack" and finding["behaviours"] == ["listening"]
    assert finding["commits"] == [commit]


def test_fsck_repairs_refs_and_a_pinned_base(world: World, pv: InProcess) -> None:
    base = pv.ok("show", "--json").json["persona"]["base"]
    whole = pack(world, base).read_bytes()
    flip(pack(world, base), 5000)
    (world.folder / ".pv/history.git/refs/heads/main").write_bytes(b"")
    (world.folder / ".pv/history.git/HEAD").unlink()
    assert pv("log").code == 3
    assert pv("fsck").code == 3
    said = pv.ok("fsck", "--repair", "--json").json
    assert said["clean"] and all(repair["done"] for repair in said["repairs"])
    assert {Path(repair["where"]).name for repair in said["repairs"]} == {base, "main", "HEAD"}
    assert pack(world, base).read_bytes() == whole
    assert len(pv.ok("log", "--json").json["commits"]) == 2
    pv.ok("fsck", "--deep")


def test_fsck_says_how_to_train_again_what_it_cannot_mend(world: World, pv: InProcess) -> None:
    vector = vector_of(pv, "listening")
    pack(world, vector).unlink()
    said = pv("fsck", "--repair")
    assert said.code == 3
    assert "not mended" in said.out
    assert "pv train rows.jsonl --as listening" in said.out and "--max-steps 2" in said.out
    again: list[str | Path] = [
        "train",
        world.rows,
        "--as",
        "listening",
        "--max-steps",
        "2",
        "--threads",
        "1",
        "--held-out",
        "none",
    ]
    assert (
        "nothing changed" in pv(*again).err
    )  # the persona names that vector already: only its pack was gone
    assert vector_of(pv, "listening") == vector  # the same machine, the same threads
    pv.ok("fsck", "--deep")


def test_fsck_where_the_format_is_damaged(world: World, pv: InProcess) -> None:
    (world.folder / ".pv/format").write_bytes(b"")
    assert pv("status").code == 3
    said = pv("fsck")
    assert said.code == 3 and "format" in said.out
    pv.ok("fsck", "--repair")
    pv.ok("status")


def test_fsck_without_a_registry(tmp_path: Path, pv: InProcess) -> None:
    assert pv("fsck").code == 128


def test_fsck_imports_neither_torch_nor_numpy(world: World, process: Processes) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pv.cli.main import run; code = run(sys.argv[1:]); "
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules))); sys.exit(code)"
    )
    for arguments in (["fsck"], ["gc"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=world.folder, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout.strip().splitlines()[-1]) == (0, "[]"), done.stderr


def test_train_names_its_rows_and_the_branch_it_began_on(world: World, pv: InProcess) -> None:
    provenance = pv.ok("show", "--json").json["provenance"][vector_of(pv, "listening")]
    rows = provenance["data"]["id"]
    assert provenance["packs"] == [rows, provenance["held_out"]["data_id"]]
    pack(world, rows).unlink()
    said = pv("fsck")
    assert said.code == 3 and "the pack of this rows is missing" in said.out
    other = write_rows(world.folder / "other.jsonl", answer="No")
    pv.ok("train", other, "--as", "brief", "--max-steps", "1", "--no-data", "--held-out", "none")
    assert pv.ok("show", "--json").json["provenance"][vector_of(pv, "brief")]["packs"] == []


def test_gc_says_what_would_go_and_then_takes_it(world: World, pv: InProcess) -> None:
    vector = vector_of(pv, "listening")
    pv.ok("drop", "listening")
    pv.ok("undo")
    pv.ok("undo")  # back before the training
    (build,) = (world.folder / ".pv" / "cache").iterdir()  # on which it was measured
    assert (
        re.search("1 build in the cache, 1[12][0-9] kB, would be deleted", pv.ok("gc", "-n").out)
        and build.is_dir()
    )
    assert re.search("1 build in the cache, 1[12][0-9] kB, deleted", pv.ok("gc").out) and not build.exists()
    assert pv.ok("gc").err.endswith("nothing to delete\n")
    before = world.state()
    now = {"--grace": "0", "--expire": "0"}
    options = [word for pair in now.items() for word in pair]
    said = pv.ok("gc", "--dry-run", *options)
    assert "forgotten" in said.out
    assert {k: v for k, v in world.state().items() if k != "gate"} == {
        k: v for k, v in before.items() if k != "gate"
    }
    pv.ok("gc", *options)  # the undo is the newest operation: it stays, and so does what it names
    assert pack(world, vector).exists()
    pv.ok("branch", "other")  # now the undo can expire
    document = pv.ok("gc", "--dry-run", "--json", *options).json
    gone = sorted(one["name"] for one in document["quarantine"])
    assert document["dry_run"] and vector in gone and len(gone) == 3  # and its rows
    assert pack(world, vector).exists()
    said = pv.ok("gc", *options)
    assert f"pack {vector[:12]}" in said.out and "quarantine" in said.out
    assert not pack(world, vector).exists()
    said = pv.ok("gc", *options)
    assert f"pack {vector[:12]}" in said.out and "deleted" in said.out
    assert list((world.folder / ".pv/quarantine").iterdir()) == []
    assert "nothing to delete" in pv.ok("gc", *options).err
    pv.ok("fsck", "--deep")


def test_gc_touches_nothing_where_something_is_damaged(world: World, pv: InProcess) -> None:
    lost = world.folder / ".pv/packs/cc" / ("c" * 64)
    lost.parent.mkdir()
    shutil.copy(pack(world, vector_of(pv, "listening")), lost)
    os.utime(lost, (0, 0))
    with Registry.find(world.folder) as registry:
        entry = registry.history.entry(registry.resolve("HEAD"), "persona.json")
    assert entry is not None
    flip(world.folder / ".pv/history.git/objects" / entry.id[:2] / entry.id[2:])
    said = pv("gc")
    assert said.code == 3 and "pv fsck" in said.err
    assert lost.exists()


@pytest.mark.parametrize("bad", ["-1", "soon"])
def test_gc_refuses_a_strange_age(world: World, pv: InProcess, bad: str) -> None:
    assert pv("gc", "--grace", bad).code == 2


def test_verify_knows_the_build(world: World, pv: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "out"
    built = pv.ok("build", "-o", out, "--json").json
    said = pv.ok("verify", out)
    assert said.out == f"weights  {built['weights']}\n"
    assert "as recorded" in said.err
    document = pv.ok("verify", out, "--json").json
    assert (document["same"], document["recorded"], document["differing"]) == (True, True, [])
    assert document["found"] == document["expected"] == built["weights"]

    shutil.rmtree(world.folder / ".pv/records")  # no record: it is computed again, and nothing is written
    said = pv.ok("verify", out)
    assert "computed again" in said.err
    assert not (world.folder / ".pv/records").exists()
    shards = tmp_path / "shards"
    pv.ok("build", "-o", shards, "--shard-size", "0.05")
    assert len(list(shards.glob("*.safetensors"))) > 1
    pv.ok("verify", shards)


def test_verify_names_what_differs(world: World, pv: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pv.ok("build", "-o", out)
    table = tensors(out)
    name = sorted(table)[3]
    dtype, shape, raw = table[name]
    table[name] = (dtype, shape, bytes([raw[0] ^ 1]) + raw[1:])
    write_tensors(out / "model.safetensors", table)
    (out / "config.json").write_text("{}")
    said = pv("verify", out)
    assert said.code == 1
    assert f"{name} has other values" in said.out
    assert "1 of 20 tensors and 1 file differ" in said.out and "config.json differs" in said.out
    document = pv("verify", out, "--json").json
    assert document["differing"] == [{"tensor": name, "what": "has other values"}]
    assert document["side_files"] == ["config.json"]

    del table[name]
    table["stranger"] = ("BF16", (1,), b"\0\0")
    write_tensors(out / "model.safetensors", table)
    said = pv("verify", out)
    assert said.code == 1
    assert f"{name} is missing" in said.out and "stranger is not in the build" in said.out


def test_verify_a_revision_and_the_options_of_build(world: World, pv: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pv.ok("build", "-o", out, "--dtype", "fp32")
    said = pv("verify", out, "HEAD")
    assert said.code == 1 and "is F32" in said.out
    pv.ok("verify", out, "--dtype", "fp32")
    assert pv("verify", world.base, "HEAD").code == 1
    pv.ok("verify", world.base, "HEAD~1")  # the base is the build of a persona without behaviours
    assert pv("verify", tmp_path / "nowhere").code == 5


def test_a_record_that_rotted_is_found_and_set_aside(world: World, pv: InProcess, tmp_path: Path) -> None:
    built = pv.ok("build", "-o", tmp_path / "out", "--json").json
    record = world.folder / ".pv/records" / f"{built['build']}.json"
    digit = built["weights"][0]
    record.write_bytes(
        record.read_bytes().replace(built["weights"].encode(), b"0" + built["weights"][1:].encode())
    )
    if digit == "0":
        flip(record, 40)
    assert pv("verify", tmp_path / "out").code == 3  # never a wrong verdict from a wrong record
    assert pv("fsck").code == 3
    pv.ok("fsck", "--repair")
    pv.ok("verify", tmp_path / "out")


def test_help_has_an_example(pv: InProcess) -> None:
    for name in ("fsck", "gc", "verify"):
        assert f"pv {name}" in pv.ok(name, "--help").out.partition("Usage")[2].partition("\n")[2]


def test_json_is_one_document_even_with_damage(world: World, process: Processes) -> None:
    (world.folder / ".pv/history.git/HEAD").unlink()
    said = process("fsck", "--json")
    assert said.code == 3
    assert canonical.loads(said.out.encode())["clean"] is False
    assert json.loads(said.out)["findings"][0]["kind"] == "head"
