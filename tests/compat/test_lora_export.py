"""What `pv export --lora` writes, loaded by PEFT itself: base plus what the persona adds, in fp32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.adapters import Model, adapted, gpt2_config, keys_of, llama, quiet
from support.commands import isolate

import pv
from pv.registry.errors import UsageError
from pv.vecstore.merge.derived import by_name
from pv.vecstore.repo.repo import Repo

with quiet():
    import peft
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel, GPT2Model

pytestmark = pytest.mark.usefixtures("same_numbers")

CLOSE = 2e-6
Deltas = dict[str, np.ndarray]


def loaded(base: Path, adapter: Path) -> Deltas:
    """{tensor: what PEFT adds to it}, merged in fp64."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        whole = peft.PeftModel.from_pretrained(model, adapter).to(torch.float64).merge_and_unload()
    return {name: (tensor - before[name]).numpy() for name, tensor in whole.state_dict().items()}


def total(parts: Mapping[float, Deltas]) -> Deltas:
    names = next(iter(parts.values()))
    return {name: np.sum([w * deltas[name] for w, deltas in parts.items()], axis=0) for name in names}


def same(ours: Deltas, wanted: Deltas) -> None:
    assert ours.keys() == wanted.keys()
    for name in wanted:
        assert np.abs(ours[name] - wanted[name]).max() <= CLOSE * max(1e-3, np.abs(wanted[name]).max()), name
    assert any(delta.any() for delta in wanted.values())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    return isolate(tmp_path / "home", monkeypatch)


class Adapters:
    """Adapters of one model, each a behaviour of a registry on it."""

    def __init__(self, folder: Path, model: Model, **adapters: dict[str, Any]) -> None:
        self.folder, self.paths = folder, dict[str, Path]()
        for number, (name, options) in enumerate(adapters.items()):
            torch.manual_seed(0)
            made = model()
            torch.manual_seed(number)
            self.paths[name] = adapted(made, folder / name, **options)
        self.base = next(iter(self.paths.values())).parent / "base"
        self.repo = Repo.open(pv.init(folder / "repo", base=self.base).path)
        for name, path in self.paths.items():
            self.repo.commit(path, name=name)

    def deltas(self, name: str) -> Deltas:
        return loaded(self.base, self.paths[name])

    def exported(self, out: str = "out", **options: Any) -> tuple[Deltas, dict[str, Any], Path]:
        made = self.repo.at().export_lora(self.folder / out, **options)
        return loaded(self.base, self.folder / out), made.to_json(), self.folder / out


SUMS: dict[str, tuple[Model, list[dict[str, Any]]]] = {
    "other ranks and modules": (
        llama,
        [
            {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 6},
            {"target_modules": ["q_proj", "v_proj"], "r": 3, "lora_alpha": 16},
            {"target_modules": "all-linear", "r": 2, "use_rslora": True},
        ],
    ),
    "patterns": (
        llama,
        [
            {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"layers.0.self_attn.q_proj": 2}},
            {"target_modules": ["q_proj"], "layers_to_transform": [1], "alpha_pattern": {"q_proj": 11}},
        ],
    ),
    "embedding": (
        llama,
        [{"target_modules": ["embed_tokens", "q_proj"]}, {"target_modules": ["q_proj", "lm_head"]}],
    ),
    "conv1d": (
        lambda: GPT2LMHeadModel(gpt2_config()),
        [{"target_modules": ["c_attn", "c_proj"]}, {"target_modules": ["c_attn", "c_fc"], "r": 5}],
    ),
}


@pytest.mark.parametrize("case", SUMS)
def test_a_sum_of_adapters_is_an_adapter(case: str, tmp_path: Path, home: Path) -> None:
    model, options = SUMS[case]
    names = [f"x{number}" for number in range(len(options))]
    have = Adapters(tmp_path, model, **dict(zip(names, options, strict=True)))
    weights = dict(zip(names, (0.7, -1.3, 0.25), strict=False))
    for name, weight in weights.items():
        have.repo.scale(name, weight)
    ours, said, folder = have.exported()
    same(ours, total({weight: have.deltas(name) for name, weight in weights.items()}))
    assert said["exact"] is True and said["residual"] is None
    assert json.loads((folder / "adapter_config.json").read_text())["use_rslora"] is False
    cut, said, _ = have.exported("cut", rank=64)  # nothing is cut
    same(cut, ours)
    assert said["residual"]["total"] == 0


