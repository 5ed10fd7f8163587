"""Whole registries that somebody else wrote, as a clone would bring them: kind `registry`.

Each is the one that pv makes, with one thing in its newest commit, or beside it, put there by other means.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attacks.case import BASE, TENSORS, Case, base_folder
from attacks.documents import steered
from attacks.packs import EQUAL, ZERO, Draft, directed, direction, exact, pinned, row, vector

from pv.registry.git.objects import RefChange, TreeEntry
from pv.registry.git.repository import GitRepository
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Persona
from pv.registry.registry import Registry

__all__ = ["cases"]

ID = "ab" * 32
W = max(TENSORS)
Tree = dict[str, Any]
Edit = Callable[[Path, Tree], object]


def cases() -> Iterator[Case]:
    yield Case("an honest registry", "registry", _laid(), taken=frozenset({"build"}))
    honest = _laid(_steering(directed))
    yield Case("an honest registry with steering", "registry", honest, taken=frozenset({"build"}))
    for name, edit in trees().items():
        yield Case(name, "registry", _laid(edit), frozenset({2, 3, 5}))
    for name, edit in steerings().items():
        yield Case(name, "registry", _laid(edit))
    for name, change in settings().items():
        yield Case(name, "registry", _laid(after=change))


def _laid(
    edit: Edit = lambda folder, tree: None, after: Callable[[Path], object] = lambda folder: None
) -> Callable[[Path], None]:
    def lay(folder: Path) -> None:
        manifest = _copy_of_an_honest_one(folder)
        tree: Tree = {
            "persona.json": _persona(_ready(exact()).id),
            "base/base.json": manifest.to_bytes(),
            "base/files/config.json": b"{}",
            "packs": {},
        }
        _add(tree, exact())
        edit(folder, tree)
        _plant(folder, tree)
        after(folder)

    return lay


def _copy_of_an_honest_one(folder: Path) -> BaseManifest:
    """A registry with nothing but its base in it. Git takes its time: it is made once, and copied."""
    common = folder.parent / "honest"
    origin = {"kind": "path", "path": str(common / "base")}
    manifest = BaseManifest(BASE.tensors, origin, BASE.files)
    if not common.is_dir():
        base_folder(common / "base")
        with Registry.init(common) as registry:
            registry.start(Persona(BASE.id), manifest, {"config.json": b"{}"}, "Begin")
    shutil.copytree(common / ".pv", folder / ".pv")
    return manifest


def _ready(draft: Draft) -> Draft:
    draft.to_bytes()  # settles its id
    return draft


def _persona(vector_id: str, **changes: Any) -> bytes:
    behaviour = {"weight": 1, "terms": [[1, vector_id]], "modules": None, **changes.pop("a", {})}
    document = {
        "schema": 1,
        "engine": 1,
        "base": BASE.id,
        "behaviours": {"a": behaviour},
        "combine": {"method": "add"},
        "output": {"dtype": "base", "rounding": "stochastic", "seed": 0},
        **changes,
    }
    return json.dumps(document).encode()


def _add(tree: Tree, draft: Draft) -> str:
    """A vector: its pack, its manifest, where it came from. Returns its id."""
    data = draft.to_bytes()
    tree["packs"][draft.id] = data
    tree[f"vectors/{draft.id}.json"] = json.dumps(draft.manifest).encode()
    tree[f"provenance/{draft.id}.json"] = b"{}"
    return draft.id


def _plant(folder: Path, tree: Tree) -> None:
    """Write the packs, then a commit with this tree, and let main point at it."""
    packs: Mapping[str, bytes] = tree.pop("packs")
    for pack_id, data in packs.items():
        place = folder / ".pv" / "packs" / pack_id[:2]
        place.mkdir(exist_ok=True)
        (place / pack_id).write_bytes(data)
    with Registry(folder / ".pv") as registry:
        history = registry.history
        old = history.refs()["refs/heads/main"]
        new = history.commit_tree(_tree(history, tree), [old], "Add a")
        history.update_refs([RefChange("refs/heads/main", old, new)])


def _tree(history: GitRepository, files: Mapping[str, bytes]) -> str:
    entries: dict[str, TreeEntry] = {}
    for first in sorted({name.partition("/")[0] for name in files}):
        if first in files:
            entries[first] = TreeEntry(history.write_blob(files[first]))
        else:
            inner = {n.partition("/")[2]: data for n, data in files.items() if n.startswith(first + "/")}
            entries[first] = TreeEntry(_tree(history, inner), folder=True)
    return history.write_tree(entries)


def trees() -> dict[str, Edit]:
    def instead(draft: Callable[[], Draft], **changes: Any) -> Edit:
        def edit(folder: Path, tree: Tree) -> None:
            made = _add(tree, draft())
            tree["persona.json"] = _persona(made, **changes)

        return edit

    def without_pack(folder: Path, tree: Tree) -> None:
        tree["packs"].clear()

    def swollen(folder: Path, tree: Tree) -> None:
        draft = pinned()
        count = 1 << 30
        draft.manifest["tensors"] = {W: row("BF16", [count])}
        draft.parts = [[W, "w", [len(EQUAL)] * (count >> 20)]]
        draft.payloads = [EQUAL * (count >> 20)]
        draft.manifest["origin"] = {"kind": "path", "path": "/nowhere/at/all"}
        tree["packs"][_ready(draft).id] = draft.to_bytes()
        tree["base/base.json"] = json.dumps(draft.manifest).encode()
        tree["persona.json"] = _persona(ID, base=draft.id, behaviours={})

    def elsewhere(origin: Mapping[str, str]) -> Edit:
        def edit(folder: Path, tree: Tree) -> None:
            document = {**json.loads(tree["base/base.json"]), "origin": dict(origin)}
            tree["base/base.json"] = json.dumps(document).encode()

        return edit

    def pipe_for_base(folder: Path, tree: Tree) -> None:
        (folder / "pipe").mkdir()
        os.mkfifo(folder / "pipe" / "model.safetensors")
        elsewhere({"kind": "path", "path": str(folder / "pipe")})(folder, tree)

    def nan() -> Draft:
        raw = b"\xff\x7f" * 24
        return vector("float", {W: {"tau": (row("BF16", [4, 6], raw), [b"\0" + raw])}})

    def wide() -> Draft:
        raw = bytes(8 * 24)
        return vector("float", {W: {"tau": (row("F64", [4, 6], raw), [b"\0" + raw])}})

    def fewer() -> Draft:
        raw = bytes(2 * 6)
        return vector("float", {W: {"tau": (row("BF16", [6], raw), [b"\0" + raw])}})

    def good() -> str:
        return _ready(exact()).id

    return {
        "a persona that names no pack": without_pack,
        "a persona of nonsense": _put("persona.json", b"yes"),
        "a persona that is a folder": lambda folder, tree: (
            tree.pop("persona.json"),
            tree.update({"persona.json/x": b""}),
        ),
        "a persona with factors beyond the doubles": _put(
            "persona.json", _persona(ID, a={"modules": {"*" + "?" * i: 1e30 for i in range(14)}})
        ),
        "a persona with a weight beyond the floats": lambda f, tree: tree.update(
            {"persona.json": _persona(good(), a={"weight": 1e30, "terms": [[1e30, good()]]})}
        ),
        "a persona of a vector of another base": instead(lambda: vector("exact", exact_parts(), base=ID)),
        "a vector of NaN": instead(nan),
        "a vector in fp64": instead(wide),
        "a vector of fewer elements": instead(fewer),
        "a base of 2 GiB in 6 kB, pinned": swollen,
        "a base that is a pipe": pipe_for_base,
        "a base at /dev/zero": elsewhere({"kind": "path", "path": "/dev/zero"}),
        "a base on a hub, nowhere": elsewhere({"kind": "hub"}),
        "a base manifest with traversing files": lambda f, tree: tree.update(
            {"base/base.json": tree["base/base.json"].replace(b'"config.json"', b'"../../config.json"')}
        ),
        "a side file that is code": _put("base/files/modeling.py", b"raise SystemExit"),
        "a side file that takes the weights' place": _put("base/files/model.safetensors", b"x"),
        "a side file that begins like an option": _put("base/files/-x.json", b"{}"),
        "a side file with an escape": _put("base/files/\x1b[2J.json", b"{}"),
        "a side file in a folder": _put("base/files/a/b.json", b"{}"),
        "a config of nonsense": lambda f, tree: tree.update(
            {"base/files/config.json": b"yes", "persona.json": _persona(good(), output=_half())}
        ),
    }


def exact_parts() -> dict[str, Any]:
    raw = TENSORS[W].raw.tobytes()
    return {W: {"ft": (row("BF16", [4, 6], raw), [b"\0" + raw])}}


def _half() -> dict[str, Any]:
    return {"dtype": "fp16", "rounding": "nearest", "seed": 0}


def _put(name: str, data: bytes) -> Edit:
    return lambda folder, tree: tree.update({name: data})


def _steering(draft: Callable[[], Draft], **term: Any) -> Edit:
    """A steering term beside the behaviour; without a `vector`, of the one that is drafted."""

    def edit(folder: Path, tree: Tree) -> None:
        document = json.loads(tree["persona.json"])
        steered(**{"vector": _add(tree, draft()), **term})(document)
        tree["persona.json"] = json.dumps(document).encode()

    return edit


def steerings() -> dict[str, Edit]:
    many = [f"s{i:07}" for i in range(1_000_000)]
    return {
        "steering at a million sites": _steering(directed, sites=many),
        "steering by a direction of NaN": _steering(lambda: directed(direction(float("nan")))),
        "steering by 4 GiB of zeros": _steering(
            lambda: directed(of=row("F32", [1 << 30]), chunks=[ZERO] * 1024)
        ),
        "steering with a megabyte of evidence": _steering(
            directed, evidence={"tested": {"replies": "a" * (1 << 20)}}
        ),
        "steering by a task vector": _steering(directed, vector=_ready(exact()).id),
    }


def settings() -> dict[str, Callable[[Path], object]]:
    """Beside the history: what git would obey."""

    def append(name: str, text: str) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            with (folder / ".pv" / "history.git" / name).open("a") as file:
                file.write(text.format(command=f"touch {folder}/ran"))

        return change

    def newer(folder: Path) -> None:
        (folder / ".pv/format").write_text('{"git":"sha1","hash":"sha256","pv":3}')

    return {
        "a git config that runs a program": append("config", "[core]\n\tfsmonitor = {command}\n"),
        "a git config with a pager": append("config.worktree", "[core]\n\tpager = {command}\n"),
        "a git folder that is elsewhere": append("commondir", "/tmp\n"),
        "another format": newer,
    }
