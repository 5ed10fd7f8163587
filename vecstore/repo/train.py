"""train: rows to a behaviour, learnt on the persona's base and committed."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import BaseMismatch, UsageError
from pv.registry.manifest import VectorManifest
from pv.registry.persona import Persona, Term
from pv.registry.provenance import Trained as TrainedProvenance
from pv.registry.provenance import TrainedOn, TrainingData
from pv.vecstore.data.kept_rows import store_rows
from pv.vecstore.data.overlap import overlap
from pv.vecstore.data.rows import Rows, as_rows, read_rows
from pv.vecstore.data.turns import every_answer, not_all_alike
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.forecast.features import Sketches
from pv.vecstore.forecast.of_vector import sketch_of
from pv.vecstore.models.load import load_tokenizer
from pv.vecstore.progress import Report, Tick, said, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.long_work import LongWork, long_work
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.score import Score, measure, score_persona
from pv.vecstore.repo.score_plan import ScorePlan
from pv.vecstore.train.loop import Step, Trained
from pv.vecstore.train.loop import train as run
from pv.vecstore.train.metrics import metrics
from pv.vecstore.train.objective import Teacher
from pv.vecstore.train.options import SAVE_EVERY_S, TrainOptions
from pv.vecstore.train.processes import Processes
from pv.vecstore.train.saving import Saving
from pv.vecstore.train.watch import Watch
from pv.vecstore.vectors.adapters.capture import capture_adapter
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.vector import open_vector

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pv.vecstore.repo.repo import Repo

__all__ = ["BESIDE", "Taught", "Training", "follow", "train"]

ENCODINGS = ("int8", "float")
BESIDE = "beside"
"""Held-out rows: ROWS.heldout with the same suffix, if it lies beside (of rows.jsonl: rows.heldout.jsonl)."""


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """Who teaches the rows, where the options say "teacher": and what is kept of it in the vector's provenance."""

    teacher: Teacher
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Training:
    """A behaviour that was trained: its commit and vector, how the run went, and its held-out score."""

    commit: str
    branch: str
    name: str
    vector: str
    stored_bytes: int
    rows: int
    loss: tuple[float, ...]
    tokens: int
    seconds: float
    provenance: TrainedProvenance
    held_out: Score | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "branch": self.branch,
            "name": self.name,
            "vector": self.vector,
            "stored_bytes": self.stored_bytes,
            "provenance": self.provenance.to_json(),
            "notes": list(self.notes),
        }


