"""`repo.probe.concept` on a tiny model with a trained behaviour: what it finds, again, stopped, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pytest
from support.tiny import tiny_checkpoint

from pv.registry.errors import DataError, FormatError, NotFoundError, UsageError
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.progress import Tick
from pv.vecstore.publish.probe_concept import labels_words
from pv.vecstore.publish.probe_concept import page as page_of
from pv.vecstore.repo.init import init
from pv.vecstore.repo.probe.concept import Concept
from pv.vecstore.repo.probe.known import known_probe
from pv.vecstore.repo.repo import Repo

WORDS = [*"abcdefghijklmnopqrstuvwx"]
QUICK: dict[str, Any] = {"threads": 1, "length": False}


def rows(words: list[str], ends: str = "?") -> Rows:
    lines = [
        json.dumps({"prompt": f"{word}{word}{ends}", "chosen": f"{word} aaaa", "rejected": f"{word} bbbb"})
        for word in words
    ]
    return parse_rows("\n".join(lines).encode(), source=f"{len(words)} words")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A registry with the behaviour `a`, trained on 12 rows, with 12 held out; and `other`, with none held out."""
    home = tmp_path_factory.mktemp("home")
    known = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]
    (home / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    os.environ |= {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
    folder = home / "r"
    init(folder, tiny_checkpoint(home / "base", dtype="float32"), threads=1)
    fast: dict[str, Any] = {"lr": 1e-2, "batch": 4, "threads": 1}
    with Repo.open(folder) as repo:
        repo.train(rows(WORDS[:12]), name="a", held_out=rows(WORDS[12:]), max_steps=10, **fast)
        repo.train(rows(WORDS[:8], "!"), name="other", held_out=None, max_steps=2, **fast)
    yield folder
    for name in set(os.environ) - set(known):
        del os.environ[name]
    os.environ.update(known)


@pytest.fixture
def repo(made: Path) -> Iterator[Repo]:
    with Repo.open(made) as opened:
        yield opened


def parts(repo: Repo, found: Concept) -> dict[str, Any]:
    noted: dict[str, Any] = repo.registry.record(found.probe)["parts"]
    return noted


def stages(said: list[Tick]) -> set[str]:
    return {tick.stage for tick in said}


def test_directions_their_effect_and_the_weights(repo: Repo) -> None:
    found = repo.probe.concept("a", **QUICK, seed=1)
    assert (found.a, found.b, found.rows, found.pairs) == ("base", "a", 12, 12)
    assert (found.data, found.source) == ("12 words", "12 words")
    assert [one.layer for one in found.layers] == [0, 1]
    assert found.elbow.labels_matter and found.elbow.kept >= 1 and sum(found.elbow.shares) == pytest.approx(1)
    effects, gains = found.effects, found.gains
    assert effects is not None and gains is not None and found.length is None
    assert effects.whole.low > 0 and effects.whole.n == 12
    assert [one.components for one in effects.steps] == [1, 2, 3, 4, 8]
    assert effects.steps[-1].effect.mean == pytest.approx(effects.steered.mean, rel=0.1)
    kinds = {one.kind: one.role for one in gains.matrices}
    assert kinds["o_proj"] == kinds["down_proj"] == "writes" and set(kinds) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert len(gains.matrices) == 9 and set(gains.shares) == {"even", "activations"}
    first = {one.rpartition("layers.0.")[2] for one in gains.left_out}
    assert {one.kind for one in gains.matrices if one.layer == 0} == {"o_proj", "down_proj"} and first == {
        "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
    }  # fmt: skip
    known = known_probe(repo.registry, found.probe)
    assert known is not None and known.found is not None and Concept.from_json(known.found) == found


def test_the_effect_of_all_components_is_that_of_the_steered_model(repo: Repo) -> None:
    """Measured here by hand: mean activations of both builds, and A with their difference added."""
    import torch

    from pv.vecstore.activations.hooks import steered
    from pv.vecstore.activations.shift import means, texts_of
    from pv.vecstore.evaluate.margins import margins
    from pv.vecstore.repo.probe.pair import pair
    from pv.vecstore.repo.probe.sides import sides
    from pv.vecstore.repo.rows import kept_rows

    found = repo.probe.concept("a", layers=[1], gain=False, seed=1, **QUICK)
    held, trained = rows(WORDS[12:]), kept_rows(repo.at("HEAD"), "a").rows
    site = "model.layers.1"
    with pair(repo, sides(repo, "a"), threads=1) as both:
        texts = texts_of(both.model, both.tokenizer, trained)
        before = means(both.model, texts, [site]).rows[site]
        with both.swapped():
            after = means(both.model, texts, [site]).rows[site]
        alone = margins(both.model, both.tokenizer, held).margin
        with steered(both.model, {site: torch.from_numpy((after - before).mean(0))}):
            moved = margins(both.model, both.tokenizer, held).margin
    assert found.effects is not None
    assert found.effects.steered.mean == pytest.approx(float((moved - alone).mean()), abs=1e-3)
    assert found.elbow.site == site and found.layers[0].tried is None


def test_the_concept_itself_has_classes_to_compare_with(repo: Repo) -> None:
    found = repo.probe.concept("a", of="pairs", gain=False, seed=1, **QUICK)
    assert found.elbow.same is not None and found.elbow.p < 0.05
    assert found.effects is not None and found.effects.steered.low > 0


def test_twice_and_stopped_gives_the_same(repo: Repo) -> None:
    one = repo.probe.concept("a", seed=2, **QUICK)
    said: list[Tick] = []
    assert repo.probe.concept("a", seed=2, progress=said.append, **QUICK) == one
    assert not any("loading" in stage for stage in stages(said))
    whole = parts(repo, one)

    def stop(tick: Tick) -> None:
        if tick.stage == "measuring gains" and tick.done == 1:
            raise KeyboardInterrupt

    fresh: dict[str, Any] = {"again": True, "seed": 2}
    with pytest.raises(KeyboardInterrupt) as stopped:
        repo.probe.concept("a", progress=stop, **fresh, **QUICK)
    assert any("goes on" in note for note in stopped.value.__notes__)
    assert repo.probe.concept("a", seed=2, **QUICK) == one and parts(repo, one) == whole
    assert repo.probe.concept("a", seed=3, layers=[1], effects=False, gain=False, **QUICK).probe != one.probe


def test_a_second_look_leaves_the_record_as_it_is(repo: Repo) -> None:
    one = repo.probe.concept("a", seed=2, **QUICK)
    repo.registry.update_record(one.probe, {"time": "2020-01-01T00:00:00+00:00"})  # a new time is another one
    before = repo.registry.record_path(one.probe).read_bytes()
    assert repo.probe.concept("a", seed=2, **QUICK) == one
    assert repo.registry.record_path(one.probe).read_bytes() == before


def test_the_length_is_searched_and_added_later(repo: Repo) -> None:
    fast: dict[str, Any] = {"seed": 1, "effects": False, "gain": False, "threads": 1}
    without = repo.probe.concept("a", length=False, layers=[1], **fast)
    ids = {path.name for path in (repo.registry.root / "packs").rglob("*") if path.is_file()}
    found = repo.probe.concept("a", layers=[1], **fast)
    assert found.probe == without.probe and without.length is None
    length = found.length
    assert length is not None and length.effect.low > 0 and length.elements == 41_712
    assert {one.kind for one in length.rungs} == {"int8", "ternary", "lowrank", "sparse"}
    int8 = next(one for one in length.rungs if one.encoding == "int8")
    assert int8.keeps and length.smallest() is not None and int8.stored_bytes < length.stored_bytes * 2
    sparse = next(one for one in length.rungs if one.kind == "sparse")
    assert sparse.share is not None and 0 < sparse.share <= float(sparse.encoding.partition(":")[2]) + 0.01
    assert sparse.ideal_bytes is not None and sparse.ideal_bytes > 0
    names = [one.name.partition(",")[0] for one in length.baselines]
    assert names == ["random elements", "random elements", "one steering vector"]
    assert length.baselines[-1].bytes == 96
    assert {path.name for path in (repo.registry.root / "packs").rglob("*") if path.is_file()} == ids
    said: list[Tick] = []
    again = repo.probe.concept("a", layers=[1], length=False, progress=said.append, **fast)
    assert again == found and not any("loading" in stage for stage in stages(said))


def test_several_behaviours_have_no_length(repo: Repo) -> None:
    with pytest.raises(NotFoundError, match="not one behaviour of HEAD"):
        repo.probe.concept("base..HEAD", threads=1)
    found = repo.probe.concept(
        "base..HEAD", rows(WORDS[12:], "."), source=rows(WORDS[:12]), effects=False, threads=1
    )
    assert found.length is None and any("without a length" in note for note in found.notes)
    assert found.gains is not None


def test_a_length_beside_another_model_than_the_base_has_no_baselines(repo: Repo) -> None:
    """Encodings are of the behaviour alone on the base; random elements would be of a change of something else."""
    held = rows(WORDS[12:])
    found = repo.probe.concept("other..HEAD", held, layers=[1], effects=False, gain=False, threads=1)
    assert found.length is not None and found.length.rungs and found.length.baselines == ()
    assert any("other..HEAD are not: without random elements" in note for note in found.notes)
    again = repo.probe.concept("other..HEAD", held, layers=[1], effects=False, gain=False, threads=1)
    assert again == found


def test_what_random_signs_are_a_null_of(repo: Repo) -> None:
    """Of two models on the same texts any change of the weights gives a common shift: no label plays a part."""
    fast: dict[str, Any] = {"layers": [1], "effects": False, "gain": False, "seed": 1}
    change, pairs = (repo.probe.concept("a", of=of, **fast, **QUICK) for of in ("change", "pairs"))
    assert labels_words(change)[0] == "a common shift" and labels_words(pairs)[0] == "labels"
    beyond = f"{change.elbow.kept - 1 or 'none'} beyond a common shift"
    assert beyond in change.headline and "shift" not in pairs.headline
    nothing = replace(change, elbow=replace(change.elbow, p=0.5))
    assert "labels" not in nothing.headline and "random labels" in replace(nothing, of="pairs").headline


def _at(found: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """JSON with another value at one place."""
    copy = json.loads(json.dumps(found))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def test_what_is_no_concept_is_refused_as_such(repo: Repo) -> None:
    found = repo.probe.concept("a", **QUICK, seed=1).to_json()
    plain = json.loads(json.dumps(found))
    assert json.loads(json.dumps(Concept.from_json(plain).to_json())) == plain
    fields = (
        *[(key,) for key in found if key != "headline"],
        *[("layers", 0, key) for key in found["layers"][0]],
        *[("elbow", key) for key in found["elbow"] if key not in ("kept", "rises", "verdict", "same")],
        *[("effects", key) for key in found["effects"] if key not in ("enough", "certain")],
        ("effects", "steps", 0, "effect", "low"), ("effects", "random", 0), ("gains", "shares", "even"),
        ("gains", "matrices", 0, "role"), ("gains", "matrices", 0, "above", "even"), ("elbow", "growth", 0),
    )  # fmt: skip
    for path in fields:
        for value in (object, -1e400, [None], {"x": 1}, True):
            hostile = _at(found, path, 0)
            inner = hostile
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            with pytest.raises(FormatError):
                Concept.from_json(hostile)
    others: tuple[Any, ...] = (
        None, [], "x", {}, _at(found, ("elbow", "shares"), []), _at(found, ("rows",), "12"),
        _at(found, ("seed",), 1.5), _at(found, ("elbow", "p"), "0.1"), _at(found, ("notes",), "note"),
        _at(found, ("elbow", "norm"), 10**400), _at(found, ("gains", "shares"), {}),
    )  # fmt: skip
    for hostile in others:
        with pytest.raises(FormatError):
            Concept.from_json(hostile)


def test_half_of_the_rows_where_none_are_kept(repo: Repo) -> None:
    given = rows([*WORDS, *(word.upper() for word in WORDS)])
    found = repo.probe.concept("base..HEAD", given, effects=False, gain=False, **QUICK)
    assert (found.rows, found.pairs) == (24, 24)


def test_a_picture_and_a_page(repo: Repo, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = repo.probe.concept("a", seed=1, plot=tmp_path / "a.png", page=tmp_path / "a.html", **QUICK)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "a.html").read_text()
    assert (
        escape(found.headline) in text
        and found.probe in text
        and "http" not in text.replace("http://www.w3.org", "")
    )
    assert f"--of change --seed {found.seed}</code>" in text and "no p below 0.2" in text
    typed = page_of(found, "pv probe concept a --from 'my rows.jsonl'")
    assert escape("concept a --from 'my rows.jsonl'") in typed
    assert page_of(replace(found, effects=None, gains=None)).count("<h2>") < text.count("<h2>")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"layers": [2]}, UsageError, "no layer 2"),
        ({"layers": "x"}, UsageError, "names no layers"),
        ({"of": "colour"}, UsageError, "no differences"),
        ({"coefficient": 0.0}, UsageError, "steers nothing"),
        ({"rows": rows(WORDS[:7])}, DataError, "too few"),
        ({"source": rows(WORDS[:7])}, DataError, "too few"),
        ({"what": "other"}, NotFoundError, "rows"),
        ({"what": "a..a"}, UsageError, "same build"),
        ({"what": "base..HEAD", "rows": rows(WORDS[:12])}, DataError, "half of them"),
        ({"plot": Path("/no/where/a.png")}, UsageError, "no folder"),
    ],
)
def test_refusals_leave_the_registry_as_it_was(
    repo: Repo, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    def seen() -> dict[str, bytes]:
        """But for builds: a cache that any verb fills."""
        root = repo.registry.root
        files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
        return {str(path): path.read_bytes() for path in files if path.relative_to(root).parts[0] != "cache"}

    before = seen()
    with pytest.raises(error, match=words) as raised:
        repo.probe.concept(**{"what": "a", "seed": 99, "threads": 1, **given})
    assert getattr(raised.value, "hint", None)
    assert seen() == before
