"""Checkpoints in object stores and on web servers: the same bytes as from folders, each fetched once; clear errors."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World, tensors, write_tensors
from support.mergekit import document, make_models, snapshot, write
from support.range_server import RangeServer, range_server

HAS_OBSTORE = importlib.util.find_spec("obstore") is not None
needs_obstore = pytest.mark.skipif(not HAS_OBSTORE, reason="pip install 'personavec[object-store]'")
BUILD = ("-q", "build", "--from-mergekit", "merge.yml", "--json", "-o")


@pytest.fixture
def models(made: World, tmp_path: Path) -> Path:
    return make_models(made, tmp_path)


@pytest.fixture
def server(models: Path) -> Iterator[RangeServer]:
    with range_server(models) as running:
        yield running


def at(server: RangeServer, **changes: Any) -> Any:
    """The document with every model on the server."""
    one, two = document()["models"]
    return document(
        base_model=f"{server.url}/base",
        models=[{**one, "model": f"{server.url}/a"}, {**two, "model": f"{server.url}/b"}],
        **changes,
    )


@needs_obstore
def test_a_merge_from_a_web_server_is_the_merge_of_the_folders(
    models: Path, server: RangeServer, pv: InProcess
) -> None:
    for number, method in enumerate(("task_arithmetic", "ties", "dare_linear")):
        more = {"parameters": {"density": 0.4}} if method != "task_arithmetic" else {}
        write(models, document(merge_method=method, **more))
        whole = pv.ok(*BUILD, f"here{number}").json
        server.sent.clear()
        write(models, at(server, merge_method=method, **more))
        found = pv.ok(*BUILD, f"there{number}").json
        assert found["weights"] == whole["weights"] and found["files"] == whole["files"]
        here, there = (snapshot(models / f"{place}{number}") for place in ("here", "there"))
        for name in here.keys() - {"pv-merge.json", "mergekit_config.yml"}:
            assert there[name] == here[name]
        for model in ("base", "a", "b"):
            file = f"{model}/model.safetensors"
            assert server.overlaps(file) == [], "a byte was fetched twice"
            assert server.bytes_sent(file) == (models / file).stat().st_size


@needs_obstore
def test_s3_and_file_addresses(models: Path, server: RangeServer, process: Processes, pv: InProcess) -> None:
    write(models, document())
    whole = pv.ok(*BUILD, "here").json
    one, two = document()["models"]
    write(
        models,
        document(
            base_model="s3://bucket/base",
            models=[
                {**one, "model": "s3://bucket/a/"},
                {**two, "model": f"file://{models}/b/model.safetensors"},
            ],
        ),
    )
    said = process(*BUILD, "there", env=server.s3)
    assert said.code == 0, said
    assert said.json["weights"] == whole["weights"]
    assert server.listings > 0
    for name, digest in snapshot(models / "base").items():  # listed, so no file is missed
        if name != "model.safetensors":
            assert snapshot(models / "there")[name] == digest
    assert server.overlaps("base/model.safetensors") == []


@needs_obstore
def test_a_dry_run_fetches_headers_only(models: Path, server: RangeServer, pv: InProcess) -> None:
    write(models, at(server))
    answer = pv.ok(*BUILD[:-1], "-n", "-o", "out").json
    assert answer["bytes_read"] == 3 * sum(answer["sizes"].values())
    for model in ("base", "a", "b"):
        file = models / model / "model.safetensors"
        length = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        assert sorted(server.sent[f"{model}/model.safetensors"]) == [(0, 8), (8, length)]


@needs_obstore
def test_shards_and_large_tensors_several_requests_at_a_time(
    models: Path, server: RangeServer, pv: InProcess
) -> None:
    raw = os.urandom(1 << 20) * 20
    size = len(raw) // 2
    clean = bytes(byte & 0x3F if at % 2 else byte for at, byte in enumerate(raw[: 1 << 20])) * 20
    for name in ("base", "a", "b"):
        write_tensors(models / name / "model.safetensors", {"w.weight": ("BF16", (size // 64, 64), clean)})
    write(models, document())
    whole = pv.ok(*BUILD, "here").json
    pv.ok("-q", "build", "--from-mergekit", "merge.yml", "--json", "-o", "shards", "--shard-size", "0.01")
    write(models, at(server))
    server.together = 4
    assert pv.ok(*BUILD, "there").json["weights"] == whole["weights"]
    assert server.overlaps("a/model.safetensors") == []
    assert server.bytes_sent("a/model.safetensors") == (models / "a/model.safetensors").stat().st_size
    assert len(server.sent["a/model.safetensors"]) < 10
    assert server.most_at_once >= 4


@needs_obstore
def test_diff_reads_each_byte_once(models: Path, server: RangeServer, pv: InProcess) -> None:
    here = pv.ok("diff", models / "base", models / "a", "--json").json
    there = pv.ok("diff", f"{server.url}/base", f"{server.url}/a/model.safetensors", "--json").json
    assert there["a"] == f"{server.url}/base" and there["total"] == here["total"]
    for model in ("base", "a"):
        assert server.overlaps(f"{model}/model.safetensors") == []
    mixed = pv.ok("diff", models / "base", f"{server.url}/a", "--json").json
    assert mixed["tensors"] == here["tensors"]


@needs_obstore
def test_a_server_that_falters_is_asked_again(models: Path, server: RangeServer, pv: InProcess) -> None:
    write(models, document())
    whole = pv.ok(*BUILD, "here").json
    server.fails = {"a/model.safetensors": (503, 2), "b/model.safetensors": ("cut", 1)}
    write(models, at(server))
    assert pv.ok(*BUILD, "there").json["weights"] == whole["weights"]


@needs_obstore
def test_what_is_wrong_is_said_once_and_nothing_is_written(
    models: Path, server: RangeServer, pv: InProcess
) -> None:
    write(models, at(server))
    before = snapshot(models)
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"a/": 404}, 5, "nothing is at"),
        ({"a/": 403}, 4, "no permission"),
        ({"a/": 401}, 4, "no permission"),
        ({"a/model.safetensors": "whole"}, 4, "no ranges"),
        ({"a/model.safetensors": "cut"}, 4, "the connection ended in the middle"),
    ]
    for fails, code, words in cases:
        server.fails = dict(fails)
        said = pv("build", "--from-mergekit", "merge.yml", "-o", "out")
        assert (said.code, said.out) == (code, ""), said
        assert words in said.err and f"{server.url}/a" in said.err and "hint" in said.err, said.err
        assert "Debug source" not in said.err and len(said.err.splitlines()) < 5, said.err
        assert snapshot(models) == before
    server.fails = {}
    file = models / "a" / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    said = pv("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert said.code == 3 and "truncated" in said.err and snapshot(models)["base/config.json"]
    file.write_bytes(b"")
    said = pv("build", "--from-mergekit", "merge.yml", "-o", "out")
    assert said.code == 3 and "truncated" in said.err and not (models / "out").exists()


@needs_obstore
def test_a_file_that_is_replaced_meanwhile_is_not_mixed(
    models: Path, server: RangeServer, pv: InProcess
) -> None:
    from pv.registry.errors import RemoteError
    from pv.vecstore.checkpoints.checkpoint import Checkpoint
    from pv.vecstore.checkpoints.object_store import ObjectFolder

    table = tensors(models / "a")
    with Checkpoint(ObjectFolder(f"{server.url}/a")) as checkpoint:
        names = sorted(table)
        assert bytes(checkpoint.read(names[0])) == table[names[0]][2]
        write_tensors(models / "a" / "model.safetensors", table)
        os.utime(models / "a" / "model.safetensors", (1, 1))
        with pytest.raises(RemoteError, match="was replaced while it was being read"):
            checkpoint.read(names[1])


@needs_obstore
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://user:secret@127.0.0.1/a", "credentials do not belong in an address"),
        ("https://127.0.0.1/a?X-Amz-Signature=secret", "has a query"),
        ("memory:///a", "pv does not read from"),
        ("ftp://host/a", "pv does not read from"),
        ("s3:///a", "pv does not read from"),
    ],
)
def test_addresses_that_are_none(tmp_path: Path, pv: InProcess, address: str, words: str) -> None:
    said = pv("diff", address, address, at=tmp_path)
    assert said.code == 2 and words in said.err and "secret" not in said.err


@needs_obstore
def test_nobody_there(tmp_path: Path, pv: InProcess) -> None:
    said = pv("diff", "http://127.0.0.1:9/a", "http://127.0.0.1:9/b", at=tmp_path)
    assert said.code == 4 and "cannot be read" in said.err and "hint" in said.err
    said = pv("diff", f"file://{tmp_path}/nothing", f"file://{tmp_path}", at=tmp_path)
    assert said.code == 5 and "nothing is at file://" in said.err


def test_without_the_library_it_is_said(tmp_path: Path, process: Processes) -> None:
    (tmp_path / "path" / "obstore").mkdir(parents=True)
    (tmp_path / "path" / "obstore" / "__init__.py").write_text("raise ImportError\n")
    paths = os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")])
    said = process("diff", "s3://bucket/a", "s3://bucket/b", env={"PYTHONPATH": paths})
    assert said.code == 2 and "needs the package obstore" in said.err
    assert "pip install 'personavec[object-store]'" in said.err


@needs_obstore
def test_where_a_folder_is_needed_it_is_said(
    made: World, server: RangeServer, pv: InProcess, tmp_path: Path
) -> None:
    said = pv("init", "--base", f"{server.url}/base", at=tmp_path)
    assert said.code == 2 and "is not on this machine" in said.err and not (tmp_path / ".pv").exists()


@needs_obstore
def test_a_commit_from_a_store_is_the_commit_of_the_folder(
    world: World, server: RangeServer, models: Path, pv: InProcess
) -> None:
    here = pv.ok("commit", models / "a", "--as", "here", "--json").json
    there = pv.ok("commit", f"{server.url}/a", "--as", "there", "--json").json
    assert there["vector"] == here["vector"]
    file = "a/model.safetensors"
    assert server.overlaps(file) == [] and server.bytes_sent(file) == (models / file).stat().st_size
    assert f"{server.url}/a" in pv.ok("show", "there", "--json").out
    write_tensors(models / "b" / "model.safetensors", {"w": ("F32", (1,), bytes(4))})
    refused = pv("commit", f"{server.url}/b", "--as", "other")
    assert (
        refused.code == 3 and f"{server.url}/b does not fit" in refused.err and "fetched" not in refused.err
    )
    server.fails = {"a/model": "cut"}
    assert pv("commit", f"{server.url}/a", "--as", "cut").code == 4
    assert not list((pv.at / ".pv" / "tmp").iterdir())
