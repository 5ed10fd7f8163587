"""`pv verify` of a folder that `pv build --from-mergekit` wrote: its answer on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.cli.app import App
from pv.cli.render import counted
from pv.cli.say import echo, plain

if TYPE_CHECKING:
    from pv.vecstore.repo.verify_merge import MergeVerdict

__all__ = ["say_merge"]

SHOWN = 10


def say_merge(app: App, verdict: MergeVerdict) -> None:
    """What was found, of which models, and what could not be checked."""
    what = "weights" if verdict.files is None else "weights and files"
    how = "merged again" if verdict.recomputed else "as pv-merge.json records"
    merge = f"the merge by {plain(verdict.method)} of {counted(len(verdict.models), 'model')}"
    if verdict.same:
        app.done(f"{merge}, {what}: {counted(verdict.tensors, 'tensor')}, {how}")
    else:
        echo(f"not {merge}, {how}: {_wrong(verdict)}")
        for file in verdict.files or ():
            echo(f"  {plain(file.name)} {plain(file.what)}")
        for tensor in verdict.differing[:SHOWN]:
            echo(f"  {plain(tensor.name)} {plain(tensor.what)}")
    for model in verdict.models:
        app.note(f"  {plain(model.model)}: {plain(model.why)}")
    for one in verdict.unknown:
        app.note(f"  not checked: {plain(one)}")
    echo(f"weights  {verdict.found}")


def _wrong(verdict: MergeVerdict) -> str:
    wrong = []
    if verdict.differing:
        wrong.append(f"{len(verdict.differing)} of {counted(verdict.tensors, 'tensor')} differ")
    elif not verdict.weights_same:
        wrong.append("the weights differ")
    if verdict.files:
        wrong.append(f"{counted(len(verdict.files), 'file')} beside them")
    return " and ".join(wrong)
