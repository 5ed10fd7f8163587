"""What opens as a checkpoint, and everything that must not."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.vectors import Tensors, array, read_all, save, small_base, write_safetensors

from pv.registry.disk.safetensors import header_bytes
from pv.registry.errors import CheckpointRefused, FormatError, IntegrityError, NotFoundError, PvError
from pv.registry.manifest import Spec
from pv.vecstore.checkpoints.checkpoint import INDEX, Checkpoint
from pv.vecstore.checkpoints.side_files import side_files

TENSORS = small_base()


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save(tmp_path / "model", TENSORS, shards=3)


def _equal(found: Tensors, wanted: Tensors) -> bool:
    bits = {n: (t.dtype, t.shape, t.raw.tobytes()) for n, t in wanted.items()}
    return {n: (t.dtype, t.shape, t.raw.tobytes()) for n, t in found.items()} == bits


def _refused(path: Path, kind: type[PvError], match: str) -> PvError:
    with pytest.raises(kind, match=match) as caught, Checkpoint(path):
        pass
    return caught.value


# What opens


def test_one_file(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", TENSORS)
    with Checkpoint(folder) as checkpoint:
        assert list(checkpoint.specs) == sorted(TENSORS)
        assert checkpoint.specs["model.norm.weight"] == Spec("BF16", (12,))
        assert checkpoint.specs["model.scale"].numel == 1
        assert checkpoint.specs["model.unused"].numel == 0
        assert [file.where for file in checkpoint.files] == [str(folder / "model.safetensors")]
    assert _equal(read_all(folder), TENSORS)
    assert _equal(read_all(folder / "model.safetensors"), TENSORS)


def test_one_file_with_a_name_of_its_own(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "adapted-final.safetensors", TENSORS)
    assert _equal(read_all(tmp_path), TENSORS)
    assert _equal(read_all(tmp_path / "adapted-final.safetensors"), TENSORS)


def test_shards(sharded: Path) -> None:
    assert _equal(read_all(sharded), TENSORS)
    with Checkpoint(sharded) as checkpoint:
        assert [file.name for file in checkpoint.files] == [
            f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)
        ]


def test_a_piece_of_a_tensor(tmp_path: Path) -> None:
    with Checkpoint(save(tmp_path / "model", TENSORS)) as checkpoint:
        name = "model.embed_tokens.weight"
        whole = TENSORS[name].raw.tobytes()
        assert bytes(checkpoint.read(name, 10, 30)) == whole[10:30]
        assert bytes(checkpoint.read(name, 950)) == whole[950:]


def test_what_the_reference_library_writes(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(5, dtype=np.int64),
    }
    save_file(arrays, tmp_path / "model.safetensors")
    found = read_all(tmp_path)
    assert {n: (t.dtype, t.shape) for n, t in found.items()} == {"a": ("I64", (5,)), "b": ("F32", (2, 3))}
    assert found["b"].raw.tobytes() == arrays["b"].tobytes()


def test_a_real_checkpoint(tiny_tied: Path) -> None:
    with Checkpoint(tiny_tied) as checkpoint:
        assert checkpoint.specs["model.embed_tokens.weight"] == Spec("BF16", (272, 48))
        assert "lm_head.weight" not in checkpoint.specs  # tied


# Nothing there, or nothing of use


def test_no_such_path(tmp_path: Path) -> None:
    assert _refused(tmp_path / "nope", NotFoundError, "no checkpoint at").hint


def test_an_empty_folder(tmp_path: Path) -> None:
    assert _refused(tmp_path, NotFoundError, "no safetensors weights in").hint


def test_several_files_and_no_index(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", {name: array(name, "BF16", 3)})
    error = _refused(tmp_path, CheckpointRefused, f"2 safetensors files and no {INDEX}")
    assert "name one file" in (error.hint or "")


def test_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    write_safetensors(tmp_path / "adapter_model.safetensors", {"a": array("a", "F32", 3)})
    error = _refused(tmp_path, CheckpointRefused, "adapter")
    assert "merge_and_unload" in (error.hint or "")


class Bomb:
    """A pickle that touches a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


