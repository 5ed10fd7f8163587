"""Checkpoints that say the same in other words are captured as if they used the base's; others are refused.

Mixtures are saved by transformers itself, in both of its layouts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import tiny_model, tiny_tokenizer
from support.vectors import Tensors, array, base_at, nudged, read_all, save, store, values

from pv.registry.errors import CheckpointRefused
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.align import align
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.merge.build import build
from pv.vecstore.models.load import quiet
from pv.vecstore.tensors.array import Array
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.vector import open_vector

HEAD, EMBED, UP = "lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
TIED: dict[str, Array] = {
    EMBED: array("embed", "BF16", 20, 6),
    UP: array("up", "BF16", 8, 6),
    "model.norm.weight": array("norm", "BF16", 6),
}


@pytest.fixture
def packs(tmp_path: Path) -> PackStore:
    return store(tmp_path / "store")


def taken(tmp_path: Path, packs: PackStore, base: Tensors, tuned: Tensors) -> dict[str, np.ndarray[Any, Any]]:
    """Capture one against the other: {tensor: tau}."""
    with (
        base_at(save(tmp_path / "base", base)) as at,
        Checkpoint(save(tmp_path / "tuned", tuned)) as checkpoint,
    ):
        manifest = capture(checkpoint, at, packs)
        with open_vector(manifest.id, at, packs) as vector:
            return {name: vector.tau(name) for name in manifest.tensors}


def refusal(tmp_path: Path, packs: PackStore, base: Tensors, tuned: Tensors) -> str:
    with pytest.raises(CheckpointRefused) as caught:
        taken(tmp_path, packs, base, tuned)
    assert caught.value.hint
    assert not [path for path in packs.packs.rglob("*") if path.is_file()]
    return f"{caught.value} // {caught.value.hint}"


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def direct(base: Tensors, tuned: Tensors) -> dict[str, Any]:
    """tau where it is not all zero, by subtraction."""
    found = {name: values(tuned[name]) - values(base[name]) for name in base}
    return {name: tau for name, tau in found.items() if tau.any()}


# ------------------------------------------------------------------------------- tied embeddings


def test_a_head_that_repeats_the_embedding(tmp_path: Path, packs: PackStore) -> None:
    tuned = nudged(TIED, 1)
    assert same(taken(tmp_path, packs, TIED, {**tuned, HEAD: tuned[EMBED]}), direct(TIED, tuned))


def test_a_head_of_its_own_where_the_base_has_none(tmp_path: Path, packs: PackStore) -> None:
    tuned = nudged(TIED, 1)
    said = refusal(tmp_path, packs, TIED, {**tuned, HEAD: TIED[EMBED]})
    assert "the base has none" in said
    assert "differs from its embedding" in said
    assert "untie the base" in said


def test_a_head_that_is_missing_where_the_base_repeats_its_embedding(
    tmp_path: Path, packs: PackStore
) -> None:
    base = {**TIED, HEAD: TIED[EMBED]}
    tuned = nudged(TIED, 1)
    assert same(taken(tmp_path, packs, base, tuned), direct(base, {**tuned, HEAD: tuned[EMBED]}))


def test_a_head_that_is_missing_where_the_base_has_one(tmp_path: Path, packs: PackStore) -> None:
    said = refusal(tmp_path, packs, {**TIED, HEAD: array("head", "BF16", 20, 6)}, nudged(TIED, 1))
    assert "the base has a head of its own" in said
    assert "has none" in said


def test_a_wider_copy_of_the_head(tmp_path: Path, packs: PackStore) -> None:
    """fp32 throughout: the head is compared with the embedding beside it, not with the base's."""
    wide = {name: Array("F32", t.shape, values(t).view("<u4")) for name, t in nudged(TIED, 1).items()}
    found = taken(tmp_path, packs, TIED, {**wide, HEAD: wide[EMBED]})
    assert same({name: tau for name, tau in found.items() if tau.any()}, direct(TIED, wide))


# ------------------------------------------------------------------------------- other differences


@pytest.mark.parametrize("tokens", [19, 24])
def test_another_vocabulary(tmp_path: Path, packs: PackStore, tokens: int) -> None:
    said = refusal(tmp_path, packs, TIED, {**TIED, EMBED: array("embed", "BF16", tokens, 6)})
    assert f"a vocabulary of {tokens} tokens" in said
    assert "one of 20" in said
    assert "resize_token_embeddings(20)" in said
    assert f"resize the base to {tokens}" in said


def test_another_width_is_no_vocabulary(tmp_path: Path, packs: PackStore) -> None:
    said = refusal(tmp_path, packs, TIED, {**TIED, EMBED: array("embed", "BF16", 20, 8)})
    assert "does not fit base" in said
    assert "[20, 8]" in said


