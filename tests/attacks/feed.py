"""Feed every case to every entry that would meet it, each case in a process of its own that is watched.

    python tests/attacks/feed.py FOLDER KIND...        one line of JSON a case, on stdout

Everything happens below FOLDER: `cases` is what was laid there, `out` where entries may write. A process has
20 seconds of CPU, 2 GiB more of address space than it begins with, 256 files, and after five minutes an end.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attacks.case import ADAPTED, BASE, TENSORS, Case, base_folder
from attacks.chunks import reference
from attacks.make import all_cases
from support.vectors import base_at, store

from pv.registry.disk.safetensors import TensorFile
from pv.registry.errors import PvError
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.data.kept_rows import load_rows
from pv.vecstore.data.rows import read_rows
from pv.vecstore.merge.build import build
from pv.vecstore.merge.module_factors import factor
from pv.vecstore.packs.codecs import chunks
from pv.vecstore.packs.read import Pack
from pv.vecstore.repo.opening import opened
from pv.vecstore.tensors.array import Raw
from pv.vecstore.vectors.adapters.capture import capture_adapter
from pv.vecstore.vectors.base import base_manifest
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.pinned import pin
from pv.vecstore.vectors.steering import open_steering
from pv.vecstore.vectors.vector import open_vector

Entry = Callable[[Path, Path], object]  # (the case, a folder to write to)

CPU_SECONDS, WALL_SECONDS, MORE_MEMORY, FILES = 20, 300, 2 << 30, 256


# Weights and the folders they lie in


def tensor_file(case: Path, out: Path) -> None:
    with TensorFile(case / "model.safetensors") as file:
        for name in file.entries:
            file.read(name)


def one_checkpoint(case: Path, out: Path) -> None:
    with Checkpoint(case / "model.safetensors") as checkpoint:
        for name in checkpoint.specs:
            checkpoint.read(name)


def checkpoint(case: Path, out: Path) -> None:
    with Checkpoint(case) as opened:
        for name in opened.specs:
            opened.read(name)


def init(case: Path, out: Path) -> None:
    """As `pv init --base` does it, and read back."""
    beside = side_files(case)
    with Checkpoint(case) as opened:
        manifest = base_manifest(opened, {"kind": "path", "path": str(case)}, tuple(beside), pinned=True)
        assert BaseManifest.from_bytes(manifest.to_bytes()).id == manifest.id
        packs = store(out / "init")
        pin(opened, manifest, packs)
    read_pack(packs.path(manifest.id))


def commit(case: Path, out: Path) -> None:
    """As `pv commit` does it, and read back."""
    packs = store(out / "commit")
    with base_at(case.parents[1] / "base") as base, Checkpoint(case) as opened:
        manifest = capture(opened, base, packs)
        with open_vector(manifest.id, base, packs) as vector:
            for name in manifest.tensors:
                vector.tau(name)


def beside(case: Path, out: Path) -> None:
    side_files(case)


def shrinking(case: Path, out: Path) -> None:
    with Checkpoint(case) as opened:
        os.truncate(case / "model.safetensors", 200)
        for name in opened.specs:
            opened.read(name)


def adapter(case: Path, out: Path) -> None:
    with base_at(case.parents[1] / "adapted") as base:
        capture_adapter(case, base, store(out / "adapter"))


# Packs, and the chunks in them


def chunk(case: Path, out: Path) -> None:
    head, _, body = (case / "chunk").read_bytes().partition(b"\n")
    dtype, count, seed = head.decode().split()
    raw = chunks.decode(memoryview(body), int(count), dtype, reference(dtype, int(count), int(seed)))
    assert len(raw) == int(count)


def the_pack(case: Path) -> Path:
    (found,) = [path for path in case.rglob("*") if path.is_file()]
    return found


def slices(raw: Raw) -> Callable[[int, int], Raw]:
    return lambda start, stop: raw[start:stop]


def read_pack(path: Path) -> None:
    """Open it, and decode every part against the base that it says it is of."""
    with Pack(path, expect=path.name) as pack:
        for name in pack.manifest.tensors:
            parts = pack.manifest.tensors[name] if isinstance(pack.manifest, VectorManifest) else ["w"]
            for part in parts:
                known = part == "ft" and name in TENSORS
                pack.read(name, part, slices(TENSORS[name].raw) if known else None)


def inspect(case: Path, out: Path) -> None:
    packfile.inspect(the_pack(case), the_pack(case).name)


def stores(case: Path) -> PackStore:
    packs = PackStore(case)
    packs.packs = case  # the case is a store's folder `packs`
    return packs


def vector(case: Path, out: Path) -> None:
    name = the_pack(case).name
    with base_at(case.parents[1] / "base") as base, open_vector(name, base, stores(case)) as found:
        for tensor in found.manifest.tensors:
            found.tau(tensor)


def built(case: Path, out: Path) -> None:
    """A build that uses the vector, as `pv build` does it."""
    vector_id = the_pack(case).name
    document = {"weight": 1, "terms": [[1, vector_id]], "modules": None}
    with base_at(case.parents[1] / "base") as base:
        persona = Persona.from_json({**Persona(BASE.id).to_json(), "behaviours": {"a": document}})
        with open_vector(vector_id, base, stores(case)) as found:
            build(persona, base, {vector_id: found}, out / "built", side_files={})


def steering_pack(case: Path, out: Path) -> None:
    open_steering(the_pack(case).name, BASE.id, stores(case))


def rows_pack(case: Path, out: Path) -> None:
    load_rows(the_pack(case).name, stores(case))


# Documents


def document(name: str, reader: Callable[[bytes], Any]) -> Entry:
    def read(case: Path, out: Path) -> None:
        made = reader((case / name).read_bytes())
        assert reader(made.to_bytes()).id == made.id

    return read


def factors(case: Path, out: Path) -> None:
    """Hold a persona's patterns against names, as a build does."""
    persona = Persona.from_bytes((case / "persona.json").read_bytes())
    for name in ("a" * 1000, "a." * 500, *TENSORS):
        for behaviour in persona.behaviours.values():
            factor(behaviour, name)