PICKLES = ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt", "weights.pkl"]


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_pickle_is_refused_unopened(tmp_path: Path, name: str, as_folder: bool) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    error = _refused(folder if as_folder else folder / name, CheckpointRefused, "is a pickle")
    assert name in str(error)
    assert "save_pretrained" in (error.hint or "")  # how to convert it
    assert not (tmp_path / "boom").exists()


def test_a_pickle_beside_safetensors_is_not_looked_at(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", TENSORS)
    (folder / "training_args.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    assert _equal(read_all(folder), TENSORS)
    assert not (tmp_path / "boom").exists()


def test_a_pickle_with_the_name_of_a_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")) * 20)
    _refused(tmp_path, FormatError, "not a safetensors file")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3"])
def test_elements_that_share_bytes(tmp_path: Path, dtype: str) -> None:
    nbytes = {"F4": 4, "F6_E2M3": 6}[dtype]
    header = header_bytes({"packed": (dtype, (8,), nbytes)}, {})
    (tmp_path / "model.safetensors").write_bytes(header + bytes(nbytes))
    error = _refused(tmp_path, CheckpointRefused, f"'packed' is {dtype}")
    assert "convert" in (error.hint or "")


# A lying file


def test_every_truncation(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", {"a": array("a", "BF16", 7)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        _refused(tmp_path, FormatError, r"truncated|header|JSON")
    path.write_bytes(whole + b"\0")
    _refused(tmp_path, FormatError, "belong to no tensor")


def _with_header(document: object, data: bytes = bytes(16)) -> bytes:
    header = json.dumps(document).encode()
    return len(header).to_bytes(8, "little") + header + data


def _entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}


LIES = {
    "a header of exabytes": (1 << 62).to_bytes(8, "little") + b"{}",
    "a header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "not JSON": (4).to_bytes(8, "little") + b"{{{{",
    "not an object": _with_header([1, 2]),
    "a shape of exabytes": _with_header({"a": _entry(shape=[1 << 40, 1 << 40])}),
    "a shape below zero": _with_header({"a": _entry(shape=[-2, -2])}),
    "offsets beyond the file": _with_header({"a": _entry(shape=[4, 2], data_offsets=[0, 32])}),
    "offsets that overlap": _with_header({"a": _entry(), "b": _entry()}),
    "a hole": _with_header({"a": _entry(shape=[2], data_offsets=[8, 16])}),
    "another size": _with_header({"a": _entry(shape=[3])}),
    "an unknown dtype": _with_header({"a": _entry(dtype="F31")}),
    "a number for an offset": _with_header({"a": _entry(data_offsets=[0, 16.0])}),
    "a key too many": _with_header({"a": _entry(code="import os")}),
    "a tensor twice": (88).to_bytes(8, "little")
    + b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES.keys())
def test_a_lying_header(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    _refused(tmp_path, FormatError, "model.safetensors")


# A lying index


def _index(folder: Path, weight_map: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _weight_map(folder: Path) -> dict[str, Any]:
    weight_map: dict[str, Any] = json.loads((folder / INDEX).read_bytes())["weight_map"]
    return weight_map


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    error = _refused(sharded, CheckpointRefused, "model-00002-of-00003.safetensors is missing")
    assert "download" in (error.hint or "")


def test_an_index_that_names_the_wrong_shard(sharded: Path) -> None:
    weight_map = _weight_map(sharded)
    names = sorted(weight_map)
    weight_map[names[0]], weight_map[names[1]] = weight_map[names[1]], weight_map[names[0]]
    _index(sharded, weight_map)
    _refused(sharded, CheckpointRefused, "does not hold it")


def test_an_index_that_names_an_unknown_tensor(sharded: Path) -> None:
    _index(sharded, {**_weight_map(sharded), "model.extra": "model-00001-of-00003.safetensors"})
    _refused(sharded, CheckpointRefused, "'model.extra'.*does not hold it")


def test_a_tensor_that_the_index_does_not_know(sharded: Path) -> None:
    weight_map = _weight_map(sharded)
    del weight_map["model.norm.weight"]
    _index(sharded, weight_map)
    _refused(sharded, CheckpointRefused, "'model.norm.weight', which the index does not know")


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    first = "model-00001-of-00003.safetensors"
    mine = {n: TENSORS[n] for n in _weight_map(sharded) if _weight_map(sharded)[n] == first}
    extra = "model.norm.weight"
    assert extra not in mine
    write_safetensors(sharded / first, {**mine, extra: TENSORS[extra]})
    _refused(sharded, CheckpointRefused, f"'{extra}' is in both")


@pytest.mark.parametrize(
    "file",
    [
        "../outside.safetensors",
        "..",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        "./model-00001-of-00003.safetensors",
        "",
        ".hidden.safetensors",
        "-rf.safetensors",
        "model.safetensors\0.safetensors",
        "model.bin",
        5,
        None,
        ["model-00001-of-00003.safetensors"],
    ],
)
def test_an_index_that_leaves_the_folder(sharded: Path, file: object) -> None:
    outside = write_safetensors(sharded.parent / "outside.safetensors", {"x": array("x", "BF16", 2)})
    (sharded / "sub").mkdir()
    write_safetensors(sharded / "sub" / "model.safetensors", {"x": array("x", "BF16", 2)})
    _index(sharded, {**_weight_map(sharded), "x": file})
    _refused(sharded, FormatError, "cannot name a shard")
    _index(sharded, {**_weight_map(sharded), "x": str(outside)})
    _refused(sharded, FormatError, "cannot name a shard")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": "x"}', "\x00", "NaN"],
)
def test_an_index_that_is_none(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text)
    _refused(sharded, FormatError, INDEX)


def test_a_damaged_shard(sharded: Path) -> None:
    path = sharded / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    _refused(sharded, FormatError, "truncated")


def test_a_file_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", TENSORS)
    with Checkpoint(folder) as checkpoint:
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(IntegrityError, match="became shorter"):
            checkpoint.read("model.layers.1.self_attn.q_proj.weight")


# Side files


def test_side_files(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", TENSORS, shards=2)
    wanted = {
        "config.json": b"{}",
        "generation_config.json": b"{}",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ x }}",
        "merges.txt": b"a b",
        "tokenizer.model": b"\x00\x01",
        "base.tiktoken": b"IQ== 0",
    }
    unwanted = [
        "modeling_tiny.py",
        "run.sh",
        "README.md",
        "LICENSE",
        ".gitattributes",
        ".secret.json",
        "pytorch_model.bin",
        "training_args.bin",
        "other.safetensors",
        "pytorch_model.bin.index.json",
        "photo.png",
        "a:b.json",
    ]
    for name, data in {**wanted, **dict.fromkeys(unwanted, b"no")}.items():
        (folder / name).write_bytes(data)
    (folder / "1_Pooling").mkdir()
    (folder / "folder.json").mkdir()
    assert side_files(folder) == wanted
    assert side_files(folder / "other.safetensors") == wanted


def test_a_side_file_behind_a_link(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", TENSORS)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "added.txt").symlink_to("tokenizer.json")
    (folder / "gone.json").symlink_to("nowhere.json")
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        assert sorted(side_files(path)) == ["added.txt", "config.json", "tokenizer.json"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_side_file_behind_a_link_that_leaves_the_folder(tmp_path: Path, absolute: bool) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    folder = save(tmp_path / "model", TENSORS)
    (folder / "vocab.txt").symlink_to(tmp_path / "id_rsa" if absolute else "../id_rsa")
    with pytest.raises(CheckpointRefused, match=r"vocab\.txt is a link to .*id_rsa") as caught:
        side_files(folder)
    assert "copy" in (caught.value.hint or "")


def test_side_files_in_a_hub_cache(tmp_path: Path) -> None:
    """A snapshot there is made of links to blobs beside it."""
    cache = tmp_path / "models--user--name"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "abc").write_bytes(b'{"a": 1}')
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    assert side_files(snapshot) == {"config.json": b'{"a": 1}'}
    (tmp_path / "secret").write_bytes(b"no")
    (snapshot / "vocab.json").symlink_to("../../../secret")
    with pytest.raises(CheckpointRefused, match=r"vocab\.json is a link"):
        side_files(snapshot)
