"""pv add NAME='tsv(a, b)': a new vector of several, what is kept of how it came to be, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from support.commands import InProcess, World, tensors

from pv.vecstore.repo.repo import Repo


@pytest.fixture
def two(world: World, pv: InProcess) -> None:
    pv.ok("commit", world.tuned, "--as", "tuned")


def moved(pv: InProcess, world: World, folder: Path, *behaviours: str) -> dict[str, np.ndarray]:
    """{tensor: built - base} of some of the behaviours, in fp32."""
    for name in pv.ok("show", "--json").json["persona"]["behaviours"]:
        if name not in behaviours:
            pv.ok("drop", name)
    pv.ok("build", "-o", folder, "--dtype", "fp32")
    pv.ok("undo")
    before, after = tensors(world.base), tensors(folder)
    return {
        name: np.frombuffer(after[name][2], np.float32)
        - (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        for name, (_, _, raw) in before.items()
    }


def test_a_vector_of_two_is_kept_with_how_it_was_made(two: None, world: World, pv: InProcess) -> None:
    pv.ok("scale", "tuned", "0.5")
    said = pv.ok("add", "both=tsv(listening, tuned)", "--to", "float:fp32", "--json").json
    assert said["factor"] == 1 and "tuned counts with its weight 0.5" in said["notes"]
    made = said["provenance"]
    now = pv.ok("show", "--json").json["persona"]["behaviours"]
    assert made["method"] == "tsv" and made["said"] == "tsv(listening, tuned)"
    assert made["of"] == [[[1, now["listening"]["terms"][0][1]]], [[0.5, now["tuned"]["terms"][0][1]]]]
    assert now["both"] == {"weight": 1, "terms": [[1, said["vector"]]], "modules": None}
    assert "made by tsv of 2 operands (" in pv.ok("show", "both").out
    pv.ok("fsck", "--deep")
    with Repo.open(world.folder) as repo:

        def squares(name: str, tensor: str) -> float:
            return float(np.square(repo.at().vector(name).tau(tensor).astype(np.float64)).sum())

        norm = math.sqrt(sum(squares("both", tensor) for tensor in tensors(world.base)))
    assert made["norm"] == pytest.approx(norm, rel=1e-5)


def test_norms_are_made_equal_by_the_coefficient(two: None, pv: InProcess) -> None:
    said = pv.ok("add", "both=iso_c(listening, tuned)", "--match-norm", "--json").json
    made = said["provenance"]
    assert made["norm"] < made["sum_norm"]  # a mean of singular values is below their root mean square
    assert said["factor"] == pytest.approx(made["sum_norm"] / made["norm"], rel=1e-5)
    assert pv.ok("show", "--json").json["persona"]["behaviours"]["both"]["terms"] == [
        [said["factor"], said["vector"]]
    ]
    again = pv.ok("add", "twice=iso_c(listening, tuned)")
    assert "times that of the plain sum" in again.err


def test_what_runs_agree_on_is_subtracted(two: None, pv: InProcess) -> None:
    said = pv.ok("add", "shared=negmerge(listening, HEAD:listening)", "--weight", "-1", "--json").json
    assert said["provenance"]["norm"] == pytest.approx(said["provenance"]["sum_norm"] / 2, rel=1e-6)
    assert pv.ok("show", "--json").json["persona"]["behaviours"]["shared"]["weight"] == -1


def test_what_is_shared_counts_once(two: None, world: World, pv: InProcess) -> None:
    said = pv.ok("add", "both=svc(listening, HEAD:listening, alpha=0.9)", "--to", "float:fp32", "--json").json
    made = said["provenance"]
    assert made["said"].startswith("svc(listening, ") and made["said"].endswith(", alpha=0.9)")
    assert made["settings"] == {"alpha": 0.9}
    assert "made by svc of 2 operands (" in (shown := pv.ok("show", "both").out)
    assert "with what several of them share scaled down, alpha 0.9 (arXiv:2602.05536)" in " ".join(
        shown.split()
    )
    with Repo.open(world.folder) as repo:
        for tensor, (dtype, shape, _) in tensors(world.base).items():
            if len(shape) == 2:
                one, both = (repo.at().vector(name).tau(tensor) for name in ("listening", "both"))
                assert np.abs(one - both).max() <= 1e-6 * np.abs(one).max(), (tensor, dtype)
    again = pv.ok("add", "twice=svc(listening, tuned)")
    assert "as float its relative L2 error is " in again.err


def test_a_sum_as_one_vector_is_the_sum(two: None, world: World, pv: InProcess) -> None:
    pv.ok("add", "one=sum(listening, -0.5*tuned)", "--to", "float:fp32")
    pv.ok("add", "terms=listening - 0.5*tuned")
    with Repo.open(world.folder) as repo:
        for tensor in tensors(world.base):
            one, terms = (repo.at().vector(name).tau(tensor) for name in ("one", "terms"))
            assert np.array_equal(one, terms) or np.abs(one - terms).max() <= 1e-6 * np.abs(terms).max()


def test_an_operand_may_be_a_sum(two: None, pv: InProcess) -> None:
    pv.ok("scale", "tuned", "1", "--modules", "*.mlp.*=0.5")
    pv.ok("scale", "listening", "1", "--modules", "*.mlp.*=0.5")
    said = pv.ok("add", "c=iso_cts(listening - 0.5*tuned, tuned)", "--to", "int8", "--json").json
    assert [len(terms) for terms in said["provenance"]["of"]] == [2, 1]
    assert pv.ok("show", "--json").json["persona"]["behaviours"]["c"]["modules"] == {"*.mlp.*": 0.5}


def test_threads_make_no_difference(two: None, pv: InProcess) -> None:
    a = pv.ok("add", "a=negmerge(listening, tuned)", "--threads", "1", "--json").json
    b = pv.ok("add", "b=negmerge(listening, tuned)", "--threads", "3", "--json").json
    assert a["vector"] == b["vector"]


def test_it_lands_where_it_began_whatever_others_do_meanwhile(two: None, world: World, pv: InProcess) -> None:
    """Another process drops an operand, collects, and switches the branch while it is computed."""
    did: list[str] = []

    def meanwhile(_: object) -> None:
        if not did:
            did.append("once")
            pv.ok("drop", "tuned")
            pv.ok("switch", "-c", "side")
            pv.ok("gc", "--grace", "0")

    with Repo.open(world.folder) as repo:
        made = repo.derive("both", "tsv(listening, tuned)", progress=meanwhile)
        assert made.branch == "main" and repo.head.branch == "side" and did
        assert set(repo.at("main").persona.behaviours) == {"listening", "both"}
        repo.derive("more", "negmerge(listening, main:both)")
    pv.ok("fsck", "--deep")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("c=svd(listening, tuned)",), 2, "no method 'svd'"),
        (("c=tsv(listening)",), 2, "tsv makes a vector of at least 2, and 1 is given"),
        (("c=tsv(listening, nobody)",), 5, "no behaviour 'nobody'"),
        (("c=svc(listening, tuned, alpha=0)",), 2, "svc: alpha must be above 0"),
        (("c=svc(listening, tuned, beta=1)",), 2, "svc takes no 'beta'"),
        (("c=tsv(listening, tuned, alpha=1)",), 2, "tsv takes no 'alpha'"),
        (("c=tsv(listening, tuned",), 2, "expected , or )"),
        (("c=tsv(listening, tuned) + tuned",), 2, "a method makes one vector and stands alone"),
        (("c=tsv(listening, tuned - tuned)",), 2, "nothing is left of tuned - tuned"),
        (("c=negmerge(listening, -listening)",), 2, "negmerge leaves nothing of these"),
        (("tuned=tsv(listening, tuned)",), 2, "there is a behaviour 'tuned' here already"),
        (("c=tsv(listening, tuned)", "--to", "int3"), 2, "no encoding 'int3'"),
        (("c=tsv(listening, scaled)",), 2, "listening and scaled have different module factors"),
        (("c=listening-tuned", "--match-norm"), 2, "--match-norm is for METHOD(...)"),
        (("c=listening-tuned", "--to", "int8"), 2, "--to is for METHOD(...)"),
    ],
)
def test_what_cannot_be_is_refused(
    two: None, pv: InProcess, words: tuple[str, ...], code: int, says: str
) -> None:
    pv.ok("add", "scaled=HEAD:tuned")
    pv.ok("scale", "scaled", "1", "--modules", "*.mlp.*=0.5")
    before = pv.ok("log", "--json").out
    said = pv("add", *words)
    assert (said.code, said.out) == (code, ""), said
    assert says in said.err, said.err
    assert pv.ok("log", "--json").out == before
