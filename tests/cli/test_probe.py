"""Probes that are noted: listed, shown and compared, whoever wrote the record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.commands import InProcess, World
from support.scripting import Answer, keeps_to_it

from pv.registry.errors import DataError, FormatError, NotFoundError, UnknownBehaviour, UsageError
from pv.vecstore.data.rows import parse_rows, read_rows
from pv.vecstore.repo.probe.diff import diff_probes
from pv.vecstore.repo.probe.known import known_probe, known_probes
from pv.vecstore.repo.probe.pair import pair
from pv.vecstore.repo.probe.record import ProbeRecord, going_on
from pv.vecstore.repo.probe.sides import probed_rows, seen_before, sides
from pv.vecstore.repo.repo import Repo


@pytest.fixture
def repo(world: World) -> Iterator[Repo]:
    with Repo.open(world.folder) as opened:
        yield opened


def noted(repo: Repo, what: str = "listening", found: dict[str, Any] | None = None, **settings: Any) -> str:
    asked = sides(repo, what)
    record = ProbeRecord.open(repo, "heads", asked, probed_rows(repo, asked, None, fewest=2), settings)
    record.part("share", lambda: 0.5)
    if found is not None:
        record.note(found)
    return record.id


# Sides


def test_a_behaviour_is_compared_with_the_base(repo: Repo) -> None:
    asked = sides(repo, "listening")
    assert (asked.a.name, asked.b.name, asked.behaviour) == ("base", "listening", "listening")
    assert asked.a.persona.is_base and asked.b.persona.output.dtype == "fp32"
    assert sides(repo, "base..HEAD:listening").b.build == asked.b.build


def test_two_revisions_and_what_differs_in_them(repo: Repo, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.5")
    asked = sides(repo, "HEAD~1..HEAD")
    assert asked.behaviour == "listening" and asked.a.build != asked.b.build
    assert sides(repo, "HEAD~1..").b.build == asked.b.build
    assert sides(repo, "HEAD..base").behaviour is None  # b has none


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("HEAD..HEAD", UsageError),
        ("base", UsageError),
        ("HEAD...HEAD~1", UsageError),
        ("HEAD:nothing", UnknownBehaviour),
    ],
)
def test_what_is_no_pair_of_builds(repo: Repo, what: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        sides(repo, what)


def test_rows_are_those_that_were_held_out(repo: Repo) -> None:
    asked = sides(repo, "listening")
    assert len(probed_rows(repo, asked, None, fewest=2)) == 4
    with pytest.raises(DataError, match="too few"):
        probed_rows(repo, asked, None, fewest=5)
    given = parse_rows(b'{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(DataError, match="no 'rejected'"):
        probed_rows(repo, asked, given, fewest=1)
    with pytest.raises(NotFoundError) as raised:
        probed_rows(repo, sides(repo, "HEAD..base"), None, fewest=2)
    assert "--data" in str(raised.value.hint)


def test_rows_that_were_trained_on_are_named(repo: Repo, world: World) -> None:
    asked = sides(repo, "listening")
    assert seen_before(repo, asked, probed_rows(repo, asked, None, fewest=2)) == ()
    (note,) = seen_before(repo, asked, read_rows(world.rows))
    assert "6 of 6 rows are rows that listening was trained on" in note
    assert seen_before(repo, sides(repo, "listening..base"), read_rows(world.rows)) == ()


# Both in memory


def test_swapped_has_bs_weights_inside_and_as_own_again(repo: Repo) -> None:
    import torch

    with pair(repo, sides(repo, "listening"), threads=1) as both:
        before = {name: parameter.clone() for name, parameter in both.model.named_parameters()}
        assert any(not torch.equal(before[name], both.other[name]) for name in before)
        with pytest.raises(KeyError), both.swapped():
            assert all(torch.equal(own, both.other[name]) for name, own in both.model.named_parameters())
            raise KeyError
        assert all(torch.equal(own, before[name]) for name, own in both.model.named_parameters())


# Records


def test_what_is_noted_is_not_measured_again(repo: Repo) -> None:
    calls: list[int] = []

    def opened(again: bool = False, **settings: Any) -> ProbeRecord:
        asked = sides(repo, "listening")
        return ProbeRecord.open(
            repo, "heads", asked, probed_rows(repo, asked, None, fewest=2), settings, again=again
        )

    def measure() -> float:
        calls.append(1)
        return 0.1 + 0.2

    first = opened(seed=0)
    assert not first.known("x") and first.part("x", measure) == 0.1 + 0.2 == first.part("x", measure)
    second = opened(seed=0)
    assert second.id == first.id and second.known("x") and second.part("x", measure) == 0.1 + 0.2
    assert len(calls) == 1
    assert opened(seed=1).id != first.id and not opened(seed=1).known("x")
    opened(seed=0, again=True).part("x", measure)
    assert len(calls) == 2


def test_a_stopped_probe_is_listed_and_goes_on(repo: Repo, pv: InProcess) -> None:
    identity = noted(repo, seed=3)
    known = known_probe(repo.registry, identity)
    assert known is not None and known.found is None and known.rows[0]["n"] == 4
    said = pv("-q", "probe", "list", "--json")
    assert keeps_to_it(said, "probe list") == []
    (row,) = said.json["probes"]
    assert row["id"] == identity and "found" not in row and row["time"] is None
    assert identity[:12] in pv.ok("probe", "list").out and "stopped" in pv.ok("probe", "list").out
    assert "goes on with the rest" in pv.ok("show", identity[:8]).out


def test_a_record_that_somebody_else_wrote_is_no_probe(repo: Repo, pv: InProcess) -> None:
    good = noted(repo)
    others: list[dict[str, Any]] = [{"probe": 1}, {"probe": {"kind": "heads"}}, {"probe": {"kind": "x" * 9}}]
    for at, value in enumerate(others):
        repo.registry.update_record(f"{at:064x}", value)
    assert [one.id for one in known_probes(repo.registry)] == [good]
    repo.registry.record_path(good).write_bytes(b"{")
    assert list(known_probes(repo.registry)) == []
    assert pv.ok("probe", "list").out.strip() == "no probes"


def test_a_result_in_another_form_is_said_to_be_one(repo: Repo, pv: InProcess) -> None:
    identity = noted(repo, found={"verdict": 7})
    said = pv("show", identity[:10])
    assert said.code == 3 and "writes it anew" in said.err


def test_a_record_under_another_id_is_no_probe(repo: Repo) -> None:
    """Whoever wrote it: what it says it answers is what its id is of."""
    record = repo.registry.record(noted(repo, found={"verdict": "localized"}))
    repo.registry.update_record("0" * 64, record)
    assert known_probe(repo.registry, "0" * 64) is None
    for key, value in (("kind", "neurons"), ("version", 2), ("settings", {"seed": 1}), ("rows", [])):
        repo.registry.update_record("1" * 64, {**record, "probe": {**record["probe"], key: value}})
        assert known_probe(repo.registry, "1" * 64) is None


def test_a_second_look_changes_nothing(repo: Repo) -> None:
    identity = noted(repo, found={"verdict": "localized", "n": 4})
    before = repo.registry.record_path(identity).read_bytes()
    assert noted(repo, found={"verdict": "localized", "n": 4}) == identity
    assert repo.registry.record_path(identity).read_bytes() == before
    noted(repo, found={"verdict": "distributed"})
    assert repo.registry.record(identity)["found"] == {"verdict": "distributed"}


def test_what_is_measured_anew_is_no_answer_until_it_is_done(repo: Repo) -> None:
    identity = noted(repo, found={"verdict": "localized"})
    asked = sides(repo, "listening")
    ProbeRecord.open(repo, "heads", asked, probed_rows(repo, asked, None, fewest=2), {}, again=True)
    known = known_probe(repo.registry, identity)
    assert known is not None and known.found is None and known.time is None


def test_a_number_that_is_none_is_said_to_be_one(repo: Repo) -> None:
    asked = sides(repo, "listening")
    record = ProbeRecord.open(repo, "heads", asked, probed_rows(repo, asked, None, fewest=2), {})
    with pytest.raises(DataError, match="not finite"):
        record.part("margins", lambda: [1.0, float("nan")])
    with pytest.raises(UsageError, match="seed"):
        ProbeRecord.open(repo, "heads", asked, probed_rows(repo, asked, None, fewest=2), {"seed": 1 << 63})


def test_ctrl_c_says_what_is_kept_if_anything_is(repo: Repo) -> None:
    asked = sides(repo, "listening")
    rows = probed_rows(repo, asked, None, fewest=2)
    record = ProbeRecord.open(repo, "heads", asked, rows, {})
    with pytest.raises(KeyboardInterrupt) as raised, going_on(record):
        raise KeyboardInterrupt
    assert not hasattr(raised.value, "__notes__")
    with pytest.raises(KeyboardInterrupt) as raised, going_on(record):
        record.part("share", lambda: 0.5)
        raise KeyboardInterrupt
    assert raised.value.__notes__ == ["what was measured is kept: the same command goes on with the rest"]


def test_only_what_was_noted_before_is_blamed(repo: Repo) -> None:
    """An error in what nobody noted is a bug in pv, and said to be one."""
    asked = sides(repo, "listening")
    rows = probed_rows(repo, asked, None, fewest=2)
    with pytest.raises(KeyError), going_on(ProbeRecord.open(repo, "heads", asked, rows, {})):
        raise KeyError("change")
    noted(repo)
    with (
        pytest.raises(FormatError, match="KeyError: 'change'") as raised,
        going_on(ProbeRecord.open(repo, "heads", asked, rows, {})),
    ):
        raise KeyError("change")
    assert "--again" in str(raised.value.hint)
    full = RuntimeError("DefaultCPUAllocator: can't allocate memory")  # that nobody noted
    with (
        pytest.raises(RuntimeError, match="allocate"),
        going_on(ProbeRecord.open(repo, "heads", asked, rows, {})),
    ):
        raise full


def test_a_record_that_is_damaged_says_so(repo: Repo, world: World, pv: InProcess) -> None:
    identity = noted(repo)
    file = world.folder / ".pv" / "records" / f"{identity}.json"
    file.write_bytes(file.read_bytes().replace(b"0.5", b"0.6"))
    said = pv("show", identity[:10])
    assert said.code == 3 and "is not a record" in said.err and "hint" in said.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--plot", "base.safetensors"), "no name for a picture"),
        (("--plot", "-"), "no name for a picture"),
        (("--page", "rows.jsonl"), "no name for a page"),
        (("--plot", "nowhere/x.png"), "there is no folder"),
        (("--page", "/proc/x.html"), "nothing can be written"),
        (("--plot", "folder.png"), "is no file"),
    ],
)
@pytest.mark.parametrize("kind", ["heads", "neurons", "concept", "edit", "sparsity"])
def test_an_output_is_refused_before_anything_is_measured(
    kind: str, options: tuple[str, ...], says: str, world: World, pv: InProcess
) -> None:
    (world.folder / "folder.png").mkdir()
    before = sorted((world.folder / ".pv" / "records").iterdir())
    said = pv("probe", kind, "listening", *options)
    assert said.code == 2 and says in said.err
    assert sorted((world.folder / ".pv" / "records").iterdir()) == before


def test_a_file_that_is_named_twice_does_not_count_twice(world: World, pv: InProcess) -> None:
    twice = ("--data", str(world.rows), "--data", str(world.rows))
    for kind in ("heads", "neurons", "concept", "edit", "sparsity"):
        said = pv("probe", kind, "listening", *twice)
        assert said.code == 2 and "the same row is in" in said.err and "name each row once" in said.err


# Two of them


def test_figures_of_one_name_keep_apart(repo: Repo) -> None:
    """Of several rungs of one kind none takes another's place."""

    def found(*kept: float) -> dict[str, Any]:
        rungs = [{"encoding": f"sparse:{k}", "kind": "sparse", "kept": k} for k in kept]
        return {
            "rungs": rungs,
            "noise": [{"what": "trained", "lost": k} for k in kept],
            "deep": {"a": {"b": {"c": kept[0]}}},
        }

    both = [
        known_probe(repo.registry, noted(repo, found=found(*kept), seed=kept[0])) for kept in ((1, 2), (3, 2))
    ]
    assert both[0] is not None and both[1] is not None
    diff = diff_probes(both[0], both[1])
    assert {(one.name, one.a, one.b) for one in diff.figures} == {
        ("noise trained lost", 1, 3), ("deep a b c", 1, 3),
    }  # fmt: skip
    assert diff.same == 3  # of sparse:2 what it is and what it kept, and the second noise


