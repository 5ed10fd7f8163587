"""Checkpoint folders that reach out of themselves, never end, or come in a thousand pieces: kind `folder`.

And kind `adapter`: PEFT folders that ask for more than they have.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attacks.case import BASE, TENSORS, Case, base_folder, safetensors
from attacks.headers import PICKLE, spec
from support.vectors import nudged, write_safetensors

from pv.vecstore.checkpoints.checkpoint import INDEX
from pv.vecstore.checkpoints.side_files import MAX_SIDE_BYTES

__all__ = ["SECRET", "cases"]

SECRET = b"root:$6$a secret of ours:0:0"
SHARDS = 600  # more than the 256 files that a case may have open
NAMES = sorted(TENSORS)

Lay = Callable[[Path], None]


def cases() -> Iterator[Case]:
    every = {**indexes(), **links(), **kinds_of_file()}
    for name, lay in every.items():
        yield Case(name, "folder", lay, frozenset({3, 5}), frozenset({"side files"}))
    yield Case("34 headers of 16 MiB", "large folder", headers)
    for name, lay in side_files().items():
        yield Case(name, "folder", lay, taken=frozenset({"checkpoint", "commit"}))
    for name, lay in harmless_beside().items():
        yield Case(name, "folder", lay, taken=frozenset({"checkpoint", "init", "commit", "side files"}))
    yield Case("a file that shrinks while it is read", "shrinking", base_folder)
    for name, lay in adapters().items():
        yield Case(name, "adapter", lay, frozenset({3, 5}))
    for name, lay in adapters_to_take().items():
        yield Case(name, "adapter", lay, taken=frozenset({"commit"}))


def shard(folder: Path, *names: str, file: str = "model-00001.safetensors") -> None:
    write_safetensors(folder / file, {name: TENSORS[name] for name in names or NAMES})


def index(folder: Path, weight_map: Any) -> None:
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    (folder / INDEX).write_text(text)


def indexed(target: Any) -> Lay:
    """A good shard, and an index that places one of its tensors in `target`."""

    def lay(folder: Path) -> None:
        shard(folder)
        index(folder, {NAMES[0]: target, NAMES[1]: "model-00001.safetensors"})

    return lay


def raw_index(text: str | Callable[[], bytes]) -> Lay:
    def lay(folder: Path) -> None:
        shard(folder)
        (folder / INDEX).write_bytes(text() if callable(text) else text.encode())

    return lay


def indexes() -> dict[str, Lay]:
    def overlapping(folder: Path) -> None:
        shard(folder)
        shard(folder, NAMES[0], file="model-00002.safetensors")
        index(folder, {NAMES[0]: "model-00002.safetensors", NAMES[1]: "model-00001.safetensors"})

    def swapped(folder: Path) -> None:
        shard(folder, NAMES[0])
        shard(folder, NAMES[1], file="model-00002.safetensors")
        index(folder, {NAMES[1]: "model-00001.safetensors", NAMES[0]: "model-00002.safetensors"})

    def many(folder: Path) -> None:
        for i in range(SHARDS):
            (folder / f"{i}.safetensors").write_bytes(safetensors({}))
        index(folder, {str(i): f"{i}.safetensors" for i in range(SHARDS)})

    def unlisted(folder: Path) -> None:
        shard(folder)
        index(folder, {NAMES[0]: "model-00001.safetensors"})

    targets: dict[str, Any] = {
        "a shard ../../../etc/passwd": "../../../../../../etc/passwd",
        "a shard ../x.safetensors": "../x.safetensors",
        "a shard /etc/passwd": "/etc/passwd",
        "a shard with a backslash": "..\\x.safetensors",
        "a shard C:x.safetensors": "C:x.safetensors",
        "a shard that is hidden": ".x.safetensors",
        "a shard that begins like an option": "-x.safetensors",
        "a shard with NUL": "x\0.safetensors",
        "a shard with an escape": "\x1b[2J.safetensors",
        "a shard that is not there": "model-00009.safetensors",
        "a shard that is a pickle": "pytorch_model.bin",
        "a shard that is the index": INDEX,
        "a shard that is a list": ["model-00001.safetensors"],
        "a shard that is a number": 1,
        "a shard with a name of 5000": "x" * 5000 + ".safetensors",
    }

    def million() -> bytes:
        return b'{"weight_map":{' + b",".join(b'"%x":"a.safetensors"' % i for i in range(1_100_000)) + b"}}"

    return {
        **{name: indexed(target) for name, target in targets.items()},
        "an index that is a list": raw_index("[]"),
        "an index without a map": raw_index("{}"),
        "an index with an empty map": raw_index('{"weight_map":{}}'),
        "an index of nonsense": raw_index("weights: yes"),
        "an index, 900 deep": raw_index('{"weight_map":' * 900 + "{}" + "}" * 900),
        "an index with two keys alike": raw_index('{"weight_map":{"a":"x","a":"y"}}'),
        "an index of 1100000 entries": raw_index(million),
        "an index of 65 MiB": raw_index(lambda: b"{" + b" " * (65 << 20) + b"}"),
        "a tensor in two shards": overlapping,
        "an index that swaps the shards": swapped,
        "an index that leaves a tensor out": unlisted,
        "600 shards": many,
    }


def headers(folder: Path) -> None:
    """Each may be that long. All of them together may not stay in memory."""
    for i in range(34):
        data = safetensors({}, length=16 << 20)
        (folder / f"{i}.safetensors").write_bytes(data.ljust(8 + (16 << 20)))
    index(folder, {str(i): f"{i}.safetensors" for i in range(34)})


def links() -> dict[str, Lay]:
    def secret(folder: Path) -> Path:
        place = folder.parent / f"{folder.name} home"
        place.mkdir()
        (place / "passwd").write_bytes(SECRET)
        return place / "passwd"

    def linked(name: str) -> Lay:
        return lambda folder: (folder / name).symlink_to(secret(folder))

    def linked_shard(folder: Path) -> None:
        linked("model-00002.safetensors")(folder)
        indexed("model-00002.safetensors")(folder)

    def to(target: str, name: str = "model.safetensors") -> Lay:
        return lambda folder: (folder / name).symlink_to(target)

    return {
        "weights linked to a secret": linked("model.safetensors"),
        "a shard linked to a secret": linked_shard,
        "an index linked to a secret": linked(INDEX),
        "weights linked to themselves": to("model.safetensors"),
        "weights linked to nothing": to("gone"),
        "weights linked to /dev/zero": to("/dev/zero"),
        "weights linked to /dev/stdin": to("/dev/stdin"),
        "weights linked to /proc/self/mem": to("/proc/self/mem"),
        "weights linked to their folder": to("."),
        "an index linked to /dev/zero": to("/dev/zero", INDEX),
    }


def kinds_of_file() -> dict[str, Lay]:
    def pipe(name: str) -> Lay:
        return lambda folder: os.mkfifo(folder / name)

    def pipe_shard(folder: Path) -> None:
        os.mkfifo(folder / "model-00002.safetensors")
        indexed("model-00002.safetensors")(folder)

    def listening(folder: Path) -> None:
        here = os.open(".", os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as end:
            os.chdir(folder)  # the path to a socket has to be short
            end.bind("model.safetensors")
            os.fchdir(here)
        os.close(here)

    def mkdir(name: str) -> Lay:
        return lambda folder: (folder / name).mkdir()

    def files(**contents: bytes) -> Lay:
        def lay(folder: Path) -> None:
            for name, data in contents.items():
                (folder / name.replace("__", ".")).write_bytes(data)

        return lay

    return {
        "weights that are a pipe": pipe("model.safetensors"),
        "other weights that are a pipe": pipe("x.safetensors"),
        "a shard that is a pipe": pipe_shard,
        "weights that are a socket": listening,
        "weights that are a folder": mkdir("model.safetensors"),
        "other weights that are a folder": mkdir("x.safetensors"),
        "an index that is a folder": mkdir(INDEX),
        "a pickle": files(pytorch_model__bin=PICKLE),
        "a pickle under another name": files(model__safetensors=PICKLE),
        "a checkpoint of another sort": files(model__ckpt=PICKLE, model__pt=PICKLE),
        "weights named like a command": files(**{"\x1b]0;x\x07__safetensors": safetensors({})}),
        "nothing": lambda folder: None,
    }


def side_files() -> dict[str, Lay]:
    """The weights are a fine-tune of the base: what lies beside them is another matter."""

    def with_side(add: Callable[[Path], object]) -> Lay:
        def lay(folder: Path) -> None:
            write_safetensors(folder / "model.safetensors", nudged(TENSORS, 1, share=1))
            add(folder)

        return lay

    def link(folder: Path) -> None:
        (folder.parent / f"{folder.name} secret").write_bytes(SECRET)
        (folder / "config.json").symlink_to(f"../{folder.name} secret")

    def through(folder: Path) -> None:
        (folder.parent / f"{folder.name} secret").write_bytes(SECRET)
        (folder / "inner").symlink_to("..")
        (folder / "config.json").symlink_to(f"inner/{folder.name} secret")

    def sized(folder: Path, count: int, size: int) -> None:
        for number in range(count):
            with (folder / f"{number}.json").open("wb") as file:
                file.truncate(size)

    return {
        "a side file linked to a secret": with_side(link),
        "a side file linked to a secret through a folder": with_side(through),
        "a side file linked to /etc/passwd": with_side(lambda f: (f / "vocab.txt").symlink_to("/etc/passwd")),
        "a side file of 64 MiB and a byte": with_side(lambda f: sized(f, 1, MAX_SIDE_BYTES + 1)),
        "five side files of 60 MiB": with_side(lambda f: sized(f, 5, 60 << 20)),
    }


def harmless_beside() -> dict[str, Lay]:
    """What lies beside the weights is left where it is: nobody asked for it."""

    def lay(folder: Path) -> None:
        write_safetensors(folder / "model.safetensors", nudged(TENSORS, 1, share=1))
        os.mkfifo(folder / "config.json")
        (folder / "tokenizer.json").mkdir()
        (folder / "vocab.txt").symlink_to("vocab.txt")
        (folder / "merges.txt").symlink_to("/dev/zero")
        (folder / "modeling.py").write_text("raise SystemExit('run')")
        (folder / "pytorch_model.bin").write_bytes(PICKLE)
        (folder / "a\nb.json").write_text("{}")
        (folder / "a:b.json").write_text("{}")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.json")).write_text("{}")

    return {"pipes, devices, pickles and code beside the weights": lay}


GOOD: Mapping[str, Any] = {"peft_type": "LORA", "r": 1, "lora_alpha": 1}


def adapter(
    config: Mapping[str, Any] | bytes = GOOD,
    module: str = "model.proj",
    *,
    rank: int = 1,
    weights: bytes | None = None,
) -> Lay:
    """An adapter of one module of ADAPTED; a configuration of keys is added to a good one."""

    def lay(folder: Path) -> None:
        document = config if isinstance(config, bytes) else json.dumps({**GOOD, **config}).encode()
        (folder / "adapter_config.json").write_bytes(document)
        a, end = 24 * rank, 40 * rank
        header = {
            f"base_model.model.{module}.lora_A.weight": spec(0, a, "F32", [rank, 6]),
            f"base_model.model.{module}.lora_B.weight": spec(a, end, "F32", [4, rank]),
        }
        data = safetensors(header, b"\0\0\x80\x3f" * (end // 4)) if weights is None else weights
        (folder / "adapter_model.safetensors").write_bytes(data)

    return lay


def adapters() -> dict[str, Lay]:
    def pickled(folder: Path) -> None:
        adapter()(folder)
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")

    def piped(folder: Path) -> None:
        adapter()(folder)
        (folder / "adapter_model.safetensors").unlink()
        os.mkfifo(folder / "adapter_model.safetensors")

    return {
        "an adapter that is a pickle": pickled,
        "an adapter that is a pipe": piped,
        "an adapter of a module that is not there": adapter(module="model.lm"),
        "an adapter of ../../x": adapter(module="../../x"),
        "an adapter of rank 2^20": adapter({"r": 1 << 20}),
        "an adapter of rank 2^20, in truth": adapter({"r": 1 << 20}, rank=1 << 20),
        "an adapter of rank 0": adapter({"r": 0}),
        "an adapter of rank true": adapter({"r": True}),
        "an adapter with NaN": adapter(b'{"peft_type":"LORA","r":1,"lora_alpha":NaN}'),
        "an adapter with 1e400": adapter(b'{"peft_type":"LORA","r":1,"lora_alpha":1e400}'),
        "an adapter configured 900 deep": adapter(b'{"a":' * 900 + b"1" + b"}" * 900),
        "an adapter of a new sort": adapter({"peft_type": "LORA2"}),
        "an adapter with code": adapter({"custom": "os.system"}),
        "an adapter whose header lies": adapter(weights=safetensors({}, length=1 << 40)),
        **{
            f"an adapter with the pattern {pattern}": adapter({"rank_pattern": {pattern: 1}})
            for pattern in ("(a|a)*b", "(a*)*b", "(.*.*)+x", "(?:a+)+$", "(", "[z-a]", "a" * 5000)
        },
    }


def adapters_to_take() -> dict[str, Lay]:
    """One that is honest, and patterns that look slow, held against the longest name there is."""
    longest = "model." + ".".join("a" * 480)
    return {
        "an honest adapter": adapter(),
        **{
            f"an adapter with the pattern {pattern}": adapter({option: {pattern: 1}}, longest)
            for option, pattern in (
                ("rank_pattern", ".*x"),
                ("alpha_pattern", "[a-z.]*!"),
                ("rank_pattern", "a?a?a?" + "a" * 500),
            )
        },
    }


assert BASE.tensors.keys() == set(NAMES)
