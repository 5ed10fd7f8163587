"""pv as others get it: what the wheel and the sdist hold, and that pv installed from each, or editable, runs.

Nothing is fetched. Each install goes into a new environment that borrows the packages of the one that runs the
tests, but not its pv. It is started in an empty folder, so that nothing is found because it lies next to it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from support import ROOT

# Where each folder of the tree goes in the package.
PLACES = {"api": "pv", "cli": "pv/cli", "registry": "pv/registry", "vecstore": "pv/vecstore"}
LINKS = {
    "__init__.py": "../../api/__init__.py",
    "__main__.py": "../../api/__main__.py",
    "py.typed": "../../api/py.typed",
    "cli": "../../cli",
    "registry": "../../registry",
    "vecstore": "../../vecstore",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = PROJECT["version"]
INFO = f"personavec-{VERSION}.dist-info/"
WAYS = ["wheel", "sdist", "editable checkout", "editable sdist"]

LOOK = """
import json, pathlib, sys
import pv
import pv.cli.main, pv.registry.registry, pv.vecstore.repo.repo
print(json.dumps([sys.prefix, str(pathlib.Path(pv.__file__).resolve()), pv.__version__]))
"""


@dataclass(frozen=True)
class Built:
    """Both distributions of this tree, the sdist unpacked, and what a wheel made from that is."""

    wheel: Path
    sdist: Path
    unpacked: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    sdist = build(SdistBuilder(str(ROOT)), tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / f"personavec-{VERSION}"
    subprocess.run(["make", "--silent", "links"], cwd=unpacked, env=clean(folder), check=True)
    return Built(
        build(WheelBuilder(str(ROOT)), tmp_path_factory.mktemp("wheel")),
        sdist,
        unpacked,
        build(WheelBuilder(str(unpacked)), tmp_path_factory.mktemp("wheel-of-sdist")),
    )


def build(builder: SdistBuilder | WheelBuilder, folder: Path) -> Path:
    (made,) = builder.build(directory=str(folder), versions=["standard"])
    return Path(made)


def clean(home: Path) -> dict[str, str]:
    """The environment of someone who set nothing: no PYTHONPATH, no settings of pip, nothing of a make above."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PIP_CONFIG_FILE": os.devnull}


def in_tree() -> set[str]:
    """The files of the package, by the names that they have in a wheel."""
    return {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in PLACES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    names = contents(built.wheel).keys()
    assert {name for name in names if not name.startswith(INFO)} == in_tree()
    assert {"pv/__init__.py", "pv/__main__.py", "pv/py.typed"} <= names
    assert {name.removeprefix(INFO) for name in names if name.startswith(INFO)} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


def test_the_wheel_holds_plain_files(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        entries = archive.infolist()
    # What the build itself wrote (METADATA and the like) has permissions, but no kind.
    assert {stat.S_IFMT(entry.external_attr >> 16) for entry in entries} <= {stat.S_IFREG, 0}


def test_the_sdist_makes_the_same_wheel(built: Built) -> None:
    assert contents(built.wheel_of_sdist) == contents(built.wheel)


def test_the_sdist_holds_plain_files_in_one_folder(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    assert {member.name.split("/")[0] for member in members} == {f"personavec-{VERSION}"}


@pytest.mark.parametrize("folder", [*PLACES, "tests", "examples", "docs", "benchmarks"])
def test_the_sdist_holds_what_its_tests_need(built: Built, folder: str) -> None:
    """A line of .gitignore that happens to fit a folder of ours would leave that folder out."""
    ours = {
        path.relative_to(ROOT)
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".json", ".jsonl", ".typed"} or path.name == "DIGESTS"
    }
    assert ours
    assert {path for path in ours if not (built.unpacked / path).is_file()} == set()


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"])
def test_the_sdist_holds_what_sets_it_up(built: Built, name: str) -> None:
    assert (built.unpacked / name).read_bytes() == (ROOT / name).read_bytes()


def test_every_entry_of_the_editable_package_leads_into_the_tree() -> None:
    links = entries(ROOT)
    assert {name: path.readlink().as_posix() for name, path in links.items()} == LINKS
    for path in links.values():
        assert path.resolve(strict=True).is_relative_to(ROOT)


def test_make_gives_an_sdist_the_same_links(built: Built) -> None:
    assert {name: path.readlink().as_posix() for name, path in entries(built.unpacked).items()} == LINKS


def entries(tree: Path) -> dict[str, Path]:
    return {path.name: path for path in (tree / ".dev" / "pv").iterdir() if path.name != "__pycache__"}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_installed_and_runs(built: Built, tmp_path: Path, way: str) -> None:
    wanted: Mapping[str, list[Path | str]] = {
        "wheel": [built.wheel],
        "sdist": [built.sdist],
        "editable checkout": ["--editable", ROOT],
        "editable sdist": ["--editable", built.unpacked],
    }
    folder, empty, env = tmp_path / "venv", tmp_path / "empty", clean(tmp_path)
    empty.mkdir()
    python = new_environment(folder)
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--no-compile"]
    # The borrowed packages have a pv among them, which is to stay: hence --ignore-installed.
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *offline, "--ignore-installed", *wanted[way]],
        cwd=empty, env=env, check=True,
    )  # fmt: skip

    def said(*command: Path | str) -> str:
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    prefix, file, number = json.loads(said(python, "-c", LOOK))
    home = {"editable checkout": ROOT / "api", "editable sdist": built.unpacked / "api"}.get(way, folder)
    assert Path(prefix) == folder
    assert Path(file).is_relative_to(home.resolve())
    assert number == VERSION
    for command in ([python, "-m", "pv"], [folder / "bin" / "pv"], [folder / "bin" / "personavec"]):
        assert said(*command, "--version") == f"pv {VERSION}\n"
    assert list(empty.iterdir()) == []


def new_environment(folder: Path) -> Path:
    """A new virtual environment's python. What is installed here is importable there, after its own."""
    venv.create(folder, symlinks=True, with_pip=False)
    own = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own / "zz_borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    return folder / "bin" / "python"
