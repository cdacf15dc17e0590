"""Whether seeds averaged are better than one seed: their probabilities, and their weights.

    python -m tests.bench.soup RUN RUN [RUN...] --dataset DIR

The runs are of one recipe, dataset and base, and differ in the seed. The mean of their weights'
updates (Wortsman et al. 2022, arXiv 2203.05482) is an adapter again, of as many times the rank,
and costs a worker no more than one of them does once merged; the mean of probabilities has to be
served as many adapters. Judged by validation alone; nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.dataset.folder import open_dataset
from trainer.model.lora_model import encode_prompts, label_token_ids, load_as_served, read_weights
from trainer.model.published import open_scorer, read_adapter
from trainer.model.scoring import make_verified_scorer
from trainer.statistics.calibration import Floats
from trainer.training.run_folder import ADAPTER
from worker.demo.base_model import ensure_base_model


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return LoRA weights whose update is the mean of the given ones': the ranks side by side."""
    found = {}
    for name in states[0]:
        parts = [state[name] for state in states]
        inner = ".lora_A." in name
        found[name] = torch.cat(parts, dim=0) if inner else torch.cat(parts, dim=1) / len(parts)
    return found


def main() -> int:
    """Score validation by each run, by the mean of them, and by the mean of their weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--dataset", type=Path, required=True)
    given = parser.parse_args()
    base = ensure_base_model()
    dataset = open_dataset(given.dataset)
    labels = dataset.taxonomy.names
    truth = np.array([labels.index(example.label) for example in dataset.validation])
    messages = {example.id: example.message for example in dataset.validation}
    adapters = [run / ADAPTER for run in given.runs]
    scores: list[Floats] = []
    for directory in adapters:
        manifest, tokenizer = read_adapter(directory, base)
        prompts = list(encode_prompts(messages, manifest.prompt, tokenizer).values())
        scorer = open_scorer(directory, base, manifest, prompts, device="auto")
        scores.append(scorer.score(prompts).logprobs)
        tell(directory.parent.name, scores[-1], truth)
    tell("mean of probabilities", np.log(np.mean(np.exp(scores), axis=0)), truth)
    assert manifest.lora is not None
    count = len(adapters)
    shape = replace(
        manifest.lora, rank=count * manifest.lora.rank, alpha=count * manifest.lora.alpha
    )
    model = load_as_served(base, shape, device="auto", in_4bit=False)
    model.load_state_dict(average([read_weights(directory) for directory in adapters]))
    label_ids = label_token_ids(manifest.codes, labels)
    averaged = make_verified_scorer(model, manifest.prompt.prefix_ids, label_ids, prompts)
    tell("mean of weights", averaged.score(prompts).logprobs, truth)
    return 0


def tell(name: str, logprobs: Floats, truth: np.ndarray) -> None:
    """Print accuracy and loss, in nats a message, of scores (messages, labels)."""
    rows = np.arange(len(truth))
    right = (logprobs.argmax(axis=1) == truth).mean()
    print(f"{name}: accuracy {right:.1%}, loss {-logprobs[rows, truth].mean():.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
