"""The adapter in service as the judge of unlabelled messages, whatever kind of model it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.dataset.folder import Dataset
from trainer.errors import BadInput
from trainer.evaluation.predictions import outputs_of
from trainer.model.lora_model import encode_prompts
from trainer.model.published import open_scorer, read_adapter
from trainer.model.scoring import BATCH_SIZE
from trainer.tasks.make import Pool, PoolScores, make_features


def judge_by_adapter(
    dataset: Dataset,
    pool: Pool,
    adapter: Path,
    base: Path | None,
    embeddings: Path | None,
    *,
    device: str = "auto",
) -> PoolScores:
    """Score the pool as serving does. Raises BadInput where the adapter has other labels than the
    dataset, AdapterRefused where a worker would refuse it."""
    manifest, tokenizer = read_adapter(adapter, base)
    names = dataset.taxonomy.names
    if set(manifest.taxonomy.names) != set(names):
        raise BadInput(f"{adapter}: its labels are not the dataset's: take an adapter of these")
    prompts = encode_prompts(
        {str(at): example.message for at, example in enumerate(pool.examples)},
        manifest.prompt,
        tokenizer,
    )
    scorer = open_scorer(adapter, base, manifest, list(prompts.values()), device=device)
    scores = scorer.score(
        list(prompts.values()), batch_size=BATCH_SIZE, on_progress=lambda _done: None
    )
    found = outputs_of(manifest).probabilities(scores.logprobs, manifest.calibration.temperature)
    order = [manifest.taxonomy.names.index(name) for name in names]
    texts = [example.message for example in (*dataset.train, *pool.examples)]
    features = make_features(texts, embeddings)
    cut = len(dataset.train)
    return PoolScores(
        np.asarray(found[:, order]), features[cut:], features[:cut], f"adapter {manifest.name}"
    )
