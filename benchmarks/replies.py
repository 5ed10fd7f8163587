"""How long replies are: `concise` beside its base, on held-out prompts, greedy."""

from __future__ import annotations

import numpy as np

from benchmarks.kit import BASE, ROWS, Bars, fine_tune
from pv.vecstore.data.rows import read_rows
from pv.vecstore.evaluate.statistics import bootstrap
from pv.vecstore.models.generate import replies
from pv.vecstore.models.load import load

MAX_TOKENS = 96


def main() -> bool:
    bars = Bars()
    prompts = [row.prompt for row in read_rows(ROWS / "concise.heldout.jsonl")]
    lengths = {}
    for label, folder in (("base", BASE), ("concise", fine_tune("concise", optimizer="apollo", lr=1e-4))):
        model, tokenizer = load(folder)
        found = replies(model, tokenizer, prompts, MAX_TOKENS)
        lengths[label] = np.array([len(tokenizer(text)["input_ids"]) for text in found], np.float64)
        print(f"{label}: {lengths[label].mean():.1f} tokens a reply, cut at {MAX_TOKENS}; {found[0][:80]!r}")
    change = bootstrap(lengths["concise"] - lengths["base"])
    value = f"{change.mean:+.1f} [{change.low:+.1f}, {change.high:+.1f}] tokens, n={change.n}"
    bars.say("replies of concise against its base", value, "below 0", change.high < 0)
    return bars.all_hold