def rows(case: Path, out: Path) -> None:
    found = read_rows(case / "rows.jsonl")
    assert len(found.id) == 64


# Registries


def checkout(case: Path, out: Path) -> None:
    """Find the registry, read its newest commit, its directions too, and build it."""
    with Registry.find(case) as registry:
        commit_id = registry.resolve("HEAD")
        persona = registry.persona(commit_id)
        for term in persona.steering.active.values():
            open_steering(term.vector, persona.base, registry.packs)
        with opened(registry, commit_id, [persona]) as at:
            build(persona, at.base, at.vectors, out / "built", side_files=registry.base_files(commit_id))


ENTRIES: Mapping[str, Mapping[str, Entry]] = {
    "weights": {"tensor file": tensor_file, "checkpoint": one_checkpoint, "init": init, "commit": commit},
    "large weights": {"tensor file": tensor_file, "commit": commit},
    "large folder": {"checkpoint": checkpoint},
    "folder": {"checkpoint": checkpoint, "init": init, "commit": commit, "side files": beside},
    "shrinking": {"checkpoint": shrinking},
    "adapter": {"commit": adapter},
    "chunk": {"decode": chunk},
    "pack": {
        "read": lambda case, out: read_pack(the_pack(case)),
        "inspect": inspect,
        "vector": vector,
        "build": built,
    },
    "steeringpack": {
        "read": lambda case, out: read_pack(the_pack(case)),
        "inspect": inspect,
        "open": steering_pack,
    },
    "rowspack": {"load": rows_pack},
    "persona": {"read": document("persona.json", Persona.from_bytes), "factors": factors},
    "base": {"read": document("base.json", BaseManifest.from_bytes)},
    "vector": {"read": document("vector.json", VectorManifest.from_bytes)},
    "rows": {"read": rows},
    "registry": {"build": checkout},
}


