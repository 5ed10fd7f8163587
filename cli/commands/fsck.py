"""pv fsck"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option
from pv.cli.render import counted, size
from pv.cli.say import echo

if TYPE_CHECKING:
    from pv.registry.check.repair import Mended
    from pv.registry.check.report import Finding, Report

__all__ = ["command"]

NOUNS = {
    "object": "git object",
    "missing": "missing pack",
    "config": "setting",
    "operations": "operation",
    "head": "HEAD",
}
STAGES = {
    "commits": ("reading the history", "commits"),
    "packs": ("checking packs", "bytes"),
    "decoding": ("decoding packs", "bytes"),
}


@click.command("fsck", short_help="Check that nothing in the registry is damaged.")
@click.option("--deep", is_flag=True, help="Decode every pack against its base, too, and hash every tensor.")
@click.option("--repair", "mend", is_flag=True, help="Mend what can be mended. Nothing is thrown away.")
@threads_option
@json_option
@pass_app
def command(app: App, deep: bool, mend: bool, threads: int, as_json: bool) -> None:
    """Check every file of the registry: its format, its history, its refs, and the checksum of every pack.

    What is damaged is listed with the behaviours and commits that it affects, and the exit code is 3.
    --repair restores refs from the operations, packs from the quarantine, a pinned base from the folder it
    came from, and derived vectors from their sources; damaged files are set aside, not deleted.

    \b
    pv fsck
    pv fsck --deep
    pv fsck --repair
    """
    from pv.cli.stages import stages
    from pv.registry.check import fsck

    root = fsck.locate(app.path)
    mended: tuple[Mended, ...] = ()
    with stages(app, STAGES) as progress:
        if mend:
            from pv.vecstore.check import decode
            from pv.vecstore.checkpoints.hub import fetch

            done = decode.repair(root, deeply=deep, fetch=fetch, threads=threads, progress=progress)
            mended, report = done.mended, done.report
        else:
            report = fsck.check(root, progress=progress)
            if deep:
                from pv.vecstore.check import decode
                from pv.vecstore.checkpoints.hub import fetch

                report = decode.deep(root, report, fetch=fetch, threads=threads, progress=progress)
            elif not all(base.pinned for base in report.bases.values()):
                from pv.vecstore.check import decode

                report = decode.glance(root, report)
    if as_json:
        repairs = [{"where": m.where, "what": m.what, "done": m.done} for m in mended]
        app.json({**report.to_json(), **({"repairs": repairs} if mend else {})})
    else:
        _show(app, report, mended)
    if not report.clean:
        raise click.exceptions.Exit(3)


def _show(app: App, report: Report, mended: tuple[Mended, ...]) -> None:
    for one in mended:
        mark = click.style("mended ", fg="green") if one.done else click.style("not mended ", fg="yellow")
        echo(f"{mark}{_place(one.where)}: {one.what}")
    for finding in report.findings:
        if finding.damage:
            echo(click.style("damage ", fg="red") + f"{_place(finding.where)}: {finding.what}")
            for line in _affected(finding):
                echo(f"  {line}")
        elif finding.kind != "leftover":
            echo(f"note {_place(finding.where)}: {finding.what}")
            if finding.hint:
                echo(f"  {finding.hint}")
    left = len(report.of("leftover"))
    if left:
        echo(f"note {counted(left, 'leftover')} of killed processes: `pv gc` removes them")
    what = (
        f"{report.commits} commits, {report.operations} operations, {report.objects} git objects, "
        f"{report.packs} packs ({size(report.nbytes)}), {report.records} records"
    )
    if report.clean:
        app.done(f"{what}: {'every tensor decoded, ' if report.deep else ''}nothing is damaged")
        return
    counts = Counter(finding.kind for finding in report.damage)
    app.note(
        f"{what}: damaged: {', '.join(counted(n, NOUNS.get(kind, kind)) for kind, n in sorted(counts.items()))}"
    )
    if report.behaviours:
        app.note(f"affected behaviours: {', '.join(report.behaviours)}")
    if not mended and any(finding.repairable for finding in report.damage):
        app.note("`pv fsck --repair` tries to mend it")


def _affected(finding: Finding) -> list[str]:
    lines = []
    if finding.behaviours:
        lines.append(f"behaviours: {', '.join(finding.behaviours)}")
    if finding.commits:
        more = f" and {len(finding.commits) - 4} more" if len(finding.commits) > 4 else ""
        lines.append(f"commits: {', '.join(short(commit) for commit in finding.commits[:4])}{more}")
    if finding.hint:
        lines.append(f"hint: {finding.hint}")
    return lines


def _place(where: str) -> str:
    """Ids are long: a pack or an object by its first digits."""
    head, slash, name = where.rpartition("/")
    return f"{head}{slash}{short(name)}" if len(name) in (40, 64) else where
