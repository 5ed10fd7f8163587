"""Loading a checkpoint: exactly, quietly, and only what can be trusted."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import tiny_checkpoint
from transformers.utils import logging as hf_logging

from pv.registry.errors import CheckpointRefused, FormatError, NotFoundError, PvError
from pv.vecstore.models.load import context_length, load, load_tokenizer, quiet, stop_ids


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_weights_are_widened_exactly_or_kept(base: Path) -> None:
    stored = load_file(base / "model.safetensors")
    model, tokenizer = load(base)
    assert not model.training
    assert {n: p.dtype for n, p in model.named_parameters()} == dict.fromkeys(stored, torch.float32)
    assert all(torch.equal(p, stored[n].float()) for n, p in model.named_parameters())
    kept, _ = load(base, "auto")
    assert all(torch.equal(p, stored[n]) for n, p in kept.named_parameters())
    assert tokenizer.decode(tokenizer("Hé 😀")["input_ids"]) == "Hé 😀"
    assert context_length(model) == 512
    assert stop_ids(model, tokenizer) == (258,)
    model.generation_config.eos_token_id = [7, 3]
    assert stop_ids(model, tokenizer) == (3, 7, 258)


def test_nothing_is_printed_and_nothing_global_changes(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hf_logging.set_verbosity(logging.INFO)
    hf_logging.enable_progress_bar()
    try:
        filters = list(warnings.filters)
        load(base)
        assert hf_logging.get_verbosity() == logging.INFO
        assert hf_logging.is_progress_bar_enabled()
        assert list(warnings.filters) == filters
        hf_logging.disable_progress_bar()
        with pytest.raises(ZeroDivisionError), quiet():
            raise ZeroDivisionError
        assert not hf_logging.is_progress_bar_enabled()
        assert hf_logging.get_verbosity() == logging.INFO
    finally:
        hf_logging.set_verbosity_warning()
        hf_logging.enable_progress_bar()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def refused(path: Path, kind: type[PvError], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        load(path)
    assert caught.value.hint or kind is FormatError


def test_a_missing_tensor_is_not_made_up(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, CheckpointRefused, r"missing keys model\.layers\.1\.mlp\.up_proj\.weight")


def test_a_misshaped_tensor_is_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = torch.zeros(7, dtype=torch.bfloat16)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, CheckpointRefused, "cannot load|mismatched keys")


def test_code_in_a_checkpoint_is_never_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "evil", "architectures": ["Evil"]}
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\n")
    refused(copy, CheckpointRefused, "cannot load")
    assert not (copy / "ran").exists()


def test_other_things_that_are_no_checkpoint(copy: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", NotFoundError, "no checkpoint")
    (copy / "adapter_config.json").write_text("{}")
    refused(copy, CheckpointRefused, "adapter beside its weights")
    (copy / "adapter_config.json").unlink()
    (copy / "config.json").rename(copy / "kept.json")
    refused(copy, NotFoundError, r"no config\.json")
    (copy / "config.json").write_text('{"model_type": "nothing-known"}')
    refused(copy, CheckpointRefused, "cannot load")
    (copy / "config.json").write_text("{")
    refused(copy, CheckpointRefused, "cannot load")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-10])
    (copy / "kept.json").replace(copy / "config.json")
    refused(copy, FormatError, "truncated")
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    refused(copy, CheckpointRefused, "pickle")


def test_a_checkpoint_without_tokenizer_is_refused(copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(CheckpointRefused, match="no usable tokenizer"):
        load_tokenizer(copy)


def test_threads_may_load_at_once(tiny_tied: Path) -> None:
    """transformers sets what the whole process sees while it loads: two at once would miss tensors."""
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load(tiny_tied), range(8)))
    first = loaded[0][0].state_dict()
    for model, _ in loaded[1:]:
        assert all(torch.equal(tensor, first[name]) for name, tensor in model.state_dict().items())