def train(
    repo: Repo,
    rows: Rows | str | PathLike[str],
    *,
    name: str,
    on: str | None = None,
    held_out: Rows | str | PathLike[str] | None = BESIDE,
    general: Rows | str | PathLike[str] | None = None,
    replies: int = 0,
    weight: float | None = None,
    options: TrainOptions,
    encoding: str = "int8",
    all_turns: bool = False,
    keep_rows: bool = True,
    message: str | None = None,
    resume: bool = False,
    save_every: float = SAVE_EVERY_S,
    target_effect: float | None = None,
    patience: int | None = None,
    check_every: int = 1,
    metrics_file: Path | None = None,
    report_to: Sequence[str] = (),
    threads: int,
    progress: Report | None = None,
    processes: Processes | None = None,
    taught: Taught | None = None,
) -> Training:
    """Train on the base alone, keep what was learnt as a vector, measure it and commit it. Raises as the loop does.

    It is saved every `save_every` seconds and when it is interrupted; `resume` goes on from there. With `target_effect`
    or `patience` the held-out effect is measured every `check_every` steps, and ends the run. `general`: the ordinary
    answers that are held still, None for pv's own. `replies`: to how many held-out prompts the score has them.
    Of several `processes` this is the one that leads; the others `follow`.
    """
    _check_watch(target_effect, patience, check_every)
    if processes is not None:
        _check_alone(
            {
                "--resume": resume,
                "--target-effect": target_effect is not None,
                "--patience": patience is not None,
                "--adapter": options.adapter is not None,
            }
        )
    if not (math.isfinite(save_every) and save_every >= 0):
        raise UsageError(f"save_every is a number of seconds from 0, not {save_every}")
    if encoding not in ENCODINGS:
        raise UsageError(f"no encoding {encoding!r} to train into", hint=f"there are: {', '.join(ENCODINGS)}")
    if replies < 0:
        raise UsageError(f"replies is a number of prompts from 0, not {replies}")
    data, held = as_rows(rows), _held_out(rows, held_out)
    ordinary = as_rows(general) if general is not None and options.general else None
    not_all_alike(data)
    if all_turns:
        data = every_answer(data)
    source = None if on is None else repo.registry.resolve(on)
    with (
        long_work(repo, also=[] if source is None else [source]) as work,
        _saving(work, name, data, source, resume, save_every, processes, taught) as saving,
    ):
        work.check(name, weight)
        start = _start(work, source)
        if held is not None:  # the base first: rows that cannot be measured stop us before the training
            control = work.persona.without_behaviours()
            measure(work.registry, work.commit, control, held, threads=threads, progress=progress)
        before = None
        if target_effect is not None or patience is not None:
            if held is None:
                raise UsageError(
                    "an effect to aim at is measured on held-out rows, and there are none",
                    hint="give them with --held-out FILE",
                )
            before = measure(work.registry, work.commit, control, held, threads=threads, progress=progress)
        trained = _run(
            work, source, start, name, data, ordinary, options, saving, threads, progress, metrics_file, report_to,
            None if before is None or held is None else _Aim(held, before, check_every, target_effect, patience),
            processes, taught,
        )  # fmt: skip
        manifest, facts = _vector(work, trained, encoding, threads, progress)
        terms = _terms(work.persona, name, manifest.id, on)
        keep = [rows for rows in (data, held, ordinary) if rows is not None] if keep_rows else []
        packs = tuple(dict.fromkeys(store_rows(rows, work.registry.packs) for rows in keep))
        found = None if held is None else _score(work, name, terms, data, held, replies, threads, progress)
        origin = TrainedProvenance(
            TrainingData(Path(data.source).name, data.id, len(data), keep_rows),
            asdict(trained.options),
            {**trained.settings, **({} if taught is None else {"teacher": dict(taught.said)})},
            (trained.loss[0], trained.loss[-1]),
            trained.tokens,
            packs,
            None if found is None else found.to_json(),
            on=None if source is None else TrainedOn(source, start.id),
            adapter=facts,
            sketches=_sketches(work, manifest.id, trained, progress),
        )
        command = repo.command(f"train {data.source} --as {name}{f' --on {on}' if on else ''}")
        vectors = {manifest.id: (manifest, origin)}
        commit, notes = work.land_version(command, message or f"Train {name}", name, weight, terms, vectors)
        if saving is not None:
            saving.file.unlink(missing_ok=True)
        stored = work.registry.packs.size(manifest.id)
    return Training(
        commit, work.branch, name, manifest.id, stored, len(data),
        trained.loss, trained.tokens, trained.seconds, origin, found, (*data.notes, *trained.notes, *notes),
    )  # fmt: skip


@contextmanager
def _saving(
    work: LongWork, name: str, data: Rows, source: str | None, resume: bool, every_s: float,
    processes: Processes | None, taught: Taught | None,
) -> Iterator[Saving | None]:  # fmt: skip
    """Where the run is saved; None if another process trains the same, whose state that is; of several that share
    one, since none of them has it all; and with a teacher, which the state does not hold."""
    if processes is not None or taught is not None:
        yield None
        return
    run = {"rows": data.id, "source": Path(data.source).name, "base": work.persona.base}
    if source is not None:
        run["base"] = work.registry.persona(source).id
    with work.registry.trainings.held(work.branch, name) as file:
        if file is None and resume:
            raise UsageError(
                f"another process is training {name} on branch {work.branch} now", hint="wait for it to end"
            )
        saving = None if file is None else Saving(file, run, resume, every_s)
        try:
            yield saving
        except KeyboardInterrupt as error:
            if file is not None and file.exists() and not getattr(error, "__notes__", ()):
                error.add_note("what was saved of this training is kept: --resume goes on with it")
            raise


def _run(
    work: LongWork, source: str | None, start: Persona, name: str, data: Rows, general: Rows | None,
    options: TrainOptions, saving: Saving | None, threads: int, progress: Report | None, metrics_file: Path | None,
    report_to: Sequence[str], aim: _Aim | None, processes: Processes | None,
    taught: Taught | None,
) -> Trained:  # fmt: skip
    label = f"training {name}"

    def step(s: Step) -> None:
        note(s)
        if progress is not None:
            now = (s.loss, s.tokens_per_s, s.seconds_left) if s.step else ()
            progress(Tick(label, s.step, s.steps, "steps", *now))

    what = "the base" if start.is_base else "the persona"
    checkpoint = temporary_checkpoint(
        work.registry, source or work.commit, start, what=what, threads=threads, progress=progress
    )
    run_options = {**asdict(options), "epochs": options.epochs_over(len(data))}
    with checkpoint as folder, metrics(metrics_file, report_to, name, run_options) as note:
        if processes is not None:
            threads = processes.threads(threads)
            processes.told((folder, data, options, general, threads))
        said(progress, "loading the model")
        return run(
            folder, data, options, general=general, progress=step, threads=threads, saving=saving,
            watch=None if aim is None else aim.watch(folder), said=lambda words: said(progress, words),
            processes=processes, teacher=None if taught is None else taught.teacher,
        )  # fmt: skip


