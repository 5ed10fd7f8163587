from __future__ import annotations

from typing import Any

import pytest
import torch
from support.architectures import ARCHITECTURES, tiny_architecture

from pv.registry.errors import UsageError
from pv.vecstore.activations.hooks import captured
from pv.vecstore.probe.parts import Parts, parts_of

OTHERS: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "GPTNeoX": {"intermediate_size": 48},
    "Phi": {"intermediate_size": 48, "num_key_value_heads": 2},
    "Bloom": {"n_layer": 2, "n_head": 4},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Olmo": {"intermediate_size": 48, "num_key_value_heads": 2},
}
NAMES = [*ARCHITECTURES, *OTHERS]


def model_of(name: str) -> Any:
    if name in ARCHITECTURES:
        return tiny_architecture(name).eval()
    import transformers

    given = {"vocab_size": 64, "pad_token_id": 0, **OTHERS[name]}
    if "n_head" not in given:
        given |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    if "n_embd" not in given:
        given["hidden_size"] = 32
    config = getattr(transformers, f"{name}Config")(**given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.2 * torch.randn_like(p)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_every_element_is_in_exactly_one_part(name: str) -> None:
    model = model_of(name)
    parts = parts_of(model)
    counts = {name: torch.zeros(p.shape, dtype=torch.int64) for name, p in model.named_parameters()}
    for part in parts.parts:
        for one in part.slices:
            one.of(counts[one.name]).add_(1)
    assert all(bool((count == 1).all()) for count in counts.values())
    assert len({part.key for part in parts.parts}) == len(parts.parts)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "olmo2"])  # one norm over all heads' q
def test_a_head_is_what_its_slice_of_the_output_comes_from(name: str) -> None:
    """Changing q of one head changes its slice of o's input and no other; so with keys and values of a group."""
    model = model_of(name)
    parts = parts_of(model)
    at = parts.attention[0]
    ids = torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(1))
    before = _z(model, at.out, ids)
    width = before.shape[-1] // at.heads
    for kind in ("head", "kv"):
        for part in (p for p in parts.of(kind) if p.layer == at.layer):
            changed = _changed(model, parts, part, at.out, ids, before, width)
            if kind == "head":
                assert changed == {part.index}
            else:
                assert changed == {h for h in range(at.heads) if at.group_of(h) == part.index}


def _changed(model: Any, parts: Parts, part: Any, out: str, ids: Any, before: Any, width: int) -> set[int]:
    own = dict(model.named_parameters())
    kept = {name: p.detach().clone() for name, p in own.items()}
    with torch.no_grad():
        for one in part.slices:
            if one.projection != "o":
                one.of(own[one.name]).mul_(-1.5)
    after = _z(model, out, ids)
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(kept[name])
    moved = (after - before).abs().amax((0, 1)).view(-1, width).amax(1)
    return {h for h, far in enumerate(moved.tolist()) if far > 0}


def _z(model: Any, out: str, ids: Any) -> torch.Tensor:
    with torch.no_grad(), captured(model, [f"{out}:input"]) as seen:
        model(input_ids=ids, use_cache=False)
    return seen[f"{out}:input"].clone()


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_o_are_those_of_the_head(name: str) -> None:
    model = model_of(name)
    parts = parts_of(model)
    at = parts.attention[0]
    weight = dict(model.named_parameters())[f"{at.out}.weight"]
    transposed = name == "GPT2"
    size = weight.shape[0 if transposed else 1]
    width = size // at.heads
    for part in (p for p in parts.heads if p.layer == at.layer):
        [o] = [one for one in part.slices if one.projection == "o"]
        assert part.index is not None
        assert (o.dim, o.start, o.stop) == (
            0 if transposed else 1,
            part.index * width,
            (part.index + 1) * width,
        )


def test_layers_of_linear_attention_and_experts_are_named() -> None:
    parts = parts_of(tiny_architecture("qwen3-next"))
    assert [part.layer for part in parts.of("linear-attention")] == [0, 1, 2]
    assert [part.layer for part in parts.of("experts")] == [0, 1, 2, 3]
    assert [part.layer for part in parts.heads] == [3, 3, 3, 3]
    assert not parts.of("mlp")
    assert parts.notes[0].startswith("layers 0-2: linear attention (Gated DeltaNet)")


def test_a_model_without_heads_is_refused() -> None:
    import transformers

    config = transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=64)
    with pytest.raises(UsageError, match="no attention heads") as error:
        parts_of(transformers.AutoModelForCausalLM.from_config(config))
    assert "recurrent" in str(error.value)
    assert error.value.hint


def test_attention_laid_out_in_an_unknown_way_is_one_part_and_named() -> None:
    import transformers

    config = transformers.FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=64, multi_query=True
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(UsageError, match="laid out in a way unknown"):
        parts_of(model)


def test_the_heads_that_read_a_group_come_with_it() -> None:
    parts = parts_of(tiny_architecture("llama"))
    chosen = [part for part in parts.heads if part.layer == 1 and part.index in (2, 3)]
    assert [part.key for part in parts.with_groups(chosen)] == ["1.head.2", "1.head.3", "1.kv.1"]
    assert len(parts.but(chosen)) == len(parts.parts) - 2
