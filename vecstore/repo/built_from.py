"""Is a checkpoint a known persona's build, or a fine-tune of one? Then it holds more than what it was tuned for.

The fine-tuned weights minus the base's are the whole way from the base: a persona that has those behaviours already
would count them twice. So `commit` refuses such a checkpoint, unless it is told what to subtract (--on) or to take the
whole difference anyway (--force).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pv.registry.errors import IntegrityError, NotFoundError, UsageError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.registry import Registry
from pv.registry.words import revision_words
from pv.vecstore.checkpoints.align import Aligned
from pv.vecstore.checkpoints.fingerprint import table_id
from pv.vecstore.merge.build import table
from pv.vecstore.merge.descent import Descent, descents
from pv.vecstore.merge.export import export_rows
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.progress import Progress, Report, stage
from pv.vecstore.repo.commits import named_history
from pv.vecstore.repo.known_builds import known_builds
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector, open_vector

__all__ = ["Source", "besides", "check_built_from", "subtracted"]

MOST = 24  # personas that are looked at: those with a name first, then the newest


@dataclass(frozen=True, slots=True)
class Source:
    """A revision whose build a checkpoint may have been trained from."""

    commit: str
    revision: str
    persona: Persona

    def __str__(self) -> str:
        return revision_words(self.revision, self.commit)


def besides(persona: Persona, name: str) -> dict[str, Behaviour]:
    """What a persona holds except `name`: whose next version is trained from it, or replaces it."""
    return {n: b for n, b in persona.behaviours.items() if n != name and b.weight != 0}


def subtracted(source: Source, name: str) -> tuple[Term, ...]:
    """What the persona holds besides `name`, as terms to subtract. Raises UsageError where it is no sum of vectors."""
    held = besides(source.persona, name)
    rule = source.persona.combine
    scaled = sorted(n for n, behaviour in held.items() if behaviour.modules)
    if not held:
        raise UsageError(
            f"{source} holds no other behaviour: there is nothing to subtract",
            hint=f"leave out --on: pv commit DIR --as {name}",
        )
    if not is_linear(rule) or scaled:
        why = (
            f"{scaled[0]} has module factors" if scaled else f"its behaviours are combined with {rule.method}"
        )
        raise UsageError(
            f"what {source} holds cannot be subtracted, because it is not a sum of whole vectors: {why}",
            hint="--force instead of --on keeps the whole difference from the base, for use without those behaviours",
        )
    return tuple(
        Term(0.0 - behaviour.weight * term.coefficient, term.vector)
        for _, behaviour in sorted(held.items())
        for term in behaviour.terms
    )


def check_built_from(
    registry: Registry,
    base: Base,
    path: Path,
    name: str,
    on: Source | None,
    checkpoint: Aligned,
    rows: Mapping[str, TensorRow],
    *,
    threads: int,
    progress: Report | None = None,
) -> list[str]:
    """What to know of where a checkpoint comes from. Raises UsageError if it holds more than `name`, on top of `on`."""
    weights, head = table_id(rows), registry.persona("HEAD")
    for known in known_builds(registry, weights, unbaked=True):
        built = Source(known.commit, known.revision, known.persona)
        own_part = on is not None and _holds_it(registry, built, weights)
        if besides(known.persona, name) and not own_part and not _is_own(known.persona, name, on):
            raise _is_build(path, built, name, on, head)
    looked_at = _looked_at(registry, on)
    with _vectors(base, registry, looked_at) as vectors:
        seen = descents(checkpoint, base, vectors, [source.persona for source in looked_at])
        found = [(source, descent) for source, descent in zip(looked_at, seen, strict=True) if descent]
        same = [source for source, descent in found if descent.same]  # as far as was seen; now the rest
        exact = []
        for source in same:
            update = stage(progress, f"computing the build of {source.revision}")
            if _gives(source.persona, base, vectors, weights, threads, update):
                exact.append(source)
        if on is not None and on in exact and not _is_own(on.persona, name, on):
            raise _is_build(path, on, name, on, head)
        own = next((descent for source, descent in found if source is on), None)
        if on is not None and own is not None and not own.resembles:
            raise UsageError(
                f"{path} does not hold what {on} holds: {_names(on, name)} cannot be subtracted from it",
                hint=f"if it was trained from the base: pv commit {path} --as {name}; --force subtracts anyway",
            )
        for source, descent in sorted(found, key=_likeliest):
            if on is not None and besides(source.persona, name) == besides(on.persona, name):
                return []
            if (on is not None or source not in exact) and _holds_it(registry, source, weights):
                continue  # it was there before that persona
            if descent.descends:
                if not besides(source.persona, name):
                    return []
                if on is not None and own is not None and own.descends and source not in exact:
                    more = {
                        n
                        for n, one in besides(source.persona, name).items()
                        if on.persona.behaviours.get(n) != one
                    }
                    if more - _contained(source, more, checkpoint, base, vectors).keys() or not more:
                        return [_other_fits(source, on)]
                how = (path, source, name, on)
                raise _is_build(*how, head) if source in exact else _fine_tune(*how)
        if on is not None:
            return []
        notes = (
            _resembling(source, checkpoint, base, vectors, name)
            for source, descent in found
            if descent.resembles
        )
        return [note for note in notes if note][:1]


def _gives(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    weights: str,
    threads: int,
    progress: Progress | None,
) -> bool:
    """Whether these weights are the persona's build, computed. Not if it cannot be built."""
    try:
        return table_id(table(persona, base, vectors, threads=threads, progress=progress)) == weights
    except IntegrityError:
        return False


