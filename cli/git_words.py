"""What people type who know git or another tool, and what does it here. docs/git.md has the same table."""

from __future__ import annotations

__all__ = ["GIT", "OPTIONS", "OTHERS"]

_COPY = "registries do not exchange commits yet; `mkdir DIR && cp -r .pv DIR/` copies a whole one"
_LIST = "`pv status` lists the behaviours here, `pv vectors` the vectors, `pv branch` the branches, `pv tag` the tags"
_REMOVE = "`pv drop NAME` removes a behaviour, `pv branch -d NAME` a branch, `pv tag -d NAME` a tag"
_GC = "`pv gc` removes what no branch, tag or undoable operation needs"
_NOTHING_BEGUN = (
    "a merge, revert or cherry-pick that meets a conflict changes nothing: there is nothing to abort"
)
_AT_ONCE = "run it again with a choice for every conflict: `--take NAME=ours`, `--take NAME=theirs`"

GIT: dict[str, str] = {
    "amend": "`pv undo` takes back the last operation; then make the commit again",
    "archive": "`pv build REV -o DIR` writes a version as a checkpoint",
    "bisect": "`pv log --scores` lists the commits with what was measured, `pv eval A B ROWS.jsonl` compares two",
    "blame": "`pv log BEHAVIOUR` lists the versions of a behaviour, `pv show COMMIT` shows what a commit changed",
    "checkout": "`pv switch BRANCH` goes to a branch, `pv switch -c NAME REV` makes one at a revision",
    "clean": _GC,
    "clone": "`mkdir DIR && cp -r .pv DIR/` is a full clone, with history, behaviours and the base that it keeps",
    "fetch": _COPY,
    "ls-files": _LIST,
    "mv": "`pv rename OLD NEW` gives a behaviour another name, `pv branch -m OLD NEW` a branch",
    "prune": _GC,
    "pull": _COPY,
    "rebase": "`pv cherry-pick COMMIT` applies the change of one commit here, `pv merge BRANCH` those of a branch",
    "reflog": "`pv op log` lists the operations, `pv undo --to OP` goes back to one",
    "remote": _COPY,
    "repack": _GC,
    "reset": "`pv undo` takes back operations, `pv undo --to OP` several; `pv revert COMMIT` undoes a commit",
    "restore": "`pv add REV:NAME` brings back a behaviour; `pv undo` takes back the last operation",
    "rev-parse": "`pv show REV` shows the commit that a revision means",
    "rm": _REMOVE,
    "shortlog": "`pv log --oneline` shows one line per commit",
    "stash": "there are no uncommitted changes; `pv switch -c NAME` starts a branch for an experiment",
    "worktree": "no files are checked out: every command takes a revision, as in `pv build REV -o DIR`",
}
OTHERS: dict[str, str] = {
    "delete": _REMOVE,
    "demo": "`make demo` runs it in a clone of pv",
    "finetune": "`pv train ROWS.jsonl --as NAME` trains a behaviour and commits it",
    "generate": "`pv chat -p PROMPT` prints one reply",
    "import": "`pv commit DIR --as NAME` takes a fine-tuned checkpoint or an adapter",
    "list": _LIST,
    "login": "`hf auth login` keeps the token that `pv push` uses",
    "ls": _LIST,
    "pack": "it is called `pv compress` now",
    "publish": "`pv push hf://USER/NAME` builds, and publishes on the Hub",
    "remove": _REMOVE,
    "repair": "`pv fsck --repair` repairs what can be repaired",
    "save": "`pv commit DIR --as NAME` takes a fine-tuned checkpoint or an adapter",
    "score": "`pv eval ROWS.jsonl` measures a behaviour on held-out rows",
    "test": "`pv eval ROWS.jsonl` measures a behaviour on held-out rows",
    "unmerge": "`pv revert COMMIT -m 1` takes back a merge",
    "upload": "`pv push hf://USER/NAME` builds, and publishes on the Hub",
    "version": "`pv --version`",
}
OPTIONS: dict[tuple[str, str], str] = {
    ("add", "--as"): "the new name goes before the behaviour: `pv add NAME=REV:BEHAVIOUR`",
    ("commit", "--amend"): GIT["amend"],
    **{(name, "--abort"): _NOTHING_BEGUN for name in ("cherry-pick", "merge", "revert")},
    **{(name, "--continue"): _AT_ONCE for name in ("cherry-pick", "merge", "revert")},
}
