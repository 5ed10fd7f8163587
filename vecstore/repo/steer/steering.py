"""`repo.steer`: the verbs of steering terms. They are one a file, beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from os import PathLike

    from pv.registry.steering import Condition
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.data.trait import Trait
    from pv.vecstore.evaluate.steering_sweep import Sweep
    from pv.vecstore.progress import Report
    from pv.vecstore.repo.chat import Chat
    from pv.vecstore.repo.edit import Committed
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.score_plan import ScorePlan
    from pv.vecstore.repo.steer.apply import Applied
    from pv.vecstore.repo.steer.compare import Likeness
    from pv.vecstore.repo.steer.export import ExportedTerm
    from pv.vecstore.repo.steer.extract import Extraction
    from pv.vecstore.repo.steer.gates import Passage
    from pv.vecstore.repo.steer.import_file import Import
    from pv.vecstore.repo.steer.listed import SteeringTerms
    from pv.vecstore.repo.steer.pairs import ContrastPairs
    from pv.vecstore.repo.steer.status import Standings
    from pv.vecstore.repo.steer.train import Route, TrainedIn

__all__ = ["SteeringVerbs"]


@dataclass(frozen=True, slots=True)
class SteeringVerbs:
    """What `pv steer` does, in Python: `repo.steer.set("formal", 2.0)`."""

    repo: Repo

    def terms(self, revision: str = "HEAD") -> SteeringTerms:
        """The steering terms of a revision, and the rule by which they are applied."""
        from pv.vecstore.repo.steer.listed import listed

        return listed(self.repo, revision)

    def set(
        self,
        name: str | None = None,
        coefficient: float | None = None,
        *,
        sites: Sequence[str] | Literal["all"] | None = None,
        layers: Sequence[int] = (),
        positions: str | None = None,
        when: Condition | str | EllipsisType | None = ...,
        rule: str | None = None,
        message: str | None = None,
    ) -> Committed:
        """Change a term, and the rule of all of them. What is None (of `when`: `...`) stays as it is.

        `sites` "all" are all of its vector's; `layers` are sites by their layer. `when` is a Condition
        or "[VECTOR@]SITE>NUMBER"; None: for every prompt.
        What was known of the term is dropped if something else is applied afterwards.
        """
        from pv.vecstore.repo.steer.set import set_term

        return set_term(
            self.repo,
            name,
            coefficient,
            sites=sites,
            layers=layers,
            positions=positions,
            when=when,
            rule=rule,
            message=message,
        )

    def pairs(
        self,
        trait: Trait | str | PathLike[str],
        *,
        max_tokens: int = 64,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> ContrastPairs:
        """Rows of a trait: the base's answers when it is told to have it, and when it is told not to."""
        from pv.vecstore.repo.steer.pairs import pairs

        threads = thread_count(threads)
        return pairs(self.repo, trait, max_tokens=max_tokens, threads=threads, progress=progress)

    def extract(
        self,
        rows: Rows | str | PathLike[str],
        *,
        name: str,
        layers: Sequence[int] | None = None,
        at: Sequence[str] = (),
        heads: bool = False,
        read: str = "answer",
        method: str = "mean",
        coefficient: float | None = None,
        positions: str | None = None,
        same_token: bool = False,
        keep_rows: bool = True,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Extraction:
        """A steering vector from rows of chosen and rejected answers, read in the base, committed as a term.

        Directions are kept for every layer, and that of the middle one is applied; with `layers`, sites `at` or
        `heads` they are of those, and applied at all of them. `read` says which tokens: "answer", "answer:-1",
        "prompt:-1", "end"; where every text has the same token there it is refused, but for `same_token`. Coefficient 1
        and all positions, unless given; the next version of a term keeps its own.
        """
        from pv.vecstore.repo.steer.extract import extract

        return extract(
            self.repo, rows, name=name, layers=layers, at=at, heads=heads, read=read, method=method,
            coefficient=coefficient, positions=positions, same_token=same_token, keep_rows=keep_rows,
            message=message, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def test(
        self,
        name: str,
        rows: Rows | str | PathLike[str],
        *,
        plan: ScorePlan | None = None,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Passage:
        """The first gate: the term alone must have an effect on rows that it was not extracted from."""
        from pv.vecstore.repo.steer.test import test

        return test(
            self.repo,
            name,
            rows,
            plan=plan,
            message=message,
            threads=thread_count(threads),
            progress=progress,
        )

    def verify(
        self,
        name: str,
        rows: Rows | str | PathLike[str],
        *,
        randoms: int = 8,
        shuffles: int = 4,
        prompt: str | None = None,
        most_damage: float = 0.1,
        plan: ScorePlan | None = None,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Passage:
        """The second: more effect than random directions and shuffled labels have, little damage, no broken replies."""
        from pv.vecstore.repo.steer.verify import verify

        return verify(
            self.repo, name, rows, randoms=randoms, shuffles=shuffles, prompt=prompt, most_damage=most_damage,
            plan=plan, message=message, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def train(
        self,
        term: str,
        rows: Rows | str | PathLike[str] | None = None,
        *,
        name: str,
        route: Route = "distil",
        held_out: Rows | str | PathLike[str] | None = None,
        max_tokens: int = 64,
        weight: float | None = None,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
        **options: Any,
    ) -> TrainedIn:
        """A behaviour that does in the weights what a verified term does; `options` are those of TrainOptions."""
        from pv.vecstore.repo.steer.train import train_in

        return train_in(
            self.repo, term, rows, name=name, route=route, held_out=held_out, max_tokens=max_tokens,
            weight=weight, message=message, threads=thread_count(threads), progress=progress, **options,
        )  # fmt: skip

    def retire(
        self,
        name: str,
        rows: Rows | str | PathLike[str],
        *,
        by: str,
        least: float = 0.8,
        plan: ScorePlan | None = None,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Passage:
        """The last: the behaviour `by` alone gives at least that share of the steered effect, at no more damage."""
        from pv.vecstore.repo.steer.retire import retire

        threads = thread_count(threads)
        return retire(
            self.repo,
            name,
            rows,
            by=by,
            least=least,
            plan=plan,
            message=message,
            threads=threads,
            progress=progress,
        )

    def unretire(self, name: str, *, message: str | None = None) -> Committed:
        """Apply a retired term again; what is known of it stays."""
        from pv.vecstore.repo.steer.unretire import unretire

        return unretire(self.repo, name, message=message)

    def status(self, revision: str = "HEAD") -> Standings:
        """Where each term stands, its evidence, and what comes next."""
        from pv.vecstore.repo.steer.status import status

        return status(self.repo, revision)

    def sweep(
        self,
        name: str,
        rows: Rows | str | PathLike[str],
        *,
        layers: str | Sequence[int] | None = None,
        coefficients: str | Sequence[float] | None = None,
        replies: int = 12,
        max_tokens: int = 48,
        neutral: Rows | str | PathLike[str] | None = None,
        damage: float = 0.05,
        set: bool = False,
        plot: str | PathLike[str] | None = None,
        page: str | PathLike[str] | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Sweep:
        """A term at one layer after another with one coefficient after another, against the model without it.

        Per cell: effect on `rows`, damage on `neutral` (by default a third of pv's own set), and how many `replies` are
        broken. `suggestion` is the largest effect that costs at most `damage` nats a token; `set` commits it. `plot`
        and `page` are written as PNG and HTML. What is measured is kept: to go on after an interruption, call it again.
        """
        from pv.vecstore.repo.steer.sweep import COEFFICIENTS, sweep

        return sweep(
            self.repo, name, rows, layers=layers, coefficients=COEFFICIENTS if coefficients is None else coefficients,
            replies=replies, max_tokens=max_tokens, neutral=neutral, damage=damage, set=set, plot=_path(plot),
            page=_path(page), threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def chat(
        self,
        name: str,
        coefficient: float | None = None,
        *,
        layer: int | None = None,
        sites: Sequence[str] | None = None,
        positions: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> AbstractContextManager[Chat]:
        """The model with one term alone, as it is or otherwise: `with repo.steer.chat("formal", 2.0) as chat: ...`."""
        from pv.vecstore.repo.steer.apply import steered_chat

        return steered_chat(
            self.repo, name, coefficient, layer=layer, sites=sites, positions=positions,
            threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def apply(
        self,
        name: str,
        prompts: str | Sequence[str],
        coefficient: float | None = None,
        *,
        layer: int | None = None,
        sites: Sequence[str] | None = None,
        positions: str | None = None,
        max_tokens: int = 64,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Applied:
        """Greedy replies with one term alone, beside those without it. Commits nothing."""
        from pv.vecstore.repo.steer.apply import apply

        return apply(
            self.repo, name, [prompts] if isinstance(prompts, str) else prompts, coefficient, layer=layer, sites=sites,
            positions=positions, max_tokens=max_tokens, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def import_file(
        self,
        path: str | PathLike[str],
        *,
        name: str,
        format: str | None = None,
        convention: str | None = None,
        coefficient: float | None = None,
        layers: Sequence[int] | None = None,
        sites: Sequence[str] = (),
        positions: str | None = None,
        message: str | None = None,
    ) -> Import:
        """A steering vector out of another tool's file, committed as a term: docs/steering-formats.md.

        Applied at every site that the file has, or at `layers` and `sites`; all are kept. A file's own coefficient is
        the term's, but for another that is given here. A term that is there already keeps its positions and condition.
        """
        from pathlib import Path

        from pv.vecstore.repo.steer.import_file import import_file

        return import_file(
            self.repo, Path(path), name=name, format=format, convention=convention, coefficient=coefficient,
            layers=layers, sites=sites, positions=positions, message=message,
        )  # fmt: skip

    def export(
        self,
        name: str,
        output: str | PathLike[str],
        *,
        revision: str = "HEAD",
        format: str | None = None,
        convention: str | None = None,
        coefficient: float | None = None,
        unit: bool = False,
        sites: Sequence[str] | Literal["all"] | None = None,
        force: bool = False,
    ) -> ExportedTerm:
        """A term as a file that another tool reads, at the sites where it is applied, others of its vector, or "all".

        Without a `format`, the one of the file's ending. `unit`: directions of length 1, whatever the coefficient is.
        """
        from pathlib import Path

        from pv.vecstore.repo.steer.export import export

        return export(
            self.repo, name, Path(output), revision=revision, format=format, convention=convention,
            coefficient=coefficient, unit=unit, sites=sites, force=force,
        )  # fmt: skip

    def drop(self, *names: str, message: str | None = None) -> Committed:
        """Remove terms; their vectors stay in the history."""
        from pv.vecstore.repo.steer.drop import drop

        return drop(self.repo, names, message=message)

    def rename(self, old: str, new: str, *, message: str | None = None) -> Committed:
        """Give a term another name."""
        from pv.vecstore.repo.steer.rename import rename

        return rename(self.repo, old, new, message=message)

    def add(
        self, name: str, revision: str, *, new: str | None = None, message: str | None = None
    ) -> Committed:
        """Bring a term from another revision, under its own name or a `new` one."""
        from pv.vecstore.repo.steer.add import add

        return add(self.repo, name, revision, new=new, message=message)

    def compare(
        self,
        behaviour: str,
        term: str,
        *,
        sites: Sequence[str] | None = None,
        texts: Rows | str | PathLike[str] | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Likeness:
        """Whether a behaviour (`[REV:]NAME`, alone at weight 1) does to activations what a term (`[REV:]NAME`) does.

        Over `texts`, pv's neutral set if none are given, at the output of every layer or at `sites`.
        """
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.steer.compare import compare

        rows = None if texts is None else as_rows(texts)
        return compare(
            self.repo, behaviour, term, sites=sites, texts=rows, threads=threads, progress=progress
        )


def _path(path: str | PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path).expanduser().absolute()