def follow(processes: Processes) -> Training:
    """Train with the process that leads, as it says; what it committed."""
    folder, data, options, general, threads = processes.told()
    run(folder, data, options, general=general, threads=threads, processes=processes)
    made: Training = processes.told()
    return made


@dataclass(frozen=True, slots=True)
class _Aim:
    """When a run has learnt enough, by its effect on held-out rows."""

    held: Rows
    before: Margins
    every: int
    target: float | None
    patience: int | None

    def watch(self, folder: Path) -> Watch:
        tokenizer = load_tokenizer(folder)

        def effect(model: PreTrainedModel) -> float:
            return float((margins(model, tokenizer, self.held).margin - self.before.margin).mean())

        return Watch(effect, self.every, self.target, self.patience)


def _check_alone(asked: Mapping[str, bool]) -> None:
    refused = [option for option, is_asked in asked.items() if is_asked]
    if refused:
        raise UsageError(
            f"{refused[0]} works in one process only", hint="leave it out, or start pv without torchrun"
        )


def _check_watch(target: float | None, patience: int | None, every: int) -> None:
    if target is not None and not (math.isfinite(target) and target > 0):
        raise UsageError(f"target_effect is a positive number of nats, not {target}")
    if every < 1 or (patience is not None and patience < 1):
        raise UsageError("check_every and patience are whole numbers from 1")


def _start(work: LongWork, source: str | None) -> Persona:
    """What is trained from: the base, or a persona, built in fp32 so that the difference is not from what was rounded.

    Raises BaseMismatch for a persona of another base.
    """
    if source is None:
        return work.persona.without_behaviours().with_output(dtype="base")
    persona = work.registry.persona(source)
    if persona.base != work.persona.base:
        raise BaseMismatch(
            f"{source[:12]} is on base {persona.base[:12]}, branch {work.branch} on {work.persona.base[:12]}",
            hint="train on a revision of the same base",
        )
    return persona.with_output(dtype="base" if persona.is_base else "fp32")


def _terms(persona: Persona, name: str, vector: str, on: str | None) -> tuple[Term, ...]:
    """A version of its own, or a refinement: added to what the behaviour is, whatever its weight is."""
    known = persona.behaviours.get(name)
    if on is None or known is None or not known.weight:
        return (Term(1.0, vector),)
    return (*known.terms, Term(1.0 / known.weight, vector))


def _vector(
    work: LongWork, trained: Trained, encoding: str, threads: int, progress: Report | None
) -> tuple[VectorManifest, Mapping[str, Any] | None]:
    """What was learnt as a vector, and of an adapter what is needed to write it out again."""
    update, packs = stage(progress, "writing the vector"), work.registry.packs
    if trained.adapter is None:
        base = work.registry.base(work.commit)
        made = encode_vector(trained.deltas, base, packs, encoding=encoding, threads=threads, progress=update)
        return made, None
    with opened(work.registry, work.commit) as at, tempfile.TemporaryDirectory() as folder:
        for name, data in trained.adapter.items():
            (Path(folder) / name).write_bytes(data)
        return capture_adapter(Path(folder), at.base, packs, threads=threads, progress=update)


def _sketches(
    work: LongWork, vector: str, trained: Trained, progress: Report | None
) -> Mapping[str, Any] | None:
    """What a forecast needs of the vector as it is kept; of an adapter there is no gradient at the base."""
    with opened(work.registry, work.commit) as at, open_vector(vector, at.base, work.registry.packs) as made:
        count = len(made.manifest.tensors)
        delta = sketch_of(made, stage(progress, "sketching the vector", "tensors", count))
    return Sketches(delta, trained.gradient).to_json()


def _score(
    work: LongWork,
    name: str,
    terms: tuple[Term, ...],
    data: Rows,
    held: Rows,
    replies: int,
    threads: int,
    progress: Report | None,
) -> Score:
    """The behaviour alone, at weight 1: margins and damage; replies, which take longest, if asked for."""
    alone = work.persona.with_terms(name, terms).alone(name)
    known = overlap(held, [data])
    return score_persona(
        work.registry, work.commit, alone, held, plan=ScorePlan(replies=replies), overlap=known,
        threads=threads, progress=progress,
    )  # fmt: skip


def _held_out(rows: Rows | str | PathLike[str], held_out: Rows | str | PathLike[str] | None) -> Rows | None:
    if held_out is None:
        return None
    if held_out != BESIDE:
        return as_rows(held_out)
    data = Path(rows.source if isinstance(rows, Rows) else rows).expanduser()
    beside = data.with_name(f"{data.stem}.heldout{data.suffix}")
    return read_rows(beside) if data.is_file() and beside.is_file() else None
