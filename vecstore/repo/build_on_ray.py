"""build, on a Ray cluster: a task for each weight file. Workers give back a hash; all else is in the shared folder.

A worker opens registry and base by their paths and writes its file itself: no tensor passes through Ray. A worker that
is lost is replaced, and the next one goes on with its file. The driver looks at what lies in the folder, not at what
it was told.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import NotARegistry, PvError, RemoteError, UsageError
from pv.registry.persona import Persona
from pv.vecstore.merge.build import check
from pv.vecstore.merge.folder import check_free
from pv.vecstore.merge.shards import SHARD_BYTES
from pv.vecstore.progress import Report, counted, stage
from pv.vecstore.repo.bake import to_build
from pv.vecstore.repo.build import Build, usable
from pv.vecstore.repo.build_shards import ShardedBuild
from pv.vecstore.repo.opening import opened

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["build_on_ray"]

RETRIES = 3
STORE_BYTES = 80 << 20  # as small as Ray makes it: nothing is put there
NO_NODES_S = 20.0  # so long may a cluster be without a processor: nodes may be about to join
_REACH_S = 5.0
_GO_ON = "when the cluster is back, the same command goes on with the shards that are finished"


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker is told."""

    registry: str
    commit: str
    persona: bytes
    output: str
    shard_bytes: int
    force: bool
    bake: bool
    threads: int

    def sharded(self, revision: Revision) -> ShardedBuild:
        persona = Persona.from_bytes(self.persona)
        wanted = to_build(revision.registry, revision.commit, persona, bake=self.bake)
        shards = wanted.shards(revision.base, shard_bytes=self.shard_bytes)
        return ShardedBuild(revision, persona, wanted, Path(self.output), shards)


def build_on_ray(
    revision: Revision,
    output: Path,
    address: str | None = None,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    bake: bool = True,
    threads: int = 1,
    progress: Report | None = None,
) -> Build:
    """Write the revision's checkpoint with a task for each weight file, of `threads` processors each.

    `address` is where the cluster is, `auto` the one on this machine; without one, one is started. Raises as `build`,
    and RemoteError for a cluster that cannot be reached or loses its workers.
    """
    ray = _ray()
    persona = revision.persona.with_output(dtype=dtype, rounding=rounding)
    root, folder = revision.registry.root.parent.resolve(), usable(output).resolve()
    job = Job(str(root), revision.commit, persona.to_bytes(), str(folder), shard_bytes, force, bake, threads)
    whole = job.sharded(revision)
    if (there := whole.there(threads=threads, progress=progress)) is not None:
        return there
    check_free(folder, force=force)
    with opened(revision.registry, revision.commit, [persona]) as at:  # refused before a cluster is bothered
        check(persona, at.base)
    with _connected(ray, address):
        _written(ray, whole, job, progress)
    made = whole.gather(force=force) or whole.there(threads=threads)
    if made is None:
        raise RemoteError(f"{whole.parts.folder} was deleted while it was written", hint="run it again")
    return made


def _written(ray: Any, whole: ShardedBuild, job: Job, progress: Report | None) -> None:
    """Every weight file is there, or an error says which is not."""
    advance = counted(stage(progress, "building on Ray"), sum(shard.nbytes for shard in whole.shards))
    task = ray.remote(num_cpus=job.threads, max_retries=RETRIES)(_write)
    pending = {task.remote(job, number): number for number in range(1, len(whole.shards) + 1)}
    alive = time.monotonic()
    try:
        while pending:
            done, _ = ray.wait(list(pending), timeout=1.0)
            for one in done:
                number, digest = pending.pop(one), ray.get(one)
                part = whole.parts.part(number)
                if part is None or part.sha256 != digest:
                    raise RemoteError(
                        f"shard {number} was written by a worker, but is not in {whole.parts.folder}",
                        hint="-o must name a folder on a disk that every node sees under the same path",
                    )
                advance(whole.shards[number - 1].nbytes)
            if done or _has_processors(ray):
                alive = time.monotonic()
            elif time.monotonic() - alive > NO_NODES_S:
                missing = f"{len(whole.parts.missing())} of {len(whole.shards)} shards are missing"
                raise RemoteError(f"the Ray cluster has lost its last worker; {missing}", hint=_GO_ON)
    except ray.exceptions.RayError as error:
        raise _as_ours(error, whole, job) from error
    except KeyboardInterrupt as error:
        finished = f"{len(whole.shards) - len(whole.parts.missing())} of {len(whole.shards)} shards"
        error.add_note(f"{finished} are kept: the same command goes on from there")
        raise
    finally:
        for one in pending:
            with contextlib.suppress(Exception):
                ray.cancel(one, force=True)


def _as_ours(error: Exception, whole: ShardedBuild, job: Job) -> PvError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, NotARegistry):
        return RemoteError(
            f"a worker does not find the registry {job.registry}",
            hint="registry, base and -o must be on a disk that every node sees under the same paths",
        )
    if isinstance(cause, PvError):
        whole.parts.discard()  # as after any error: nothing is left
        return cause
    if cause is not None:
        said = f"{type(cause).__name__}: {cause}".splitlines()[0]
        return RemoteError(
            f"a worker failed: {said}", hint="every node needs this version of pv, in the same environment"
        )
    kind = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    return RemoteError(f"Ray gave up after {RETRIES} retries ({kind})", hint=_GO_ON)


def _has_processors(ray: Any) -> bool:
    return any(node["Alive"] and node["Resources"].get("CPU") for node in ray.nodes())


def _write(job: Job, number: int) -> str:
    """On a worker: one weight file; its SHA-256."""
    from pv.vecstore.repo.repo import Repo

    with Repo.open(job.registry) as repo:
        whole = job.sharded(repo.at(job.commit))
        return whole.write(number, force=job.force, threads=job.threads).sha256


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A cluster while the block runs: whoever is connected already stays so. Raises RemoteError."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        quiet |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    else:
        _check_reachable(address)
    with _translated(address):
        ray.init(address or "local", **quiet)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _translated(address: str | None) -> Iterator[None]:
    try:
        yield
    except PvError:
        raise
    except Exception as error:  # Ray raises plain ones too, where a node does not start in time
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = "no Ray cluster can be started" if address is None else f"no Ray cluster at {address}"
        raise RemoteError(f"{what}: {said}", hint=_START) from error


_START = "`ray start --head` starts one; --ray without an address uses one for this machine alone"


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    with _translated(address):
        found = re.fullmatch(r"(?:ray://)?\[?([^\]/]+?)\]?:([0-9]{1,5})", _resolved(address))
        if found is not None:
            socket.create_connection((found[1], int(found[2])), _REACH_S).close()


def _resolved(address: str) -> str:
    """What `auto` stands for: a cluster that Ray has noted on this machine, and that may be gone."""
    if address != "auto":
        return address
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # another release of Ray: it finds out by itself
        return address
    return canonicalize_bootstrap_address(address) or address


def _ray() -> Any:
    logging.getLogger("ray").setLevel(logging.ERROR)  # it says much that is of no use to who builds
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError(
            "building on Ray needs the package ray", hint="pip install 'personavec[ray]'"
        ) from error
    return ray
