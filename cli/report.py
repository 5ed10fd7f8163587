"""What a command says that made a commit, moved HEAD, or wrote a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.cli.app import App, short
from pv.cli.render import persona_line, size
from pv.cli.say import echo

if TYPE_CHECKING:
    from pv.vecstore.merge.folder import Written
    from pv.vecstore.repo.build import BuildPlan
    from pv.vecstore.repo.edit import Committed
    from pv.vecstore.repo.export import ExportPlan
    from pv.vecstore.repo.repo import Repo

__all__ = ["echo_sums", "report", "report_head", "report_plan"]


def report(app: App, made: Committed, *, as_json: bool) -> None:
    """Say what a new commit did, and what the persona is now."""
    if as_json:
        app.json(made)
    else:
        app.done(f"{short(made.commit)} {made.said}")
        app.note(f"  {persona_line(made.persona)}")


def report_head(app: App, repo: Repo, said: str, *, as_json: bool, **done: str) -> None:
    """Say what was done, and as JSON also where HEAD is now."""
    head = repo.head
    if as_json:
        app.json({**done, "branch": head.branch, "commit": head.commit})
    else:
        app.done(f"{said}; on branch {head.branch} at {short(head.commit)}")
        app.note(f"  {persona_line(repo.persona)}")


def report_plan(app: App, plan: BuildPlan | ExportPlan, *, as_json: bool) -> None:
    """Say which weight files would be written."""
    if as_json:
        app.json(plan)
    for shard in () if as_json else plan.shards:
        echo(f"{plan.output / shard.file}  {len(shard.tensors)} tensors  {size(shard.nbytes)}")


def echo_sums(made: Written) -> None:
    """What to compare weights by."""
    echo(f"weights  {made.weights}")
    for name, digest in made.files.items():
        echo(f"sha256   {digest}  {name}")