def test_buffers_may_come_and_go(tmp_path: Path, packs: PackStore) -> None:
    rotary = {"model.layers.0.self_attn.rotary_emb.inv_freq": array("rotary", "F32", 4)}
    mask = {
        "h.0.attn.bias": Array("BOOL", (1, 1, 4, 4), np.tri(4, dtype=np.uint8).reshape(-1)),
        "h.0.attn.masked_bias": array("masked", "F32"),
    }
    tuned = nudged(TIED, 1)
    assert same(taken(tmp_path, packs, {**TIED, **rotary}, {**tuned, **mask}), direct(TIED, tuned))


def test_a_bias_is_no_buffer(tmp_path: Path, packs: PackStore) -> None:
    said = refusal(tmp_path, packs, TIED, {**nudged(TIED, 1), "h.0.attn.bias": array("bias", "BF16", 6)})
    assert "'h.0.attn.bias' is not in the base" in said


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (f"{UP}.absmax", "quantised"),
        ("model.layers.0.mlp.up_proj.qweight", "quantised"),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", "quantised"),
        ("model.layers.0.mlp.up_proj.lora_A.default.weight", "never merged"),
        ("model.layers.0.mlp.up_proj.base_layer.weight", "never merged"),
    ],
)
def test_kinds_of_checkpoint_that_are_refused_by_name(
    tmp_path: Path, packs: PackStore, name: str, word: str
) -> None:
    said = refusal(tmp_path, packs, TIED, {**TIED, name: array("more", "BF16", 6)})
    assert word in said
    assert name in said


def test_files_beside_the_weights_do_not_matter(tmp_path: Path, packs: PackStore) -> None:
    tuned = nudged(TIED, 1)
    folder = save(tmp_path / "tuned", tuned)
    for name in ("optimizer.pt", "trainer_state.json", "README.md", "training_args.bin"):
        (folder / name).write_bytes(b"whatever")
    assert same(taken(tmp_path, packs, TIED, tuned), direct(TIED, tuned))


# ------------------------------------------------------------------------------- mixtures


def mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=3,
            num_experts_per_tok=2,
        )
    )


def qwen(*, experts: int = 3, inner: int = 10) -> Any:
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    return Qwen2MoeForCausalLM(
        Qwen2MoeConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=12,
            moe_intermediate_size=inner,
            shared_expert_intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_experts=experts,
            num_experts_per_tok=1,
        )
    )


def written(model: Any, folder: Path, *, original: bool) -> Path:
    with quiet():
        model.save_pretrained(folder, save_original_format=original)
    return folder


def trained(model: Any) -> Any:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return model


@pytest.fixture(params=[mixtral, lambda: qwen(inner=24)], ids=["mixtral", "qwen2-moe"])
def mixture(request: pytest.FixtureRequest) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield request.param().bfloat16()


@pytest.mark.parametrize("single", [True, False], ids=["base: single experts", "base: fused experts"])
def test_the_layout_of_the_experts_does_not_matter(
    tmp_path: Path, packs: PackStore, mixture: Any, single: bool
) -> None:
    base = written(mixture, tmp_path / "base", original=single)
    trained(mixture)
    alike = written(mixture, tmp_path / "alike", original=single)
    other = written(mixture, tmp_path / "other", original=not single)
    assert read_all(alike).keys() != read_all(other).keys()
    with base_at(base) as at:
        ids = set()
        for folder in (alike, other):
            with Checkpoint(folder) as checkpoint:
                ids.add(capture(checkpoint, at, packs).id)
        assert len(ids) == 1
        # and what it decodes to is what transformers wrote in the base's own layout
        tuned = read_all(alike)
        with open_vector(ids.pop(), at, packs) as vector:
            assert set(vector.manifest.tensors) == set(tuned)
            for name, tensor in tuned.items():
                assert vector.tau(name).tobytes() == (values(tensor) - at.tensor(name).f32).tobytes()


def test_a_build_from_the_other_layout_loads(tmp_path: Path, packs: PackStore, mixture: Any) -> None:
    import torch
    from support.vectors import behaviour, persona
    from transformers import AutoModelForCausalLM

    mixture.float()
    base = written(mixture, tmp_path / "base", original=True)
    trained(mixture)
    other = written(mixture, tmp_path / "other", original=False)
    with base_at(base) as at:
        with Checkpoint(other) as checkpoint:
            vector_id = capture(checkpoint, at, packs).id
        with open_vector(vector_id, at, packs) as vector:
            recipe = persona(at, {"x": behaviour(1.0, vector_id)})
            files = {"config.json": (base / "config.json").read_bytes()}
            build(recipe, at, {vector_id: vector}, tmp_path / "built", side_files=files)
    with quiet(), torch.no_grad():
        tokens = torch.arange(12)[None]
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / "built")(tokens).logits
        theirs = AutoModelForCausalLM.from_pretrained(other)(tokens).logits
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("experts", "inner"), [(2, 10), (4, 10), (3, 8), (3, 20)], ids=str)
@pytest.mark.parametrize("single", [True, False])
def test_other_experts(tmp_path: Path, packs: PackStore, experts: int, inner: int, single: bool) -> None:
    base = written(qwen(), tmp_path / "base", original=single)
    other = written(qwen(experts=experts, inner=inner), tmp_path / "other", original=not single)
    with base_at(base) as at, Checkpoint(other) as checkpoint, pytest.raises(CheckpointRefused) as caught:
        capture(checkpoint, at, packs)
    assert "experts of model.layers.0.mlp" in str(caught.value)
    assert "save_original_format" in (caught.value.hint or "")


