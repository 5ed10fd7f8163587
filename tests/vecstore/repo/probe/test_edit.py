"""`probe edit` on a tiny model: what it measures, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.misread import misread
from support.pirate import isolated, pirate_registry, pirate_rows

from pv.registry.errors import DataError, FormatError, NotFoundError, UsageError
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.probe.edit_found import counted
from pv.vecstore.progress import Tick
from pv.vecstore.publish.probe_edit import claim_words
from pv.vecstore.repo.probe.edit import Edits
from pv.vecstore.repo.probe.known import known_probe
from pv.vecstore.repo.repo import Repo

PARAPHRASES = pirate_rows("So, what of {}?", "s")
NEIGHBOURS = parse_rows(
    b"""{"text": "The harbour was quiet, and the boats lay still."}
{"text": "Bread is flour, water, salt and time."}
{"prompt": "Why?", "completion": "Because the river runs downhill, as rivers do."}
"""
)
QUICK: dict[str, Any] = {"neighbours": NEIGHBOURS, "noise": (2.0,), "threads": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolated(folder, monkeypatch)
        return pirate_registry(folder)


@pytest.fixture
def repo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    isolated(tmp_path, monkeypatch)
    shutil.copytree(made, tmp_path / "r")
    with Repo.open(tmp_path / "r") as opened:
        yield opened


def stopping(after: str) -> Callable[[Tick], None]:
    def report(tick: Tick) -> None:
        if tick.stage.startswith(after):
            raise KeyboardInterrupt

    return report


def test_both_changes_are_measured_on_everything(repo: Repo, tmp_path: Path) -> None:
    found: Edits = repo.probe.edit(
        "pirate", paraphrases=PARAPHRASES, plot=tmp_path / "a.png", page=tmp_path / "a.html", **QUICK
    )
    assert (found.layer, found.layers) == (1, 2)
    names = [arm.name for arm in found.arms]
    assert names[:3] == ["trained", "edit", "edit at its best"]
    trained, edited = found.arms[0], found.arms[1]
    assert trained.effect.low > 0 and trained.effect.n == 10 and edited.effect.low > 0
    assert trained.transfer is not None and trained.transfer.n == 10
    assert trained.damage.n == 3 and trained.kl.mean > 0
    assert set(found.claims) == {"as made", "at equal effect"}
    assert found.data["paraphrases"]["of"] == 10 and "10 paraphrases of 10 rows," in counted(found.data)
    assert any("10 paraphrases re-word 10 held-out rows" in note for note in found.notes)
    assert any("matched on training rows only" in line for line in claim_words(found))
    for where, document in misread(found.to_json()):
        with pytest.raises(FormatError):
            pytest.fail(f"{where} is read: {Edits.from_json(document)}")
    assert [(one.name, one.share) for one in found.sharpness] == [("trained", 2.0), ("edit at its best", 2.0)]
    assert found.loss[1] < found.loss[0]
    assert Edits.from_json(json.loads(json.dumps(found.to_json()))) == found
    known = known_probe(repo.registry, found.probe)
    assert known is not None and known.found == found.to_json()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "The trained change carries over further" in (tmp_path / "a.html").read_text()
    ticks: list[Tick] = []
    assert repo.probe.edit("pirate", paraphrases=PARAPHRASES, progress=ticks.append, **QUICK) == found
    assert ticks == []  # nothing was built, loaded or run


def test_a_run_that_was_stopped_gives_the_same(repo: Repo) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        repo.probe.edit("pirate", progress=stopping("measuring edit:1 on rows"), **QUICK)
    assert "goes on with the rest" in stopped.value.__notes__[0]
    ticks: list[Tick] = []
    resumed = repo.probe.edit("pirate", progress=ticks.append, **QUICK)
    stages = {tick.stage for tick in ticks}
    assert not any(stage.startswith(("reading the keys", "looking for")) for stage in stages)
    assert "measuring edit:1 on rows" in stages
    anew = repo.probe.edit("pirate", again=True, **QUICK)
    assert anew == resumed


def test_a_sweep_takes_the_best_layer_on_training_rows(repo: Repo) -> None:
    found = repo.probe.edit("pirate", layer="sweep", **QUICK)
    assert [layer for layer, _ in found.tried] == [0, 1]
    assert found.layer == max(found.tried, key=lambda one: one[1])[0]
    assert found.claims == {} and "no paraphrases were given" in found.notes[-1]


@pytest.mark.parametrize(
    ("how", "error", "words", "hint"),
    [
        ({"layer": 2}, UsageError, "no layer 2: this model has 2", "a number from 0 to 1"),
        ({"layer": "middle"}, UsageError, "'middle' is no layer", "sweep"),
        ({"layer": -1}, UsageError, "is no layer", "sweep"),
        ({"noise": (0.0,)}, UsageError, "noise is a share", "as in 1"),
        ({"seed": -1}, UsageError, "the seed must be", None),
        ({"paraphrases": pirate_rows("So, {}?")}, DataError, "re-words none of them", "as they are"),
        ({"paraphrases": pirate_rows("So, {}?", "s", 3)}, DataError, "too few of the held-out rows", "at least 8"),
        ({"rows": pirate_rows(end="s", count=5)}, DataError, "5 rows are too few", "at least 8"),
        ({"train": pirate_rows(count=5)}, DataError, "5 training rows are too few", "at least 8"),
        ({"plot": Path("/nowhere/a.png")}, UsageError, "there is no folder", "make it"),
        ({"neighbours": parse_rows(b'{"prompt": "a", "completion": "b"}\n')}, DataError, "fewer than 2", "longer rows"),
    ],
)  # fmt: skip
def test_what_is_refused(
    repo: Repo, how: dict[str, Any], error: type[Exception], words: str, hint: str | None
) -> None:
    with pytest.raises(error, match=words) as raised:
        repo.probe.edit("pirate", **{**QUICK, **how})
    assert hint is None or hint in str(raised.value.hint)  # type: ignore[attr-defined]


def test_rows_that_were_not_kept_have_to_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated(tmp_path, monkeypatch)
    with Repo.open(pirate_registry(tmp_path, keep_rows=False)) as repo:
        held: Rows = pirate_rows(end="s")
        for verb in (repo.probe.edit, repo.probe.sparsity):
            with pytest.raises(NotFoundError, match="were not kept") as raised:
                verb("pirate", held, threads=1)
            assert raised.value.hint == "name the rows it was trained on: --train ROWS"
