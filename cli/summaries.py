"""One line a command, for `pv --help`: kept apart so that listing commands imports none of them."""

from __future__ import annotations

__all__ = ["SUMMARIES"]

SUMMARIES: dict[str, str] = {
    "add": "Bring a behaviour from another revision.",
    "branch": "List, create, rename or delete branches.",
    "build": "Write the persona's checkpoint.",
    "chat": "Talk to a persona.",
    "cherry-pick": "Do here what one commit did elsewhere.",
    "combine": "Show or set how behaviours are combined.",
    "commit": "Commit a fine-tuned checkpoint or an adapter as a behaviour.",
    "completion": "Print what makes Tab complete in a shell.",
    "compress": "Keep a behaviour in a smaller encoding.",
    "config": "Show or change a persona's settings.",
    "diff": "Show what differs between two revisions.",
    "drop": "Remove behaviours.",
    "eval": "Measure a behaviour on held-out rows.",
    "export": "Write the checkpoint that was committed as a behaviour.",
    "fsck": "Check that nothing in the registry is damaged.",
    "gc": "Delete what no branch, tag or undo needs.",
    "help": "Show the help of a command, or what git's words are here.",
    "init": "Begin a registry on a base checkpoint.",
    "merge": "Merge another branch into this one.",
    "negate": "Flip the signs of behaviours' weights.",
    "log": "Show the history, or the versions of a behaviour.",
    "op": "Show what was done here, for undo.",
    "push": "Build, and publish to a Hub repository.",
    "redo": "Take back the last undo.",
    "rename": "Give a behaviour another name.",
    "revert": "Undo a commit by a new commit.",
    "scale": "Set the weight of a behaviour.",
    "show": "Show a commit, a behaviour, or a vector.",
    "status": "Show where you are and what the persona holds.",
    "switch": "Go to another branch.",
    "tag": "List, create or delete tags.",
    "train": "Train a behaviour from rows and commit it.",
    "undo": "Take back the last operation, or go back to an earlier one.",
    "vectors": "List the vectors that the registry has.",
    "verify": "Is this checkpoint that persona's build?",
}