def _is_own(persona: Persona, name: str, on: Source | None) -> bool:
    """Whether a persona is `on` with a version of `name`: its build may be committed, as that version."""
    return (
        on is not None and name in persona.behaviours and besides(persona, name) == besides(on.persona, name)
    )


def _likeliest(one: tuple[Source, Descent]) -> tuple[bool, float]:
    return not one[1].descends or one[1].unmarked, one[1].rest


def _holds_it(registry: Registry, source: Source, weights: str) -> bool:
    """Whether the persona has this very checkpoint in it: then the checkpoint was there before its build."""
    known = (registry.vector(source.commit, vector) for vector in source.persona.task_vectors)
    base = registry.base(source.commit)
    return any(table_id(export_rows(one, base)) == weights for one in known if one.encoding == "exact")


def _contained(
    source: Source, names: Iterable[str], checkpoint: Aligned, base: Base, vectors: Mapping[str, Vector]
) -> dict[str, float]:
    """The behaviours of a persona that are in the checkpoint, each looked at alone, and how much of each."""
    names, nothing = sorted(names), source.persona.without_behaviours()
    alone = [nothing.with_behaviour(name, source.persona.behaviour(name)) for name in names]
    seen = zip(names, descents(checkpoint, base, vectors, alone), strict=True)
    return {name: descent.contained for name, descent in seen if descent is not None and descent.resembles}


def _resembling(
    source: Source, checkpoint: Aligned, base: Base, vectors: Mapping[str, Vector], name: str
) -> str | None:
    """A remark on the behaviours that the checkpoint holds already, each looked at alone; None if it holds none."""
    shares = _contained(source, besides(source.persona, name), checkpoint, base, vectors)
    if not shares:
        return None
    listed = " and ".join(
        f"{100 * share:.0f} % of what {one} adds to the base" for one, share in shares.items()
    )
    return (
        f"{listed} in {source} {'is' if len(shares) == 1 else 'are'} in it too: together they count that twice. "
        "If it was fine-tuned from a build of that, undo this and commit it with --on"
    )


def _other_fits(source: Source, on: Source) -> str:
    return (
        f"the build of {source} is nearer to it than that of {on}, which was subtracted as --on says. If it was "
        f"fine-tuned from that one, undo this and commit it with --on {source.revision}"
    )


def _is_build(path: Path, source: Source, name: str, on: Source | None, head: Persona) -> UsageError:
    held = _names(source, name)
    if on is not None and besides(on.persona, name) == besides(source.persona, name):
        return UsageError(
            f"{path} is the build of {source} itself: it has nothing of its own to keep as {name}",
            hint="fine-tune it first, and commit the result",
        )
    way_out = f"HEAD has {held} already"
    if one := min(besides(source.persona, name).keys() - head.behaviours.keys(), default=None):
        way_out = f"`pv add {one}={source.revision}:{one}` takes a behaviour from there"
    return UsageError(
        f"{path} is the build of {source}: as a behaviour it would count {held} twice",
        hint=f"{way_out}; {_forced(on)}",
    )


def _fine_tune(path: Path, source: Source, name: str, on: Source | None) -> UsageError:
    return UsageError(
        f"{path} was fine-tuned from the build of {source}: as a behaviour it would count {_names(source, name)} twice",
        hint=f"`pv commit {path} --on {source.revision} --as {name}` keeps what is its own; {_forced(on)}",
    )


def _forced(on: Source | None) -> str:
    does = "keeps the whole difference from the base" if on is None else f"subtracts what {on} holds"
    return f"`--force` {does} anyway"


def _names(source: Source, name: str) -> str:
    return ", ".join(sorted(besides(source.persona, name)))


def _looked_at(registry: Registry, on: Source | None) -> list[Source]:
    """Personas that a checkpoint may come from, each once, whatever their builds are written as."""
    found = [on] if on is not None else []
    seen = {_recipe(source.persona) for source in found}
    for commit, revision, persona in named_history(registry):
        whole = all(registry.packs.has(vector) for vector in persona.task_vectors)
        if whole and besides(persona, "") and _recipe(persona) not in seen and len(found) < MOST:
            seen.add(_recipe(persona))
            found.append(Source(commit, revision, persona))
    return found


def _recipe(persona: Persona) -> str:
    return persona.recipe.with_output(dtype="base", rounding="stochastic").id


@contextmanager
def _vectors(base: Base, registry: Registry, sources: list[Source]) -> Iterator[dict[str, Vector]]:
    """What the personas hold; a vector that is damaged takes the personas that hold it out of `sources`."""
    with ExitStack() as stack:
        vectors: dict[str, Vector] = {}
        for vector in sorted({v for source in sources for v in source.persona.task_vectors}):
            try:
                vectors[vector] = stack.enter_context(open_vector(vector, base, registry.packs))
            except (IntegrityError, NotFoundError):
                continue
        sources[:] = [source for source in sources if vectors.keys() >= set(source.persona.task_vectors)]
        yield vectors