def test_figures_side_by_side(repo: Repo, pv: InProcess, answer: Answer) -> None:
    def found(shift: float) -> dict[str, Any]:
        interval = {"mean": shift, "low": shift - 0.1, "high": shift + 0.1, "n": 8}
        return {
            "verdict": "localized",
            "n": 8,
            "recovered": [{"k": 27, "share": interval}],
            "map": [[1.0, shift]],
        }

    one, other = noted(repo, found=found(0.2), seed=0), noted(repo, found=found(0.9), seed=1)
    diff = answer("diff", one, other)
    assert diff["asked"] == [{"name": "seed", "a": 0, "b": 1, "apart": False}]
    assert [(f["name"], f["apart"]) for f in diff["figures"]] == [("recovered k 27 share", True)]
    text = pv.ok("diff", one[:10], other[:10]).out
    assert "0.2 [0.1, 0.3]" in text and "do not overlap" in text
    assert "every figure is the same" in pv.ok("diff", one, one, "--exit-code").out
    assert pv("diff", one, other, "--exit-code").code == 1
    assert pv("diff", one, other, "--stat").code == 2
    mixed = pv("diff", one, "HEAD")
    assert mixed.code == 2 and "is a probe" in mixed.err
    assert pv("diff", one, noted(repo, seed=9)).code == 5  # it was stopped
