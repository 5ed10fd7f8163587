"""Methods that make one vector of several, against references in a few lines of torch.linalg, from the formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pv.registry.errors import UsageError
from pv.vecstore.merge.derived import METHODS, by_name, options
from pv.vecstore.merge.derived.core import Core

SHAPES = [(12, 30), (30, 12), (16, 16), (7, 7)]


def deltas(shape: tuple[int, ...], count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for _ in range(count)]


def polar(m: torch.Tensor) -> torch.Tensor:
    p, _, q = torch.linalg.svd(m, full_matrices=False)
    found: torch.Tensor = p @ q
    return found


def tsv(parts: list[torch.Tensor]) -> torch.Tensor:
    k = min(parts[0].shape) // len(parts)
    found = [torch.linalg.svd(part, full_matrices=False) for part in parts]
    u, v = torch.cat([f[0][:, :k] for f in found], 1), torch.cat([f[2][:k] for f in found], 0)
    return polar(u) @ torch.diag(torch.cat([f[1][:k] for f in found])) @ polar(v)


def iso_c(parts: list[torch.Tensor]) -> torch.Tensor:
    u, s, v = torch.linalg.svd(torch.stack(parts).sum(0), full_matrices=False)
    found: torch.Tensor = u @ torch.diag(torch.full_like(s, s.mean().item())) @ v
    return found


def iso_cts(parts: list[torch.Tensor]) -> torch.Tensor:
    r, t = min(parts[0].shape), len(parts)
    k = round((r - int(r * 0.8)) / t)
    common = r - k * t
    u, s, v = torch.linalg.svd(torch.stack(parts).sum(0), full_matrices=False)
    us, ss, vs = [u[:, :common]], [s[:common]], [v[:common]]
    for part in parts:
        x, y, z = torch.linalg.svd(part - u[:, :common] @ u[:, :common].T @ part, full_matrices=False)
        us, ss, vs = [*us, x[:, :k]], [*ss, y[:k]], [*vs, z[:k]]
    return torch.cat(ss).mean() * (polar(torch.cat(us, 1)) @ polar(torch.cat(vs, 0)))


def negmerge(parts: list[torch.Tensor]) -> torch.Tensor:
    signs = torch.stack(parts).sign()
    return torch.where((signs == signs[0]).all(0) & (signs[0] != 0), torch.stack(parts).mean(0), 0.0)


def svc(parts: list[torch.Tensor], alpha: float = 1.0) -> torch.Tensor:
    merged = torch.stack(parts).sum(0)
    u, s, v = torch.linalg.svd(merged, full_matrices=False)
    for r in range(len(s)):
        a, each = u[:, r] @ merged, [u[:, r] @ part for part in parts]
        s[r] *= len(parts) / sum(max(alpha, float(a @ a_i / (a_i @ a_i))) for a_i in each)
    found: torch.Tensor = u @ torch.diag(s) @ v
    return found


def plain_sum(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).sum(0)


REFERENCES: dict[str, Callable[[list[torch.Tensor]], torch.Tensor]] = {
    "tsv": tsv, "iso_c": iso_c, "iso_cts": iso_cts, "svc": svc, "sum": plain_sum, "negmerge": negmerge,
}  # fmt: skip


ROTATING = [name for name, module in METHODS.items() if module.ROTATES]


def test_every_method_has_a_reference() -> None:
    assert METHODS.keys() == REFERENCES.keys()
    for name, module in METHODS.items():
        assert name == module.NAME and module.SUMMARY and module.SOURCE


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_a_matrix_is_what_the_formula_says(name: str, shape: tuple[int, int], count: int) -> None:
    parts = deltas(shape, count)
    wanted = REFERENCES[name]([torch.from_numpy(part).to(torch.float64) for part in parts]).numpy()
    assert np.abs(by_name(name).matrix(parts) - wanted).max() <= 1e-9 * np.abs(wanted).max()


@pytest.mark.parametrize("name", REFERENCES)
def test_what_is_no_matrix_is_averaged_or_added_up(name: str) -> None:
    parts = deltas((40,), 3)
    wanted = np.sum(parts, 0) if name in ("svc", "sum") else np.mean(parts, 0)
    if name == "negmerge":
        wanted = negmerge([torch.from_numpy(p) for p in parts]).numpy()
    assert np.allclose(by_name(name).other(parts), wanted)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_no_threshold_is_absolute(name: str, scale: float) -> None:
    parts = deltas((9, 14), 3)
    scaled = [(part.astype(np.float64) * scale) for part in parts]
    assert np.allclose(
        by_name(name).matrix(scaled) / scale, by_name(name).matrix(parts), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", REFERENCES)
def test_the_opposite_of_all_is_the_opposite(name: str) -> None:
    parts = deltas((9, 14), 3)
    assert np.allclose(by_name(name).matrix([-part for part in parts]), -by_name(name).matrix(parts))


@pytest.mark.parametrize("name", ROTATING)
def test_directions_that_are_not_there_stay_out(name: str) -> None:
    """Deltas of rank 2: what is made of three lies in the six directions that they have."""
    random = np.random.default_rng(1)
    factors = [(random.standard_normal((40, 2)), random.standard_normal((2, 30))) for _ in range(3)]
    made = by_name(name).matrix([(b @ a).astype(np.float32) for b, a in factors])
    left = np.linalg.qr(np.concatenate([b for b, _ in factors], axis=1))[0]
    assert np.linalg.norm(made - left @ (left.T @ made)) <= 1e-5 * np.linalg.norm(made)
    assert np.linalg.matrix_rank(made, tol=1e-4) <= 6


@pytest.mark.parametrize("name", ROTATING)
def test_one_that_says_nothing_is_absent(name: str) -> None:
    parts = deltas((10, 12), 2)
    zeros = np.zeros((10, 12), np.float32)
    assert np.allclose(by_name(name).matrix([parts[0], zeros, parts[1]]), by_name(name).matrix(parts))
    assert not by_name(name).matrix([zeros, zeros]).any()
    assert np.isfinite(by_name(name).matrix(deltas((2, 12), 5))).all()  # more deltas than directions


def test_what_all_agree_on() -> None:
    a, b, c = (np.array([x], np.float32) for x in ([1, -1, 2, 0, 3], [3, -2, -2, 1, 3], [2, -3, 2, 1, 0]))
    assert METHODS["negmerge"].matrix([a, b, c]).tolist() == [[2, -2, 0, 0, 0]]


def test_an_unknown_method() -> None:
    with pytest.raises(UsageError, match="no method 'svd'") as raised:
        by_name("svd")
    assert "tsv, the first singular directions" in str(raised.value.hint)


@pytest.mark.parametrize("name", ROTATING)
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (9, 8)], ids=str)
def test_in_core_space_it_is_the_same(name: str, shape: tuple[int, int]) -> None:
    """Of adapters, between the directions that they have: what it makes of their products."""
    random = np.random.default_rng(3)
    rows, columns = shape
    have = {
        str(r): (random.standard_normal((rows, r)), random.standard_normal((r, columns))) for r in (2, 3, 4)
    }
    core = Core.of(have)
    cores = [core.sum([(0.5, "2"), (-1.0, "4")]), core.sum([(2.0, "3")]), core.sum([(1.0, "nobody")])]
    products = {name: b @ a for name, (b, a) in have.items()}
    wanted = by_name(name).matrix([0.5 * products["2"] - products["4"], 2 * products["3"], np.zeros(shape)])
    b, a = core.factors(by_name(name).matrix(cores, min(shape)))
    assert b.shape[1] <= min(9, *shape)
    assert np.abs(b @ a - wanted).max() <= 1e-9 * np.abs(wanted).max()
    b, a = core.factors(np.zeros_like(cores[0]))
    assert (b @ a).shape == shape and not (b @ a).any()


@pytest.mark.parametrize("name", REFERENCES)
def test_the_order_of_operands_is_none(name: str) -> None:
    parts = deltas((9, 14), 3)
    turned = by_name(name).matrix([parts[2], parts[0], parts[1]])
    assert np.allclose(turned, by_name(name).matrix(parts), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ROTATING)
def test_the_basis_is_none(name: str) -> None:
    parts = deltas((9, 14), 3)
    p, q = (np.linalg.qr(np.random.default_rng(5).standard_normal((n, n)))[0] for n in (9, 14))
    turned = by_name(name).matrix([p @ part @ q for part in parts])
    assert np.allclose(turned, p @ by_name(name).matrix(parts) @ q, rtol=1e-8, atol=1e-8)


# svc


@pytest.mark.parametrize("alpha", [0.1, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_least_that_counts(shape: tuple[int, int], alpha: float) -> None:
    parts = deltas(shape, 3)
    wanted = svc([torch.from_numpy(part).to(torch.float64) for part in parts], alpha).numpy()
    assert np.abs(METHODS["svc"].matrix(parts, alpha=alpha) - wanted).max() <= 1e-9 * np.abs(wanted).max()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_svc_of_one_several_times_is_that_one(count: int) -> None:
    (one,) = deltas((10, 14), 1)
    assert np.allclose(METHODS["svc"].matrix([one] * count), one, rtol=1e-9, atol=1e-9)
    assert np.allclose(METHODS["svc"].matrix([-one] * count), -one, rtol=1e-9, atol=1e-9)


def test_svc_of_what_has_nothing_in_common_is_the_sum() -> None:
    a, b = np.zeros((2, 8, 10), np.float32)
    a[:4, :5], b[4:, 5:] = deltas((4, 5), 1, 1)[0], deltas((4, 5), 1, 2)[0]
    assert np.allclose(METHODS["svc"].matrix([a, b]), a + b, rtol=1e-9, atol=1e-9)


def test_svc_halves_what_both_have_and_no_more() -> None:
    shared, own, other = (np.zeros((6, 6), np.float32) for _ in range(3))
    shared[0, 0], own[1, 1], other[2, 2] = 5, 3, 2
    made = METHODS["svc"].matrix([shared + own, shared + other])
    assert np.allclose(made, shared + own + other, rtol=1e-9, atol=1e-9)


def test_svc_of_what_undoes_itself_is_nothing() -> None:
    (one,) = deltas((6, 9), 1)
    assert not METHODS["svc"].matrix([one, -one]).any()


def test_svc_never_makes_a_direction_larger_at_alpha_1() -> None:
    for seed in range(20):
        parts = deltas((7, 11), 4, seed)
        before = np.linalg.svd(np.sum(parts, 0, dtype=np.float64), compute_uv=False)
        after = np.linalg.svd(METHODS["svc"].matrix(parts), compute_uv=False)
        assert (after <= before * (1 + 1e-9)).all() and after.sum() < before.sum()


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("svc", {"beta": 1.0}, "svc takes no 'beta'"),
        ("svc", {"alpha": 0.0}, "svc: alpha must be above 0, not 0"),
        ("svc", {"alpha": 1e9}, "svc: alpha must be at most 1000"),
        ("tsv", {"alpha": 1.0}, "tsv takes no 'alpha'"),
    ],
)
def test_a_number_that_cannot_be(name: str, given: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        options(by_name(name), given)
    assert options(by_name("svc"), {}) == {"alpha": 1.0} and options(by_name("tsv"), {}) == {}


# Core space


@pytest.mark.parametrize("terms", [((1.0, "2"), (1.0, "3")), ((0.5, "2"), (-1.0, "4"), (2.0, "3"))])
def test_a_linear_rule_in_core_space_is_that_of_the_products(terms: tuple[tuple[float, str], ...]) -> None:
    """Of ranks 2, 3 and 4, some of whose directions are the same: exact, of no larger rank than there is."""
    random = np.random.default_rng(8)
    common = random.standard_normal((30, 1)), random.standard_normal((1, 22))
    have = {}
    for r in (2, 3, 4):
        b, a = random.standard_normal((30, r - 1)), random.standard_normal((r - 1, 22))
        have[str(r)] = np.concatenate([b, common[0]], 1), np.concatenate([a, common[1]])
    wanted = sum(share * have[name][0] @ have[name][1] for share, name in terms)
    core = Core.of(have)
    b, a = core.factors(by_name("sum").matrix([core.sum([term]) for term in terms], 22))
    assert np.abs(b @ a - wanted).max() <= 1e-12 * np.abs(wanted).max()
    assert b.shape[1] == np.linalg.matrix_rank(wanted) < sum(int(name) for _, name in terms)