# Watching


def feed(entries: Mapping[str, Entry], place: Path, out: Path) -> dict[str, Any]:
    """What came of a case: {entry: outcome}. Runs in a process of its own."""
    outcomes: dict[str, Any] = {}
    for name, entry in entries.items():
        try:
            entry(place, out)
        except PvError as error:
            outcomes[name] = {
                "refused": type(error).__name__,
                "exit": error.exit_code,
                "message": str(error),
                "hint": error.hint,
            }
        except BaseException:
            outcomes[name] = {"escaped": traceback.format_exc(limit=-4)[-2000:]}
        else:
            outcomes[name] = {"taken": True}
    return outcomes


def watched(entries: Mapping[str, Entry], place: Path, out: Path) -> dict[str, Any]:
    """The same from outside, with the memory it took at most: {"outcomes" or "died", "peak"}."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _limit()
        with os.fdopen(write_end, "w") as pipe:
            print(_pages("VmRSS"), file=pipe, flush=True)
            json.dump(feed(entries, place, out), pipe)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        before, text = pipe.readline(), pipe.read()
    _, status, usage = os.wait4(child, 0)
    peak = usage.ru_maxrss * 1024 - int(before or 0)
    result = {"peak": peak, "cpu": round(usage.ru_utime + usage.ru_stime, 2)}
    if os.WIFSIGNALED(status):
        return {**result, "died": signal.Signals(os.WTERMSIG(status)).name}
    return {**result, "outcomes": json.loads(text)}


def _limit() -> None:
    os.setsid()
    signal.alarm(WALL_SECONDS)
    memory = _pages("VmSize") + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _pages(which: str) -> int:
    """A size of this process in bytes, as the system counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {which} in /proc/self/status")


def listing(root: Path) -> dict[str, str]:
    """Everything below a folder but `out`: what it is, how large, when it was last written, where it leads.

    A registry's own folder may change when it is opened: what a crash left undone is finished then.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith("out") or "/.pv/" in name or name.endswith("/.pv"):
            continue
        status = path.lstat()
        target = path.readlink() if path.is_symlink() else ""
        found[name] = f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns} {target}"
    return found


def run(cases: list[Case], root: Path, entries: Mapping[str, Mapping[str, Entry]]) -> None:
    """Lay all cases, feed one after another, and say what was written where nothing should have been."""
    warnings.simplefilter("error")
    for name in ("cases", "out", "cwd"):
        (root / name).mkdir(parents=True)
    os.chdir(root / "cwd")
    base_folder(root / "base")
    base_folder(root / "adapted", ADAPTED)
    _lay(cases, root / "cases")
    before = listing(root)
    for number, case in enumerate(cases):
        out = root / "out" / str(number)
        out.mkdir()
        came = watched(entries[case.kind], root / "cases" / str(number), out)
        print(json.dumps({"case": case.name, "kind": case.kind, **came}), flush=True)
        shutil.rmtree(out)
    after = listing(root)
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    shrunk = {f"cases/{n}/model.safetensors" for n, case in enumerate(cases) if case.kind == "shrinking"}
    print(json.dumps({"written outside": sorted(touched - shrunk)}), flush=True)


def _lay(cases: list[Case], folder: Path) -> None:
    """In a process of its own: what making the cases takes is not what reading them takes."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number, case in enumerate(cases):
                place = folder / str(number)
                place.mkdir()
                case.lay(place)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    if os.waitpid(child, 0)[1]:
        sys.exit("a case could not be laid")


if __name__ == "__main__":
    kinds = sys.argv[2:]
    run([case for case in all_cases() if case.kind in kinds], Path(sys.argv[1]).resolve(), ENTRIES)
