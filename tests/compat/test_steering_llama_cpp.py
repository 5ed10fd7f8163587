"""GGUF control vectors in llama.cpp: what it adds, and where. Runs where xllamacpp is (Linux, x86-64)."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from support.llama_cpp import load_control_vector, logits, write_model
from support.steering_formats import BLOCKS, MODEL, PROMPT, hooked, random_directions, small_llama

from pv.vecstore.activations.formats import gguf

CLOSE = 4e-3  # of logits up to 1.2: llama.cpp keeps keys and values in half precision

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="calls its C functions by their layout",
)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write_model(path, small_llama())
    return path


def test_llama_cpp_adds_direction_n_after_block_n(model_file: Path, tmp_path: Path) -> None:
    model = small_llama()
    vocabulary = model.config.vocab_size
    plain = logits(model_file, PROMPT, vocabulary, None)
    np.testing.assert_allclose(plain, hooked(model, {})[-1], atol=CLOSE)
    for site in BLOCKS[1:]:
        directions = random_directions(site)
        gguf.write(tmp_path / "v.gguf", directions, MODEL, coefficient=0.7)
        loaded = load_control_vector([(tmp_path / "v.gguf", 1.0)])
        assert loaded is not None
        steered = logits(model_file, PROMPT, vocabulary, loaded)
        np.testing.assert_allclose(steered, hooked(model, directions, 0.7)[-1], atol=CLOSE)
        assert np.abs(steered - plain).max() > 20 * CLOSE
        elsewhere = {BLOCKS[BLOCKS.index(site) - 1]: directions[site]}
        assert np.abs(steered - hooked(model, elsewhere, 0.7)[-1].numpy()).max() > 20 * CLOSE


def test_llama_cpp_takes_a_strength_and_adds_two_files_up(model_file: Path, tmp_path: Path) -> None:
    one, two = random_directions(BLOCKS[1], BLOCKS[2]), random_directions(BLOCKS[2], seed=1)
    gguf.write(tmp_path / "one.gguf", one, MODEL)
    gguf.write(
        tmp_path / "two.gguf", two, MODEL
    )  # its last direction is of an earlier block than the first's could be
    both = load_control_vector([(tmp_path / "one.gguf", 0.5), (tmp_path / "two.gguf", -0.3)])
    assert both is not None
    expected = {
        BLOCKS[1]: 0.5 * one[BLOCKS[1]],
        BLOCKS[2]: 0.5 * one[BLOCKS[2]] - np.float32(0.3) * two[BLOCKS[2]],
    }
    model = small_llama()
    np.testing.assert_allclose(
        logits(model_file, PROMPT, model.config.vocab_size, both), hooked(model, expected)[-1], atol=CLOSE
    )


def test_llama_cpp_refuses_direction_0_and_so_do_we(tmp_path: Path) -> None:
    gguf.write(tmp_path / "v.gguf", random_directions(BLOCKS[0], BLOCKS[2]), MODEL, convention="repeng")
    assert load_control_vector([(tmp_path / "v.gguf", 1.0)]) is None
