"""What is known of a model from its config alone: names, and whether directions fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny import tiny_model

from pv.registry.errors import BaseMismatch
from pv.vecstore.activations.fits import check_fits
from pv.vecstore.activations.sites import blocks
from pv.vecstore.models.skeleton import skeleton

HEAD = "model.layers.1.self_attn.o_proj:input[3/4]"


def ones(width: int) -> NDArray[np.float32]:
    return np.ones(width, np.float32)


def test_the_modules_of_a_config_are_those_of_the_model() -> None:
    real = tiny_model()
    model = skeleton(real.config.to_json_string().encode(), most=1000)
    assert model is not None and all(one.is_meta for one in model.parameters())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in real.named_modules()]
    assert blocks(model) == ["model.layers.0", "model.layers.1"]


@pytest.mark.parametrize(
    "config",
    [
        None,
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"model_type": "nobody"}',
        b'{"model_type": "llama", "x": 1e999',
    ],
)
def test_a_config_of_no_model(config: bytes | None) -> None:
    assert skeleton(config, most=1000) is None


def test_a_config_that_counts_more_layers_than_there_are_tensors() -> None:
    document = {**tiny_model().config.to_dict(), "num_hidden_layers": 10**9}
    assert skeleton(json.dumps(document).encode(), most=1000) is None
    nested = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**9}}
    assert skeleton(json.dumps(nested).encode(), most=1000) is None


def test_what_fits_and_what_does_not() -> None:
    model = skeleton(tiny_model().config.to_json_string().encode(), most=1000)
    assert model is not None
    assert check_fits(
        model, {"model.layers.1": ones(48), HEAD: ones(12), "model.layers.0.mlp.act_fn": ones(96)}
    )
    for site, width, says in [
        ("model.layers.1", 47, "does not fit model.layers.1"),
        (HEAD, 48, "does not fit"),
        ("model.layers.2", 48, "no module 'model.layers.2'"),
        ("model.layers.1:output", 48, "names no site"),
        ("model.layers", 48, "list of modules"),
    ]:
        with pytest.raises(BaseMismatch, match=says.replace(".", r"\.")):
            check_fits(model, {site: ones(width)})


def test_a_model_whose_shapes_depend_on_numbers_is_checked_by_names_alone() -> None:
    from transformers import MixtralConfig

    config = MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    model = skeleton(config.to_json_string().encode(), most=1000)
    assert model is not None and not check_fits(model, {"model.layers.1": ones(16)})
    with pytest.raises(BaseMismatch, match="no module"):
        check_fits(model, {"model.layers.9": ones(16)})
