"""compress: a behaviour's vectors in a smaller encoding, chosen by name or by the share of its effect that it keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import NotFoundError, UsageError
from pv.registry.history.snapshot import NewVectors
from pv.registry.persona import Persona
from pv.registry.provenance import Derived as DerivedProvenance
from pv.registry.provenance import Provenance, Unknown
from pv.registry.provenance_ways import as_behaviour
from pv.registry.words import size
from pv.vecstore.data.overlap import Overlap
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.candidates import Candidate, Candidates, Trial, next_try, smallest
from pv.vecstore.repo.long_work import long_work
from pv.vecstore.vectors.derive import LADDER, EncodingSpec

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["Compressed", "compress"]

CLOSER = 3  # tries between two rungs of the ladder


@dataclass(frozen=True, slots=True)
class Compressed:
    """A search for a smaller encoding. `commit` and `chosen` are None if none keeps the share asked for.

    `effect` is that of the behaviour as it was, `trials` those of the candidates that were measured, on the rows
    `data`, of which `overlap` says how many are training rows.
    """

    name: str
    branch: str
    share: float | None
    commit: str | None
    chosen: Candidate | None
    encodings: tuple[str, ...]
    stored_bytes: int
    effect: Interval | None
    candidates: tuple[Candidate, ...]
    trials: tuple[Trial, ...]
    data: str | None = None
    overlap: Overlap | None = None

    def to_json(self) -> dict[str, Any]:
        tried = {trial.candidate.spec.text: trial.to_json() for trial in self.trials}
        chosen = self.chosen
        return {
            "commit": self.commit,
            "branch": self.branch,
            "behaviour": self.name,
            "share": self.share,
            "chosen": chosen.spec.text if chosen else None,
            "vectors": {old: new.manifest.id for old, new in chosen.derived.items()} if chosen else {},
            "before": {
                "encodings": list(self.encodings),
                "stored_bytes": self.stored_bytes,
                "effect": self.effect.to_json() if self.effect else None,
            },
            "data": self.data,
            "overlap": self.overlap.to_json() if self.overlap else None,
            "candidates": [tried.get(c.spec.text, c.to_json()) for c in self.candidates],
        }


def compress(
    repo: Repo,
    name: str,
    to: Sequence[str] = (),
    *,
    keep: float | None = None,
    data: Rows | str | PathLike[str] | None = None,
    force: bool = False,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Compressed:
    """Re-encode a behaviour and commit it: one encoding `to`, or the smallest that keeps the share `keep`.

    Raises UsageError where nothing would be gained, unless `force`.
    """
    specs, rows = _asked(name, to, keep, data)
    with long_work(repo) as work, Candidates(work, name, threads=threads) as candidates:
        if keep is None and candidates.is_already(specs[0]):
            raise UsageError(
                f"nothing changed: {name} is {specs[0].text} already", hint="name another encoding with --to"
            )
        search = _Search(candidates, rows, keep, progress)
        search.make(specs)
        if keep is None and not force:
            _check_gain(candidates, search.made[0])
        before = search.measure(closer=not to) if rows is not None else None
        made = sorted(search.made, key=lambda candidate: -candidate.stored_bytes)
        best = None if keep is None else smallest(search.trials, keep)
        chosen = made[0] if keep is None else best.candidate if best else None
        commit = None
        if chosen is not None:
            candidates.adopt(chosen)
            commit = work.land(
                repo.command(f"compress {name} --to {chosen.spec.text}"),
                message or f"Compress {name} as {chosen.spec.text}",
                lambda persona: _with(persona, candidates, chosen),
                _vectors(candidates, chosen, search.facts(chosen)),
            )
        return Compressed(
            name, work.branch, keep, commit, chosen, candidates.encodings, candidates.stored_bytes,
            before, tuple(made), tuple(search.trials),
            None if rows is None else Path(rows.source).name, search.overlap,
        )  # fmt: skip


def _asked(
    name: str, to: Sequence[str], keep: float | None, data: Rows | str | PathLike[str] | None
) -> tuple[list[EncodingSpec], Rows | None]:
    if keep is None and len(to) != 1:
        raise UsageError(
            "compress takes one --to ENCODING, or --keep SHARE with --data FILE",
            hint=f"pv compress {name} --to int8, or pv compress {name} --keep 0.95 --data HELD_OUT.jsonl",
        )
    if keep is not None and data is None:
        raise UsageError(
            "--keep needs --data: an effect is measured on held-out rows",
            hint=f"pv compress {name} --keep {keep:g} --data HELD_OUT.jsonl",
        )
    if keep is not None and not 0 < keep <= 1:
        raise UsageError(
            f"a share is above 0 and at most 1, not {keep:g}", hint="for example 0.95, which is 95 %"
        )
    specs = [EncodingSpec.parse(text) for text in dict.fromkeys(to or LADDER)]
    return specs, None if data is None else as_rows(data)


class _Search:
    """What was made and measured so far."""

    def __init__(
        self, candidates: Candidates, rows: Rows | None, share: float | None, progress: Report | None
    ) -> None:
        self.candidates, self.rows, self.share, self.progress = candidates, rows, share, progress
        self.overlap = None if rows is None else candidates.overlap(rows)
        self.made: list[Candidate] = []
        self.trials: list[Trial] = []

    def make(self, specs: Sequence[EncodingSpec]) -> None:
        for spec in specs:
            label = f"encoding {self.candidates.name} as {spec.text}"
            self.made.append(self.candidates.make(spec, progress=stage(self.progress, label)))

    def measure(self, *, closer: bool) -> Interval:
        """Try out what was made, and, if `closer`, what lies between; returns the effect as it was."""
        assert self.rows is not None
        before = self.candidates.effect(self.rows, progress=self.progress)
        for candidate in self.made:
            if self.share is None or self.candidates.gains(candidate):
                self._try_out(candidate)
        for _ in range(CLOSER if closer and self.share is not None else 0):
            between = next_try(self.trials, self.share or 0.0)
            if between is None:
                break
            self.make([between])
            self._try_out(self.made[-1])
        return before

    def _try_out(self, candidate: Candidate) -> None:
        assert self.rows is not None
        self.trials.append(self.candidates.try_out(candidate, self.rows, progress=self.progress))

    def facts(self, chosen: Candidate) -> dict[str, Any] | None:
        """What was measured of the chosen one, for its provenance."""
        trial = next((trial for trial in self.trials if trial.candidate is chosen), None)
        if trial is None or self.rows is None:
            return None
        asked = {} if self.share is None else {"share": self.share}
        return {
            "data": Path(self.rows.source).name,
            "data_id": self.rows.id,
            **asked,
            "effect": trial.effect.to_json(),
            "kept": trial.kept.to_json() if trial.kept else None,
            "vectors": len(chosen.derived),
            "overlap": self.overlap.to_json() if self.overlap else None,
        }


def _check_gain(candidates: Candidates, only: Candidate) -> None:
    if only.differs and not candidates.gains(only):
        raise UsageError(
            f"as {only.spec.text}, {candidates.name} would take {size(only.stored_bytes)}, and takes "
            f"{size(candidates.stored_bytes)} now: nothing was changed",
            hint="--force commits it anyway",
        )


def _with(persona: Persona, candidates: Candidates, chosen: Candidate) -> Persona:
    now = persona.behaviour(candidates.name)
    if now.terms != candidates.behaviour.terms:
        raise UsageError(
            f"{candidates.name!r} has changed while it was being compressed", hint="run the command again"
        )
    return persona.with_behaviour(candidates.name, chosen.in_place_of(now))


def _vectors(candidates: Candidates, chosen: Candidate, measured: dict[str, Any] | None) -> NewVectors:
    found = {}
    for source, derived in chosen.derived.items():
        if derived.manifest.id == source:
            continue  # nothing was made, and its own origin holds
        origin: Provenance = Unknown()
        with contextlib.suppress(NotFoundError):
            known = candidates.registry.provenance(candidates.work.commit, source)
            origin = as_behaviour(known, candidates.name)
        original: Provenance = origin
        first: str | None = source
        if isinstance(origin, DerivedProvenance):
            original, first = origin.original, origin.original_vector
        error = derived.error
        found[derived.manifest.id] = (
            derived.manifest,
            DerivedProvenance(
                source, chosen.spec.text, error.relative_l2, error.max_abs, original, measured,
                original_vector=first,
            ),
        )  # fmt: skip
    return found
