"""pv fsck"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option, threads_option
from pv.cli.render import counted, size
from pv.cli.say import echo
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.registry.check.repair import Mended
    from pv.registry.check.report import Finding, Report
    from pv.vecstore.repo.fsck import Checked

__all__ = ["command"]

NOUNS = {
    "object": "git object",
    "missing": "missing pack",
    "config": "setting",
    "operations": "operation",
    "head": "HEAD",
}


@click.command("fsck", short_help="Check that nothing in the registry is damaged.")
@click.option("--deep", is_flag=True, help="Decode every pack against its base, too, and hash every tensor.")
@click.option("--repair", is_flag=True, help="Repair what can be repaired. Nothing is deleted.")
@threads_option
@json_option
@pass_app
def command(app: App, deep: bool, repair: bool, threads: int, as_json: bool) -> None:
    """Check every file of the registry: its format, its history, its refs, and the checksum of every pack.

    What is damaged is listed with the behaviours and commits that it affects, and the exit code is 3.
    --repair restores refs from the operations, packs from the quarantine, a pinned base from the folder it
    came from, and derived vectors from their sources; damaged files are set aside, not deleted.

    \b
    pv fsck
    pv fsck --deep
    pv fsck --repair
    """
    from pv.vecstore.repo.fsck import fsck

    with app.progress() as progress:
        checked = fsck(app.path, deep=deep, repair=repair, threads=threads, progress=progress)
    if as_json:
        app.json(checked)
    else:
        _show(app, checked)
    if not checked.clean:
        raise click.exceptions.Exit(ExitCode.INTEGRITY)


def _show(app: App, checked: Checked) -> None:
    report = checked.report
    for one in checked.mended or ():
        _mended(one)
    for finding in report.findings:
        _finding(finding)
    left = len(report.of("leftover"))
    if left:
        echo(f"note {counted(left, 'leftover')} of killed processes: `pv gc` removes them")
    what = (
        f"{counted(report.commits, 'commit')}, {counted(report.operations, 'operation')}, "
        f"{counted(report.objects, 'git object')}, {counted(report.packs, 'pack')} ({size(report.nbytes)}), "
        f"{counted(report.records, 'record')}"
    )
    if report.clean:
        app.done(f"{what}: {_decoded(report)}nothing is damaged")
    else:
        _damage(app, report, what, repaired=bool(checked.mended))


def _decoded(report: Report) -> str:
    """How much of it was decoded: what needs a base that is away could not be."""
    if not report.deep:
        return ""
    if not report.of("unchecked"):
        return "every tensor decoded, "
    left = len(report.undecoded)
    packs = f"{left} of {counted(report.packs, 'pack')} not decoded; " if left else ""
    return f"{packs}as far as could be checked, "


def _mended(one: Mended) -> None:
    mark = click.style("mended ", fg="green") if one.done else click.style("not mended ", fg="yellow")
    echo(f"{mark}{_place(one.where)}: {one.what}")


def _finding(finding: Finding) -> None:
    if finding.damage:
        echo(click.style("damage ", fg="red") + f"{_place(finding.where)}: {finding.what}")
        for line in _affected(finding):
            echo(f"  {line}")
    elif finding.kind != "leftover":
        echo(f"note {_place(finding.where)}: {finding.what}")
        if finding.hint:
            echo(f"  {finding.hint}")


def _damage(app: App, report: Report, what: str, *, repaired: bool) -> None:
    counts = Counter(finding.kind for finding in report.damage)
    kinds = ", ".join(counted(n, NOUNS.get(kind, kind)) for kind, n in sorted(counts.items()))
    app.note(f"{what}: damaged: {kinds}")
    if report.behaviours:
        app.note(f"affected behaviours: {', '.join(report.behaviours)}")
    if not repaired and any(finding.repairable for finding in report.damage):
        app.note("`pv fsck --repair` tries to repair it")


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
