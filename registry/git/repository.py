"""Objects and refs of the bare git repository in `.pv/history.git`, through git's plumbing.

Invariant: a ref is moved only by compare-and-swap, and only after every object it leads to, and the
folders those lie in, are on the platter. Reading takes no lock. Nothing here knows what a persona is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pv.registry.disk import durable
from pv.registry.disk.closing import Closing
from pv.registry.errors import ConflictError, IntegrityError, NotFoundError, UsageError
from pv.registry.git import refs
from pv.registry.git.objects import (
    Author,
    Commit,
    RefChange,
    TreeEntry,
    author_env,
    checked_id,
    id_lines,
    parse_commit,
    parse_tree,
)
from pv.registry.git.process import GitProcess, ObjectReader, Reader, failure

__all__ = ["CONFIG", "GitRepository"]

# What `create` writes. The command line repeats what matters: see git/process.
CONFIG = b"""\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = false
\thooksPath = /dev/null
\tfsync = all
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""
_NO_IDENTITY = re.compile(r"identity unknown|auto-detect|empty ident|disallowed characters")
_STAND_IN = {"NAME": "pv", "EMAIL": "pv@localhost"}
_ZERO = "0" * 40


class GitRepository(Closing):
    """One bare repository. Close it (or use it in a `with`) to end the git process that reads for it."""

    def __init__(self, path: Path, *, reader: Reader | None = None) -> None:
        self.path = path
        self._git = GitProcess(path)
        self._reader: Reader = ObjectReader(self._git) if reader is None else reader
        self._written: set[str] = set()
        self._stand_in = 0

    @staticmethod
    def create(path: Path, branch: str = "main") -> GitRepository:
        """A new repository, durable. The few files are written here: no template, no default of git's."""
        for folder in (path, path / "objects", path / "refs", path / "refs/heads", path / "refs/tags"):
            durable.make_dirs(folder)
        durable.write_file(path / "config", CONFIG)
        refs.write_head(path, refs.HEADS + branch)
        return GitRepository(path)

    def check_config(self) -> None:
        """Refuse a repository whose configuration is not the one pv writes: a config can run programs."""
        for name, expected in (("config", CONFIG), ("commondir", None), ("config.worktree", None)):
            path = self.path / name
            if (path.read_bytes() if path.exists() else None) != expected:
                raise IntegrityError(
                    f"{path} is not what pv writes: a foreign configuration can run programs",
                    hint="`pv fsck --repair` writes it anew",
                )

    # Reading

    def read_object(self, object_id: str) -> tuple[str, bytes]:
        """(type, bytes). Raises IntegrityError if it is missing, or is not what its id says."""
        found = self._reader.get(object_id)
        if found is None:
            raise IntegrityError(f"git object {object_id} is missing from history.git", hint="run `pv fsck`")
        return found

    def kind(self, object_id: str) -> str | None:
        """ "commit", "tree", "blob", "tag", or None if there is no such object."""
        found = self._reader.get(object_id)
        return None if found is None else found[0]

    def blob(self, object_id: str) -> bytes:
        return self._typed(object_id, "blob")

    def commit(self, object_id: str) -> Commit:
        """Raises IntegrityError if it is missing or no commit."""
        return parse_commit(object_id, self._typed(object_id, "commit"))

    def tree(self, object_id: str) -> Mapping[str, TreeEntry]:
        return parse_tree(object_id, self._typed(object_id, "tree"))

    def entry(self, commit_id: str, path: str) -> TreeEntry | None:
        """The entry at a path such as `base/base.json` in a commit's tree, or None."""
        found = TreeEntry(self.commit(commit_id).tree, folder=True)
        for name in path.split("/"):
            inner = self.tree(found.id).get(name) if found.folder else None
            if inner is None:
                return None
            found = inner
        return found

    def read_blob(self, commit_id: str, path: str) -> bytes:
        """The file at `path` in a commit. Raises NotFoundError."""
        found = self.entry(commit_id, path)
        if found is None or found.folder:
            raise NotFoundError(f"commit {commit_id[:12]} has no {path}")
        return self.blob(found.id)

    def _typed(self, object_id: str, kind: str) -> bytes:
        found, data = self.read_object(object_id)
        if found != kind:
            raise IntegrityError(f"git object {object_id} is a {found}, not a {kind}", hint="run `pv fsck`")
        return data

    def refs(self) -> dict[str, str]:
        return refs.read_refs(self.path)

    def ref(self, name: str) -> str | None:
        return self.refs().get(name)

    def head_ref(self) -> str:
        """The branch that HEAD names, such as refs/heads/main. Raises IntegrityError if it names none."""
        return refs.read_head(self.path)

    def walk(
        self,
        tips: Sequence[str],
        limit: int | None = None,
        *,
        without: Sequence[str] = (),
        lines_together: bool = False,
    ) -> list[str]:
        """Commits reachable from `tips` and not from `without`, newest first, no parent before all of its children.

        With `lines_together`, one line of development is not interrupted by another's commits.
        """
        if not tips:
            return []
        bound = () if limit is None else (f"--max-count={limit:d}",)
        order = "--topo-order" if lines_together else "--date-order"
        left_out = b"".join(b"^%b" % id_lines([commit_id]) for commit_id in without)
        out = self._git.run("rev-list", order, *bound, "--stdin", stdin=id_lines(tips) + left_out)
        return out.decode().split()

    def merge_base(self, a: str, b: str) -> str | None:
        """A best common ancestor (the first that git names, if there are several), or None."""
        for commit_id in (a, b):
            self.commit(commit_id)
        status, out, err = self._git.attempt("merge-base", a, b)
        if status not in (0, 1):
            raise failure("merge-base", status, err)
        return out.decode().strip() or None

    def with_prefix(self, prefix: str) -> list[str]:
        """Ids of all objects that start with these hex digits (4 to 40)."""
        if not re.fullmatch(r"[0-9a-f]{4,40}", prefix):
            return []
        return sorted(set(self._git.run("rev-parse", f"--disambiguate={prefix}").decode().split()))

    # Writing

    def write_blob(self, data: bytes) -> str:
        return self._hash_object("blob", data)

    def write_tree(self, entries: Mapping[str, TreeEntry]) -> str:
        """A tree object. (Not by `git mktree`: that one never syncs what it writes, whatever core.fsync says.)"""
        rows = [
            (f"{name}/" if entry.folder else name, b"40000" if entry.folder else b"100644", name, entry.id)
            for name, entry in entries.items()
        ]
        rows.sort(key=lambda row: row[0].encode())  # git's order: a folder sorts as if it ended in a slash
        data = b"".join(
            b"%b %b\0%b" % (mode, name.encode(), bytes.fromhex(checked_id(object_id)))
            for _, mode, name, object_id in rows
        )
        return self._hash_object("tree", data)

    def _hash_object(self, kind: str, data: bytes) -> str:
        out = self._git.run("hash-object", "-t", kind, "-w", "--no-filters", "--stdin", stdin=data)
        return self._wrote(out, kind)

    def commit_tree(
        self, tree: str, parents: Sequence[str], message: str, *, author: Author | None = None
    ) -> str:
        """A new commit object, by the user's git identity unless `author` is given. Raises UsageError."""
        if "\0" in message:
            raise UsageError("a message may not contain NUL")
        try:
            text = (message.strip() + "\n").encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the message is not valid Unicode: {error}") from error
        args = ["commit-tree", checked_id(tree)]
        for parent in dict.fromkeys(parents):
            args += ["-p", checked_id(parent)]
        env = {} if author is None else author_env(author)
        return self._wrote(self._with_identity(args, text, env), "commit")

    def _with_identity(self, args: list[str], text: bytes, env: Mapping[str, str]) -> bytes:
        """commit-tree, with stand-ins for what git does not know about the user: at most what is needed."""
        email = ("-c", f"user.email={_STAND_IN['EMAIL']}")
        name = ("-c", f"user.name={_STAND_IN['NAME']}")
        whole = {f"GIT_{who}_{what}": v for who in ("AUTHOR", "COMMITTER") for what, v in _STAND_IN.items()}
        ways: list[tuple[tuple[str, ...], dict[str, str]]] = [
            ((), {}), (email, {}), ((*email, *name), {}), ((), whole),
        ]  # fmt: skip
        while True:
            options, stand_in = ways[self._stand_in]
            status, out, err = self._git.attempt(*options, *args, stdin=text, env={**stand_in, **env})
            if status == 0:
                return out
            if not _NO_IDENTITY.search(err) or self._stand_in == len(ways) - 1:
                raise failure("commit-tree", status, err)
            self._stand_in += 1

    def _wrote(self, out: bytes, what: str) -> str:
        object_id = checked_id(out.decode().strip())
        self._written.add(object_id)
        durable.step(f"git {what}")
        return object_id

    def sync(self) -> None:
        """Make every object written or reused since the last call durable: files, then folders.

        git syncs loose objects itself where it knows `core.fsync`, but never their folders.
        """
        objects = self.path / "objects"
        trusted = not self._written or self._git.syncs_itself()
        folders = set()
        for object_id in sorted(self._written):
            path = objects / object_id[:2] / object_id[2:]
            if path.is_file():
                folders.add(path.parent)
                if not trusted:
                    refs.fsync_path(path)
        for folder in sorted(folders):
            durable.fsync_dir(folder)
        if folders:
            durable.fsync_dir(objects)
        self._written.clear()

    def update_refs(
        self, changes: Iterable[RefChange], *, verify: Iterable[RefChange] = (), lock: int | None = None
    ) -> None:
        """Compare-and-swap all of `changes`, or none of them; `verify` only checks the old values.

        Objects are synced first and the ref folders after. `lock` is the descriptor of the lock that the
        caller holds: git inherits it, so the lock outlives us as long as git is at work. Raises
        ConflictError if a ref is not where the caller believes it to be.
        """
        changes = list(changes)
        self.sync()
        script = [
            f"update {c.ref}\0{c.new}\0{c.old or _ZERO}\0" if c.new else f"delete {c.ref}\0{c.old}\0"
            for c in changes
        ]
        script += [f"verify {c.ref}\0{c.old or _ZERO}\0" for c in verify]
        status, _, err = self._git.attempt(
            "update-ref",
            "--stdin",
            "-z",
            stdin="".join(script).encode(),
            pass_fds=() if lock is None else (lock,),
        )
        if status != 0:
            if "expected" in err or "reference already exists" in err or "unable to resolve" in err:
                raise ConflictError(
                    f"a ref moved while pv was about to move it: {err.splitlines()[-1]}",
                    hint="something other than pv writes to history.git; run the command again",
                )
            raise failure("update-ref", status, err)
        for change in changes:
            durable.step(f"move {change.ref}")
            refs.fsync_ref(self.path, change.ref, itself=not self._git.syncs_itself())

    def set_head(self, ref: str) -> None:
        refs.write_head(self.path, ref)

    def close(self) -> None:
        self._reader.close()
