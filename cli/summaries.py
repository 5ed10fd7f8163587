"""One line a command, for `pv --help`: kept apart so that listing commands imports none of them."""

from __future__ import annotations

__all__ = ["SUMMARIES"]

SUMMARIES: dict[str, str] = {
    "add": "Bring a behaviour from another revision.",
    "base": "Show the base, or say where it is now.",
    "branch": "List, create or delete branches.",
    "build": "Write the persona's checkpoint.",
    "chat": "Talk to a persona.",
    "cherry-pick": "Do here what one commit did elsewhere.",
    "combine": "Set how behaviours are combined.",
    "commit": "Commit a fine-tuned checkpoint or an adapter as a behaviour.",
    "compress": "Keep a behaviour in a smaller encoding.",
    "diff": "What moved between two revisions.",
    "drop": "Remove a behaviour.",
    "eval": "Measure a behaviour on held-out rows.",
    "fsck": "Check that nothing in the registry is damaged.",
    "gc": "Take out what nothing needs any more.",
    "init": "Begin a registry on a base checkpoint.",
    "log": "Show the history.",
    "merge": "Join another branch's changes into this one.",
    "negate": "Flip the sign of a behaviour's weight.",
    "push": "Build, and publish to a Hub repository.",
    "redo": "Take back the last undo.",
    "revert": "Undo a commit by a new commit.",
    "rows": "Print the rows that a behaviour was trained on.",
    "scale": "Set the weight of a behaviour.",
    "show": "Show one commit and its persona.",
    "status": "Show where you are and what the persona holds.",
    "switch": "Go to another branch.",
    "tag": "List, create or delete tags.",
    "train": "Train a behaviour from rows and commit it.",
    "undo": "Take back the last operation.",
    "verify": "Is this checkpoint that persona's build?",
}
