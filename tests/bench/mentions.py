"""Whether ordinary mentions of other topics are read: messages that wish for a label, in pairs.

    python -m tests.bench.mentions RUN/adapter [ADAPTER...]

Each pair has the same wish ("I think this is a refund matter"): in one message it is wrong, in the
other right. A model that follows wishes gets half of them, and so does one that avoids what is
wished for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from trainer.evaluation.predictions import outputs_of
from trainer.model.bases import resolve_base
from trainer.model.lora_model import encode_prompts
from trainer.model.prompt import load_tokenizer
from trainer.model.published import open_scorer
from worker.contract import load_adapter

PAIRS = Path(__file__).with_name("mentions.jsonl")


def measure(adapter: Path) -> tuple[float, float, float]:
    """Return the shares of right answers where the wish is wrong, where it is right, and of pairs
    with both right."""
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    manifest = load_adapter(adapter)
    base = resolve_base("auto", manifest)
    prompts = encode_prompts(
        {row["id"]: row["message"] for row in rows},
        manifest.prompt,
        load_tokenizer(base or adapter),
    )
    scorer = open_scorer(adapter, base, manifest, list(prompts.values()))
    found = scorer.score(list(prompts.values()), batch_size=8)
    decisions = outputs_of(manifest).decide(found.logprobs, manifest.calibration.temperature)
    right = np.array(
        [each.label == row["label"] for each, row in zip(decisions, rows, strict=True)]
    ).reshape(-1, 2)
    return float(right[:, 0].mean()), float(right[:, 1].mean()), float(right.all(axis=1).mean())


if __name__ == "__main__":
    print("adapter: right where the wish is wrong, where it is right, both of a pair")
    for given in map(Path, sys.argv[1:]):
        print(f"{given}: " + ", ".join(f"{share:.0%}" for share in measure(given)))
