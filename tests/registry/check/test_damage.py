"""Every kind of damage: fsck names it and whom it affects, and changes nothing; repair puts right what it can."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.registries import BUILD, A, B, Made, everything, flip, mend, overwrite, scale, seen, swap

from pv.registry.check import fsck
from pv.registry.git import loose, refs
from pv.registry.packs.store import DAMAGED
from pv.registry.registry import Registry


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Damage:
    """What is done, and what fsck must say: kind, place, behaviours, commits; and whether repair undoes it."""

    do: Callable[[Made], object]
    kind: str
    where: str | Callable[[Made], str]
    behaviours: tuple[str, ...] = ()
    commits: Callable[[Made], set[str]] = lambda made: set()
    mended: bool = True


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _all(made: Made) -> set[str]:
    return {made.tag, made.main, made.side}


def _object_id(path: str, commit: str = "main") -> Callable[[Made], str]:
    def where(made: Made) -> str:
        file = made.entry(getattr(made, commit), path)
        return file.parent.name + file.name

    return where


DAMAGES: dict[str, Damage] = {
    "format garbled": Damage(lambda m: overwrite(m.root / "format", b"{"), "format", "format"),
    "format gone": Damage(lambda m: (m.root / "format").unlink(), "format", "format"),
    "format without its line feed": Damage(
        lambda m: overwrite(m.root / "format", (m.root / "format").read_bytes()[:-1]), "format", "format"
    ),
    "format of a later pv": Damage(
        lambda m: overwrite(m.root / "format", b'{"git":"sha1","hash":"sha256","pv":3}\n'),
        "format", "format", mended=False,
    ),
    "config edited": Damage(
        lambda m: overwrite(m.git / "config", b"[core]\n\tfsmonitor = /bin/evil\n"),
        "config", "history.git/config",
    ),
    "config gone": Damage(lambda m: (m.git / "config").unlink(), "config", "history.git/config"),
    "alternates": Damage(
        lambda m: overwrite(m.git / "objects/info/alternates", b"/elsewhere\n"),
        "config", "history.git/objects/info/alternates",
    ),
    "HEAD garbled": Damage(lambda m: flip(m.git / "HEAD", 0), "head", "history.git/HEAD"),
    "HEAD gone": Damage(lambda m: (m.git / "HEAD").unlink(), "head", "history.git/HEAD"),
    "HEAD elsewhere": Damage(
        lambda m: overwrite(m.git / "HEAD", b"ref: refs/heads/side\n"), "head", "history.git/HEAD"
    ),
    "HEAD nowhere": Damage(
        lambda m: overwrite(m.git / "HEAD", b"ref: refs/heads/nope\n"), "head", "history.git/HEAD"
    ),
    "HEAD detached": Damage(
        lambda m: overwrite(m.git / "HEAD", m.main.encode() + b"\n"), "head", "history.git/HEAD"
    ),
    "branch garbled": Damage(
        lambda m: flip(m.git / "refs/heads/main"),
        "ref", "history.git/refs/heads/main", ("a",), lambda m: {m.main},
    ),
    "branch cut short": Damage(
        lambda m: overwrite(m.git / "refs/heads/side", m.side.encode()),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "branch emptied": Damage(
        lambda m: overwrite(m.git / "refs/heads/side", b""),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "branch gone": Damage(
        lambda m: (m.git / "refs/heads/side").unlink(),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "branches swapped": Damage(
        lambda m: swap(m.git / "refs/heads/main", m.git / "refs/heads/side"),
        "ref", "history.git/refs/heads/main", ("a",), lambda m: {m.main},
    ),
    "a link for a branch": Damage(
        lambda m: _link(m.git / "refs/heads/side", "main"),
        "ref", "history.git/refs/heads/side", ("a", "b"), lambda m: {m.side},
    ),
    "tag moved": Damage(
        lambda m: overwrite(m.git / "refs/tags/v1", m.main.encode() + b"\n"),
        "ref", "history.git/refs/tags/v1", ("a",), lambda m: {m.tag},
    ),
    "operations garbled": Damage(
        lambda m: overwrite(m.git / refs.OPS, b"z" * 40 + b"\n"), "operations", f"history.git/{refs.OPS}"
    ),
    "operations gone": Damage(lambda m: (m.git / refs.OPS).unlink(), "operations", f"history.git/{refs.OPS}"),
    "operations at a commit": Damage(
        lambda m: overwrite(m.git / refs.OPS, m.main.encode() + b"\n"),
        "operations", f"history.git/{refs.OPS}",
    ),
    "newest operation damaged": Damage(
        lambda m: flip(loose.object_path(m.git, (m.git / refs.OPS).read_text().strip())),
        "operations", f"history.git/{refs.OPS}",
    ),
    "persona damaged": Damage(
        lambda m: flip(m.entry(m.main, "persona.json")),
        "object", _object_id("persona.json"), (), lambda m: {m.main}, mended=False,
    ),
    "persona gone": Damage(
        lambda m: m.entry(m.main, "persona.json").unlink(),
        "object", _object_id("persona.json"), (), lambda m: {m.main}, mended=False,
    ),
    "manifest damaged": Damage(
        lambda m: flip(m.entry(m.side, f"vectors/{B}.json")),
        "object", _object_id(f"vectors/{B}.json", "side"), ("b",), lambda m: {m.side},
    ),
    "manifest gone": Damage(
        lambda m: m.entry(m.side, f"vectors/{A}.json").unlink(),
        "object", _object_id(f"vectors/{A}.json", "side"), ("a",), _all,
    ),
    "provenance damaged": Damage(
        lambda m: overwrite(m.entry(m.side, f"provenance/{B}.json"), b""),
        "object", _object_id(f"provenance/{B}.json", "side"), ("b",), lambda m: {m.side}, mended=False,
    ),
    "tree damaged": Damage(
        lambda m: flip(m.entry(m.side, "vectors")),
        "object", _object_id("vectors", "side"), ("a", "b"), lambda m: {m.side}, mended=False,
    ),
    "side file damaged": Damage(
        lambda m: flip(m.entry(m.main, "base/files/tokenizer.json")),
        "object", _object_id("base/files/tokenizer.json"), ("a", "b"), _all, mended=False,
    ),
    "something after an object": Damage(
        lambda m: overwrite(
            m.entry(m.main, "persona.json"), m.entry(m.main, "persona.json").read_bytes() + b"\0"
        ),
        "object", _object_id("persona.json"), (), lambda m: {m.main},
    ),
    "commit damaged": Damage(
        lambda m: flip(m.entry(m.main, "")),
        "object", lambda m: m.main, (), lambda m: {m.main}, mended=False,
    ),
    "objects swapped": Damage(
        lambda m: swap(m.entry(m.side, f"vectors/{A}.json"), m.entry(m.side, f"vectors/{B}.json")),
        "object", _object_id(f"vectors/{B}.json", "side"), ("b",), lambda m: {m.side},
    ),
    "pack flipped": Damage(
        lambda m: flip(m.pack(A), -1), "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False
    ),
    "pack header flipped": Damage(
        lambda m: flip(m.pack(B), 9), "pack", f"packs/{B[:2]}/{B}", ("b",), lambda m: {m.side}, mended=False
    ),
    "pack cut short": Damage(
        lambda m: overwrite(m.pack(A), m.pack(A).read_bytes()[:-1]),
        "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False,
    ),
    "pack emptied": Damage(
        lambda m: overwrite(m.pack(A), b""), "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False
    ),
    "packs swapped": Damage(
        lambda m: swap(m.pack(A), m.pack(B)), "pack", f"packs/{A[:2]}/{A}", ("a",), _all, mended=False
    ),
    "pack gone": Damage(
        lambda m: m.pack(B).unlink(), "missing", f"packs/{B[:2]}/{B}", ("b",), lambda m: {m.side}, mended=False
    ),
    "pack that nobody needs": Damage(
        lambda m: overwrite(m.pack("c" * 64), b"nonsense"), "pack", f"packs/cc/{'c' * 64}"
    ),
    "record garbled": Damage(
        lambda m: flip(m.root / f"records/{BUILD}.json", 40), "record", f"records/{BUILD}.json"
    ),
    "record of another build": Damage(
        lambda m: (m.root / f"records/{BUILD}.json").rename(m.root / f"records/{'ac' * 32}.json"),
        "record", f"records/{'ac' * 32}.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found_and_what_can_be_is_mended(made: Made, damage: Damage) -> None:
    visible = seen(made.root)
    where = damage.where if isinstance(damage.where, str) else damage.where(made)
    damage.do(made)
    before = everything(made.root)
    report = fsck.check(made.root)
    assert not report.clean
    finding = next(f for f in report.damage if f.where == where)
    assert finding.kind == damage.kind
    assert finding.behaviours == damage.behaviours
    assert set(finding.commits) >= damage.commits(made)
    assert everything(made.root) == before

    commits = [
        *_all(made),
        *([(made.git / refs.OPS).read_text().strip()] if (made.git / refs.OPS).exists() else []),
    ]
    mended, done = mend(made.root)
    after = everything(made.root)
    for name, content in before.items():  # whatever was there before is there still, if under another name
        aside = f"quarantine/{name.rpartition('/')[2]}."
        assert after.get(name) == content or content in (
            *(c for n, c in after.items() if n.startswith(aside) and n.endswith(DAMAGED)),
            *(sha256(f"{commit}\n") for commit in commits),  # a ref: an operation has noted where it was
        ), name
    if damage.mended:
        assert mended.damage == (), done
        assert done and all(one.done for one in done)
        assert seen(made.root) == visible
        with Registry(made.root) as registry:  # and it goes on from here
            registry.change("scale a 3", "m", scale("a", 3.0))
            registry.undo()
        assert fsck.check(made.root).clean
        assert seen(made.root) == visible
    else:
        assert {(f.kind, f.where) for f in mended.damage} == {(f.kind, f.where) for f in report.damage}
