"""How values draw themselves in a notebook: small, self-contained HTML. Every text is escaped.

No script, no style sheet, nothing that is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from pv.registry.persona import Behaviour
from pv.registry.provenance import Derived
from pv.registry.provenance_ways import as_behaviour
from pv.registry.words import (
    combine_words,
    module_words,
    number,
    persona_line,
    ref_name,
    site_words,
    state_words,
    term_list,
    value_words,
)
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.publish.lineage import lineage, measured, original
from pv.vecstore.publish.words import VERDICTS, caveats, interval

if TYPE_CHECKING:
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.reading import Reading
    from pv.vecstore.repo.revision import Revision
    from pv.vecstore.repo.score import Score

__all__ = ["diff_html", "repo_html", "revision_html", "score_html"]

COMMITS = 8


def repo_html(repo: Reading) -> str:
    """Where you are, and the latest commits."""
    head = repo.head
    rows = [
        (
            entry.id[:12],
            ", ".join(ref_name(ref) for ref in entry.refs),
            entry.subject,
            persona_line(entry.persona),
        )
        for entry in (repo.log(limit=COMMITS) if head.commit else [])
    ]
    where = f"{repo.path} on branch {head.branch}"
    return _titled("pv repository", where, _table(("commit", "refs", "message", "persona"), rows))


def revision_html(revision: Revision) -> str:
    """The persona, behaviour by behaviour."""
    persona = revision.persona
    rows = [
        (name, number(behaviour.weight), _terms(behaviour), *_origins(revision, name, behaviour))
        for name, behaviour in sorted(persona.behaviours.items())
    ]
    where = (
        f"{revision.name} {revision.commit[:12]}, base {persona.base[:12]}, {combine_words(persona.combine)}"
    )
    terms = [
        (name, number(term.coefficient), site_words(term.sites), term.positions, state_words(term))
        for name, term in sorted(persona.steering.terms.items())
    ]
    header = ("steering term", "coefficient", "sites", "positions", "state")
    return _titled(
        "pv revision",
        where,
        _table(("behaviour", "weight", "vectors", "from", "measured alone, at weight 1"), rows)
        + (_table(header, terms) if terms else ""),
    )


def _terms(behaviour: Behaviour) -> str:
    factors = f"; {module_words(behaviour.modules)}" if behaviour.modules else ""
    return term_list(behaviour.terms) + factors


def _origins(revision: Revision, name: str, behaviour: Behaviour) -> tuple[str, str]:
    """Where a behaviour's vectors came from, and what was measured of them."""
    made: list[str] = []
    found: list[str] = []
    for vector in dict.fromkeys(term.vector for term in behaviour.terms):
        known = as_behaviour(revision.registry.provenance(revision.commit, vector), name)
        made.append(lineage(known))
        found += measured(known) + (original(known) if isinstance(known, Derived) else ())
    return "; ".join(dict.fromkeys(made)), "; ".join(found)


def diff_html(diff: Diff) -> str:
    """What differs in the recipe; by module and pair, if weights were read."""
    rows = [(one.name, value_words(one.before), value_words(one.after)) for one in diff.changes]
    parts = [_table(("", diff.a[:12], diff.b[:12]), rows)] if rows else ["<p>no difference</p>"]
    if diff.weights:
        moved = [
            (c.where, f"{c.norm:.4f}", f"{100 * c.relative:.3f} %")
            for c in (*diff.weights.by_module(), diff.weights.total)
        ]
        parts.append(_table(("module", "norm of the change", "of the base's norm"), moved))
    if diff.pairs:
        pairs = [
            (f"{p.a} · {p.b}", f"{p.cosine:+.3f}", f"{100 * p.sign_agreement:.1f} %") for p in diff.pairs
        ]
        parts.append(_table(("behaviours", "cosine", "same sign"), pairs))
    return _titled("pv diff", f"{diff.a[:12]} to {diff.b[:12]}", "".join(parts))


def score_html(score: Score) -> str:
    """Margins and effect with their intervals."""
    rows = [
        (label, _interval(found))
        for label, found in (
            ("margin of the base", score.base_margin),
            ("margin", score.margin),
            ("effect", score.effect),
            ("effect per token", score.effect_per_token),
        )
    ]
    if score.damage is not None:
        rows += [
            (f"damage, {label}, a token", interval(one.mean, one.low, one.high, 3))
            for label, one in (
                ("plain answers after token 16", score.damage.answers),
                ("plain text", score.damage.text),
            )
            if one is not None
        ]
    verdict = "; ".join((VERDICTS[score.effect.verdict][1], *caveats(score.effect.n, score.overlap)))
    where = f"{score.data}, n={score.effect.n}, build {score.build[:12]}: {verdict}"
    return _titled("pv score", where, _table(("", "nats, 95 % interval"), rows))


def _interval(found: Interval) -> str:
    return interval(found.mean, found.low, found.high)


def _titled(title: str, where: str, body: str) -> str:
    return f"<div><strong>{escape(title)}</strong> <span>{escape(where)}</span>{body}</div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
