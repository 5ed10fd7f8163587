"""A behaviour's name where a command takes a revision: what does that with a behaviour, as a command to type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.cli.typed import instead, place

if TYPE_CHECKING:
    from pv.cli.app import Line

__all__ = ["hint_for"]


def hint_for(line: Line, behaviour: str) -> str:
    """`behaviour` is NAME of one that HEAD has, else REV:NAME."""
    revision, _, name = behaviour.rpartition(":")
    command = line.arguments[place(line.arguments)]
    match command:
        case "build" | "push":
            output = str(line.given().get("output") or "DIR")
            words, does = ["export", behaviour, "-o", output], "writes the checkpoint of a behaviour"
        case "chat":
            words, does = (
                ["log", name],
                f"lists the commits of its versions, and {command} takes one of those",
            )
        case "cherry-pick" | "merge" if revision:
            words, does = ["add", behaviour], "brings a behaviour"
        case "cherry-pick" | "merge":
            words, does = ["scale", name, "WEIGHT"], "sets its weight: this branch has it"
        case "diff":
            words, does = ["diff", "--weights"], "compares the behaviours of two revisions with each other"
        case "eval":
            words = ["eval", "--all", *([revision] if revision else [])]
            does = "measures each behaviour alone"
        case "log":
            words, does = ["log", name], "shows its versions"
        case "revert" if not revision:
            words, does = ["drop", name], "takes a behaviour out"
        case "verify":
            words = ["verify", str(line.given().get("checkpoint"))]
            does = "finds what the checkpoint is, an exported behaviour too"
        case _:
            words, does = ["show", behaviour], "shows it; `pv branch` and `pv tag` list the revisions"
    return f"`{instead(line.arguments, words)}` {does}"