def test_one_adapter_goes_out_as_it_came_in(tmp_path: Path, home: Path) -> None:
    """Whatever its weight in the persona: the factors bit for bit, in their dtype, and its alpha."""
    options = {
        "target_modules": ["q_proj", "down_proj"],
        "r": 3,
        "lora_alpha": 16,
        "rank_pattern": {"q_proj": 5},
    }
    have = Adapters(tmp_path, llama, x=options)
    have.repo.scale("x", -0.5)
    _, said, folder = have.exported(behaviour="x")
    assert said["name"] == "x"
    ours, theirs = keys_of(folder), keys_of(have.paths["x"])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["r"], set(config["rank_pattern"].values())) == (16, 3, {5})
    assert config["target_modules"] == ["down_proj", "q_proj"]
    back = have.repo.commit(folder, name="y", force=True)
    assert have.repo.at(back.commit).persona.behaviour("y").terms == have.repo.persona.behaviour("x").terms


def test_modules_and_depth_go_out_too(tmp_path: Path, home: Path) -> None:
    have = Adapters(tmp_path, llama, x={"target_modules": ["q_proj", "down_proj"]})
    have.repo.scale("x", 2, modules={"*.mlp.*": 0.0}, depth={0: 0.25, 1: -1})
    whole = have.deltas("x")
    ours, said, _ = have.exported()
    layers = {"model.layers.0.self_attn.q_proj": 0.5, "model.layers.1.self_attn.q_proj": -2}
    assert set(said["ranks"]) == set(layers)
    wanted = {n: whole[n] * layers.get(n.removesuffix(".weight"), 0) for n in whole}
    same(ours, wanted)


def test_a_base_that_was_saved_without_its_head(tmp_path: Path, home: Path) -> None:
    """The adapter's names are those of the model it was trained on, not those of the base's file."""
    have = Adapters(tmp_path, lambda: GPT2LMHeadModel(gpt2_config()), x={"target_modules": ["c_attn"]})
    with quiet():
        GPT2Model.from_pretrained(have.base).save_pretrained(tmp_path / "bare")
    repo = Repo.open(pv.init(tmp_path / "other", base=tmp_path / "bare").path)
    for name in ("x", "y"):
        repo.commit(have.paths["x"], name=name, force=True)
    repo.at().export_lora(tmp_path / "out")
    same(loaded(have.base, tmp_path / "out"), total({2.0: have.deltas("x")}))


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_cut_to_a_rank_it_is_the_best_and_the_loss_is_measured(rank: int, tmp_path: Path, home: Path) -> None:
    have = Adapters(
        tmp_path, llama, x={"target_modules": ["q_proj"]}, y={"target_modules": ["q_proj", "v_proj"], "r": 3}
    )
    have.repo.scale("y", -2)
    whole = total({1.0: have.deltas("x"), -2.0: have.deltas("y")})
    ours, said, _ = have.exported(rank=rank)
    cut = size = 0.0
    worst: dict[str, float] = {}
    for name, delta in whole.items():
        if delta.any():
            u, s, v = np.linalg.svd(delta)
            best = (u[:, :rank] * s[:rank]) @ v[:rank]
            assert np.abs(ours[name] - best).max() <= 1e-6 * np.abs(delta).max()
            worst[name] = float(np.linalg.norm(s[rank:]) / np.linalg.norm(s))
            cut, size = cut + np.square(s[rank:]).sum(), size + np.square(s).sum()
        else:
            assert not ours[name].any()
    assert said["residual"]["total"] == pytest.approx(np.sqrt(cut / size), abs=1e-6)
    assert said["residual"]["worst"]["relative"] == pytest.approx(max(worst.values()), abs=1e-6)
    assert max(said["ranks"].values()) <= rank


