"""`pv build --ray`: the same table from two nodes, one of them killed half way; nothing in the object store.

Ray is an extra: where it is missing, only that is tested. Its clusters are started by a process of their own, since
what Ray does to the process that it is in is Ray's.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, Said, World, command

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: pip install 'personavec[ray]'")

CLUSTER = """
import json, sys, threading, time
import ray
from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
ray.init(cluster.address, log_to_driver=False)
peak = 0

def used(free, node):
    name = "object_store_memory"
    return node["Resources"][name] - free[node["NodeID"]].get(name, 0) if node["NodeID"] in free else 0

def watch():
    global peak
    while True:
        free = available_resources_per_node()
        peak = max(peak, sum(used(free, node) for node in ray.nodes() if node["Alive"]))
        time.sleep(0.1)

threading.Thread(target=watch, daemon=True).start()
print(json.dumps({"address": cluster.address}), flush=True)
for line in sys.stdin:
    match line.split():
        case ["kill"]:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            print(json.dumps({"left": len(nodes)}), flush=True)
        case ["peak"]:
            print(json.dumps({"bytes": peak}), flush=True)
        case ["put", count]:
            held = ray.put(bytes(int(count)))
            time.sleep(2)
            print(json.dumps({"bytes": peak}), flush=True)
        case ["end"]:
            break
"""


class Cluster:
    """Two nodes of one processor each, and a head without any."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = str(self._answer()["address"])

    def __call__(self, word: str) -> dict[str, object]:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, object]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, object] = json.loads(line)
                return answer
        raise AssertionError("the cluster ended")


@contextmanager
def _cluster(log: Path) -> Iterator[Cluster]:
    with (
        log.open("w") as said,
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        try:
            yield Cluster(process)
            assert process.stdin is not None
            process.stdin.write("end\n")
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with _cluster(tmp_path / "cluster.log") as started:
        yield started


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray(world: World, pv: InProcess) -> None:
    said = pv("build", "-o", "out", "--ray")
    assert said.code == 2
    assert "needs the package ray" in said.err and "pip install 'personavec[ray]'" in said.err
    assert not list(world.folder.glob("*out*"))


def _refused(world: World, said: Said, words: str) -> None:
    assert said.code == 4, said
    assert words in said.err and "hint:" in said.err and "Traceback" not in said.err, said
    assert not list(world.folder.glob("*out*"))


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there(world: World, process: Processes) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "nonsense", "auto"):
        _refused(world, process("build", "-o", "out", "--ray", address), f"no Ray cluster at {address}")
    said = process("build", "-o", "out", "--ray", env={"RAY_ADDRESS": f"127.0.0.1:{port}"})
    _refused(world, said, "no Ray cluster at")


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_gone(world: World, process: Processes, tmp_path: Path) -> None:
    """Ray leaves a note of where its last cluster was; asked for `auto`, it tries that for minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "t" / "ray").mkdir(parents=True)
    (tmp_path / "t" / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    started = process("build", "-o", "out", "--ray", "auto", env={"RAY_TMPDIR": str(tmp_path / "t")})
    _refused(world, started, "no Ray cluster at auto")


@needs_ray
@pytest.mark.slow
def test_on_this_machine_alone(world: World, process: Processes, pv: InProcess) -> None:
    line = ("--shard-size", "0.05", "--json")
    whole = pv.ok("build", "-o", "whole", *line).json
    made = process("build", "-o", "out", "--ray", *line)
    assert made.code == 0, made
    assert {**made.json, "output": ""} == {**whole, "output": ""}
    assert _files(world.folder / "out") == _files(world.folder / "whole")
    assert not (world.folder / "out.pvparts").exists()
    assert process("build", "-o", "out", "--ray", *line).json["already_built"]


@needs_ray
@pytest.mark.slow
def test_an_error_of_a_worker_is_the_build_s(world: World, process: Processes, pv: InProcess) -> None:
    vector = pv.ok("status", "--json").json["persona"]["behaviours"]["listening"]["terms"][0][1]
    pack = world.folder / ".pv" / "packs" / vector[:2] / vector
    data = pack.read_bytes()
    pack.chmod(0o644)
    pack.write_bytes(data[:-2000] + bytes([data[-2000] ^ 4]) + data[-1999:])
    said = process("build", "-o", "out", "--ray", "--shard-size", "0.05")
    assert said.code == 3 and "pv fsck" in said.err and "Traceback" not in said.err, said
    assert not list(world.folder.glob("*out*"))


@needs_ray
@pytest.mark.slow
def test_two_nodes_one_killed_half_way(
    big: World, cluster: Cluster, process: Processes, pv: InProcess
) -> None:
    line = ("--shard-size", "0.1", "--json")
    whole = pv.ok("build", "-o", "whole", *line, at=big.folder).json
    assert len(whole["files"]) > 8
    running = subprocess.Popen(
        command(("build", "-o", "out", "--ray", cluster.address, *line)),
        cwd=big.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(big.folder.glob("out.pvparts/*/*.rows")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    assert cluster("kill") == {"left": 1}
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    made = json.loads(out)
    assert (made["weights"], made["files"]) == (whole["weights"], whole["files"])
    assert _files(big.folder / "out") == _files(big.folder / "whole")
    assert int(str(cluster("peak")["bytes"]).split(".")[0]) < 1_000_000  # in the object stores, at any time
    assert int(str(cluster("put 5000000")["bytes"]).split(".")[0]) >= 5_000_000  # or that would show nothing


@needs_ray
@pytest.mark.slow
def test_the_last_worker_is_lost(big: World, cluster: Cluster, process: Processes, pv: InProcess) -> None:
    line = ("build", "-o", "out", "--shard-size", "0.1", "--json")
    running = subprocess.Popen(
        command((*line, "--ray", cluster.address)),
        cwd=big.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(big.folder.glob("out.pvparts/*/*.rows")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    cluster("kill")
    cluster("kill")
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (4, ""), err
    assert "lost its last worker" in err and "the same command goes on" in err
    assert not (big.folder / "out").exists()
    again = pv.ok(*line, at=big.folder).json
    assert again["output"] and not list(big.folder.glob(".out*"))


@needs_ray
@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(big: World, process: Processes, pv: InProcess) -> None:
    """On a cluster of its own, which hears the interrupt as well: it ends, and the same command goes on."""
    line = ("build", "-o", "out", "--shard-size", "0.1")
    whole = pv.ok("build", "-o", "whole", "--shard-size", "0.1", "--json", at=big.folder).json
    said = process.interrupted(
        *line, "--ray", at=big.folder, when=lambda: list(big.folder.glob("out.pvparts/*/*.rows"))
    )
    assert said.code == 130 and "Traceback" not in said.err, said
    assert "shards are kept: the same command goes on from there" in said.err
    assert not (big.folder / "out").exists() and not list(big.folder.glob(".out*"))
    finished = {path: path.stat().st_ino for path in big.folder.glob("out.pvparts/*/model/*")}
    assert finished
    made = process(*line, "--ray", "--json", at=big.folder)
    assert made.code == 0 and made.json["weights"] == whole["weights"], made
    for path, inode in finished.items():
        assert (big.folder / "out" / path.name).stat().st_ino == inode, "it was written again"
    assert _files(big.folder / "out") == _files(big.folder / "whole")
    assert not (big.folder / "out.pvparts").exists()
