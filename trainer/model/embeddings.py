"""Sentence embeddings from a local model, and logistic regression on them or on word counts, for
baselines and checks without a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.errors import BadInput
from trainer.model.base_card import find_prefix
from trainer.model.device import quiet_transformers
from trainer.model.encoder import collate_rows, find_pooling, pool_mean
from trainer.model.scoring import token_batches
from trainer.progress import progress, track
from worker.contract import Pooling
from worker.contract.text import normalize

# The limit of all-MiniLM-L6-v2, for folders without sentence_bert_config.json.
_DEFAULT_MAX_TOKENS = 256


C_GRID = (1.0, 3.0, 10.0, 30.0, 100.0)
"""The inverse strengths of the L2 penalty to try."""

EMBEDDING_LENGTH = 2.0
"""The length to which sentence embeddings are scaled if they are the only feature, so that
``C_GRID`` contains good penalties."""

_MAX_ITERATIONS = 1000
_PATIENCE = 2


def embed(texts: Sequence[str], directory: Path) -> NDArray[np.float32]:
    """Return one unit vector a text, (texts, dimensions).

    Pooled as the directory says, else the mean over the attention mask, then L2 norm (Reimers &
    Gurevych 2019, arXiv 1908.10084). Texts are normalized as in the worker, and cut at the model's
    limit of tokens. Reads only local files; deterministic on one machine. Raises BadInput if the
    directory has no embedding model.
    """
    tokenizer, model, limit = _load(directory)
    if not texts:
        return np.empty((0, int(model.config.hidden_size)), dtype=np.float32)
    prefix, pooling = find_prefix(directory), find_pooling(directory, "auto")
    tokens: list[list[int]] = tokenizer(
        [prefix + normalize(text) for text in texts],
        truncation=True,
        max_length=limit,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    vectors = np.empty((len(tokens), int(model.config.hidden_size)), dtype=np.float32)
    with torch.inference_mode(), progress("embedding", len(tokens)) as advance:
        for chosen in token_batches([len(ids) for ids in tokens]):
            rows = [tokens[at] for at in chosen]
            vectors[chosen] = _pool(model, rows, tokenizer.pad_token_id, pooling)
            advance(len(chosen))
    return vectors


def _load(directory: Path) -> tuple[Any, Any, int]:
    from transformers import AutoModel, AutoTokenizer  # takes seconds

    quiet_transformers()
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = AutoModel.from_pretrained(
            directory, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"{directory}: cannot load an embedding model: {error}") from error
    limit = _DEFAULT_MAX_TOKENS
    settings = directory / "sentence_bert_config.json"
    if settings.is_file():
        limit = int(json.loads(settings.read_text(encoding="utf-8"))["max_seq_length"])
    return tokenizer, model.eval(), limit


def _pool(
    model: Any, tokens: Sequence[Sequence[int]], pad_id: int, pooling: Pooling
) -> NDArray[np.float32]:
    ids, mask = collate_rows(tokens, pad_id, torch.device("cpu"))
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = states[:, 0] if pooling == "cls" else pool_mean(states, mask)
    unit = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return np.asarray(unit, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted model, its penalty, and its accuracy on validation."""

    accuracy: float
    c: float
    model: Any


def fit_grid(
    x: Any,
    classes: Sequence[Any],
    measure: Callable[[Any], float],
    *,
    grid: Sequence[float] = C_GRID,
) -> Iterator[Fit]:
    """Fit features ``x``, (messages, features), with each C of ``grid``, ascending, until two in a
    row are not better; ``measure`` returns a fitted model's accuracy on validation."""

    def fit(c: float) -> Fit:
        model = fit_linear(x, classes, c)
        return Fit(measure(model), c, model)

    return _climb(fit, grid)


def fit_linear(x: Any, classes: Sequence[Any], c: float) -> Any:
    """Fit logistic regression to features ``x``, (messages, features), with one C."""
    from sklearn.linear_model import LogisticRegression  # takes a second

    # No warm start: scikit-learn would take the previous solution for converged.
    return LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(x, classes)


def fit_by_folds(
    x: NDArray[np.float64],
    classes: Sequence[int],
    folds: NDArray[np.int64],
    outputs: int,
    measure: Callable[[NDArray[np.float64]], float],
) -> Iterator[Fit]:
    """Yield the same as ``fit_grid`` without validation: each ``Fit.model`` is an array, (messages,
    ``outputs``), of each message's logits by a model that learned the other ``folds``."""

    def fit(c: float) -> Fit:
        scores = _held_out(x, np.array(classes), folds, outputs, c)
        return Fit(measure(scores), c, scores)

    return _climb(fit, C_GRID)


def _held_out(
    x: NDArray[np.float64],
    classes: NDArray[np.int64],
    folds: NDArray[np.int64],
    outputs: int,
    c: float,
) -> NDArray[np.float64]:
    scores = np.empty((len(x), outputs))
    for fold in track("fitting", np.unique(folds).tolist()):
        asked = folds == fold
        weights, biases = linear_layer(fit_linear(x[~asked], classes[~asked].tolist(), c), outputs)
        found = x[asked] @ weights.T + biases
        # A class that occurs in this fold only is unknown to its model, which gives it a logit of
        # -10,000. A few such rows would decide the temperature.
        learnt = np.unique(classes[~asked])
        absent = np.setdiff1d(np.arange(outputs), learnt)
        found[:, absent] = found[:, learnt].min(axis=1, keepdims=True)
        scores[asked] = found
    return scores


def _climb(fit: Callable[[float], Fit], grid: Sequence[float]) -> Iterator[Fit]:
    highest, worse = -1.0, 0
    for c in sorted(grid):
        found = fit(c)
        yield found
        worse = 0 if found.accuracy > highest else worse + 1
        highest = max(highest, found.accuracy)
        if worse == _PATIENCE:
            return


def linear_layer(model: Any, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights, (classes, features), and biases, (classes), of a softmax layer equal to
    the fitted model, whose classes are numbers. Classes that do not occur get a bias of -10,000."""
    weights = np.zeros((classes, model.coef_.shape[1]))
    # Finite, because golden logits and validation scores are written as JSON, which has no
    # infinity.
    biases = np.full(classes, -1e4)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps only the second class's row
        # The softmax of (-z/2, z/2) is the sigmoid of z.
        coefficients = np.vstack([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    weights[model.classes_] = coefficients
    biases[model.classes_] = intercepts
    return weights, biases