def test_experts_that_are_missing(tmp_path: Path, packs: PackStore) -> None:
    base = written(qwen(), tmp_path / "base", original=False)
    single = read_all(written(qwen(), tmp_path / "single", original=True))
    del single["model.layers.1.mlp.experts.1.up_proj.weight"]
    with (
        base_at(base) as at,
        Checkpoint(save(tmp_path / "other", single)) as checkpoint,
        pytest.raises(CheckpointRefused, match=r"layers\.1\.mlp.*some experts are missing"),
    ):
        capture(checkpoint, at, packs)


def test_experts_of_several_dtypes(tmp_path: Path, packs: PackStore) -> None:
    base = written(qwen(), tmp_path / "base", original=False)
    single = read_all(written(qwen(), tmp_path / "single", original=True))
    name = "model.layers.0.mlp.experts.1.up_proj.weight"
    single[name] = array("narrow", "BF16", *single[name].shape)
    with (
        base_at(base) as at,
        Checkpoint(save(tmp_path / "other", single)) as checkpoint,
        pytest.raises(CheckpointRefused, match="several dtypes"),
    ):
        capture(checkpoint, at, packs)


def test_one_expert(tmp_path: Path, packs: PackStore) -> None:
    for single in (True, False):
        model = qwen(experts=1)
        base = written(model, tmp_path / f"base {single}", original=single)
        other = written(trained(model), tmp_path / f"other {single}", original=not single)
        with base_at(base) as at, Checkpoint(other) as checkpoint:
            manifest = capture(checkpoint, at, packs)
            assert set(manifest.tensors) == set(at.manifest.tensors)


def fused_and_single(dtype: str, experts: int, inner: int, outer: int) -> tuple[Tensors, Tensors]:
    """The same numbers in both layouts, laid out here by hand."""
    gate, up, down = (
        array(role, dtype, experts, *shape).raw.reshape(experts, *shape)
        for role, shape in (("gate", (inner, outer)), ("up", (inner, outer)), ("down", (outer, inner)))
    )
    both = np.concatenate([gate, up], axis=1)
    fused = {
        "m.mlp.experts.gate_up_proj": Array(dtype, both.shape, both.reshape(-1)),
        "m.mlp.experts.down_proj": Array(dtype, down.shape, down.reshape(-1)),
    }
    single = {
        f"m.block_sparse_moe.experts.{n}.{name}.weight": Array(dtype, t[n].shape, t[n].reshape(-1))
        for n in range(experts)
        for name, t in (("w1", gate), ("w3", up), ("w2", down))
    }
    return fused, single


@given(
    data=st.data(), dtype=st.sampled_from(["BF16", "F32", "F8_E4M3"]),
    experts=st.integers(1, 4), inner=st.integers(1, 5), outer=st.integers(1, 5), swap=st.booleans(),
)  # fmt: skip
def test_any_piece_of_any_expert(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    dtype: str,
    experts: int,
    inner: int,
    outer: int,
    swap: bool,
) -> None:
    """Reading `start` to `stop` gives the bytes that the base's own layout has there, across pieces too."""
    fused, single = fused_and_single(dtype, experts, inner, outer)
    ours, theirs = (single, fused) if swap else (fused, single)
    folder = tmp_path_factory.mktemp("experts")
    with base_at(save(folder / "base", ours)) as at, Checkpoint(save(folder / "other", theirs)) as checkpoint:
        fitted = align(checkpoint, at.manifest)
        assert {n: (s.dtype, s.shape) for n, s in fitted.specs.items()} == {
            n: (t.dtype, t.shape) for n, t in ours.items()
        }
        name = data.draw(st.sampled_from(sorted(ours)))
        whole = ours[name].raw.tobytes()
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole)))
        assert bytes(fitted.read(name, start, stop)) == whole[start:stop]
        assert bytes(fitted.read(name)) == whole


def test_an_ordinary_checkpoint_is_itself(tmp_path: Path) -> None:
    base = tmp_path / "base"
    with quiet():
        tiny_model(layers=1).save_pretrained(base)
        tiny_tokenizer().save_pretrained(base)
    with base_at(base) as at, Checkpoint(base) as checkpoint:
        fitted = align(checkpoint, at.manifest)
        assert dict(fitted.specs) == dict(checkpoint.specs)
        assert all(fitted.read(name) == checkpoint.read(name) for name in fitted.specs)
