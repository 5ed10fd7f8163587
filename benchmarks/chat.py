"""How long `pv chat -p` takes of a build that was kept takes: a whole process, beside transformers on the same build.

In pairs, one after the other. The peer loads as transformers does unless told otherwise (bf16 here), and as pv does
(float32, so that replies are what `eval` measures); the bar is held against the former.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.kit import BASE, Bars, base_tensors, pv, write_checkpoint

PAIRS = int(os.environ.get("PV_BENCH_PAIRS", "7"))
PROMPT, TOKENS = "How do I ride a bicycle uphill?", 30
BAR = 1.2
PEER = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
kind = {} if sys.argv[2] == "default" else {"dtype": torch.float32}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], **kind)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
asked = tokenizer.apply_chat_template(
    [{"role": "user", "content": sys.argv[3]}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
said = model.generate(**asked, max_new_tokens=int(sys.argv[4]), do_sample=False)
print(tokenizer.decode(said[0][asked["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def main() -> bool:
    bars = Bars()
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        folder = Path(tmp)
        pv("init", "--base", str(BASE), "--reference", cwd=folder)
        tuned = {name: raw ^ (np.arange(len(raw)) % 7 == 0) for name, raw in base_tensors().items()}
        write_checkpoint(folder / "tuned", tuned)  # a seventh of all weights differ in the last bit
        pv("commit", "tuned", "--as", "near", cwd=folder)
        pv("build", "-o", "built", cwd=folder)
        ask = [sys.executable, "-m", "pv.cli.main", "chat", "-p", PROMPT, "--max-tokens", str(TOKENS)]
        peers = {
            kind: [sys.executable, "-c", PEER, "built", kind, PROMPT, str(TOKENS)]
            for kind in ("default", "float32")
        }
        cold = _seconds(ask, folder)
        warm: list[float] = []
        times: dict[str, list[float]] = {kind: [] for kind in peers}
        for _ in range(PAIRS):
            warm.append(_seconds(ask, folder))
            for kind, command in peers.items():
                times[kind].append(_seconds(command, folder))
        print(
            f"pv chat -p, {TOKENS} tokens: {cold:.2f} s the first time, {statistics.median(warm):.2f} s after that"
        )
        for kind, taken in times.items():
            ratio = statistics.median(a / b for a, b in zip(warm, taken, strict=True))
            value = f"{ratio:.2f} of {statistics.median(taken):.2f} s, {PAIRS} pairs"
            bars.say(f"pv chat -p beside transformers, {kind}", value, f"<= {BAR}", ratio <= BAR)
    return bars.all_hold


def _seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - started