def test_a_method_of_elements_acts_on_delta_w(tmp_path: Path, home: Path) -> None:
    """Refused by name; with a rank, the decomposition is of what the method makes of delta W."""
    targets = {"target_modules": ["q_proj"]}
    have = Adapters(tmp_path, llama, x=targets, y=targets)
    have.repo.combine("ties", density=0.3)
    with pytest.raises(
        UsageError, match="combines with ties, which acts on the elements of delta W"
    ) as raised:
        have.exported()
    assert "--rank 64" in str(raised.value.hint) and not (tmp_path / "out").exists()
    ours, said, _ = have.exported(rank=24)  # all of it
    assert said["residual"]["total"] < 1e-5
    have.repo.at().build(tmp_path / "built", dtype="fp32", rounding="nearest")
    with quiet():
        states = [
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).state_dict()
            for path in (have.base, tmp_path / "built")
        ]
    for name, delta in ours.items():
        assert np.abs(delta - (states[1][name] - states[0][name]).numpy()).max() < 1e-5, name


def test_what_has_no_factors_needs_a_rank(tmp_path: Path, home: Path) -> None:
    have = Adapters(
        tmp_path, llama, x={"target_modules": ["q_proj"]},
        saved={"target_modules": ["q_proj"], "modules_to_save": ["k_proj"]},
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"saved has no factors for .*k_proj.weight. and 1 more"):
        have.exported()
    wanted = total({1.0: have.deltas("x"), 1.000001: have.deltas("saved")})
    ours, said, _ = have.exported(rank=24)
    assert said["residual"]["total"] < 1e-5
    for name in wanted:
        assert np.abs(ours[name] - wanted[name]).max() < 1e-5
    have.repo.compress("x", "lowrank:2")
    _, said, _ = have.exported("lowrank", behaviour="x")
    assert said["exact"] and set(said["ranks"].values()) == {2}


def test_what_is_no_matrix_is_left_out_and_counted(tmp_path: Path, home: Path) -> None:
    have = Adapters(tmp_path, llama, x={"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]})
    _, said, _ = have.exported(rank=8)
    assert said["residual"]["left_out"] == [f"model.layers.{i}.input_layernorm.weight" for i in (0, 1)]
    assert said["residual"]["total"] > said["residual"]["worst"]["relative"]


def test_nothing_is_no_adapter(tmp_path: Path, home: Path) -> None:
    have = Adapters(tmp_path, llama, x={"target_modules": ["q_proj"]})
    have.repo.scale("x", 0)
    with pytest.raises(UsageError, match="nothing is added to the base"):
        have.exported()
    with pytest.raises(UsageError, match="a rank is a whole number from 1"):
        have.exported(rank=0)


@pytest.mark.parametrize("model", [llama, lambda: GPT2LMHeadModel(gpt2_config())], ids=["llama", "gpt2"])
@pytest.mark.parametrize("method", ["tsv", "svc", "sum"])
def test_a_method_of_adapters_makes_an_adapter(method: str, model: Model, tmp_path: Path, home: Path) -> None:
    """In core space: what the method makes of the products, as PEFT reads it."""
    targets = ["c_attn", "c_proj"] if model is not llama else ["q_proj", "down_proj"]
    have = Adapters(tmp_path, model, x={"target_modules": targets}, y={"target_modules": targets[:1], "r": 3})
    have.repo.scale("y", -0.5)
    made = have.repo.derive("both", f"{method}(x, y)", match_norm=True)
    assert method != "sum" or (made.factor == 1 and made.origin.norm == pytest.approx(made.origin.sum_norm))
    assert made.origin.encoding == "lora" and made.origin.relative_l2 < 1e-6
    ours, said, _ = have.exported(behaviour="both")
    assert said["exact"] and max(said["ranks"].values()) <= 7
    taus = [have.deltas("x"), have.deltas("y")]
    for name, delta in ours.items():
        parts = [taus[0][name], -0.5 * taus[1][name]]
        wanted = by_name(method).matrix(parts) * made.factor if delta.ndim == 2 else delta
        assert np.abs(delta - wanted).max() <= 1e-5 * max(1e-3, np.abs(wanted).max()), name
    dense = have.repo.derive("dense", f"{method}(x, y)", to="float:fp32")
    assert dense.origin.norm == pytest.approx(made.origin.norm, rel=1e-5)
    assert dense.origin.sum_norm == pytest.approx(made.origin.sum_norm, rel=1e-5)
    assert have.repo.derive("agree", "negmerge(x, x)").origin.encoding == "float"
    with pytest.raises(UsageError, match="negmerge looks at single elements"):
        have.repo.derive("no", "negmerge(x, y)", to="lora")
    with pytest.raises(UsageError, match="has no factors for"):
        have.repo.derive("no", f"{method}(x, dense)", to="lora")
