"""By what an epoch is best kept: the rules tried on small networks whose true accuracy is known.

    python -m tests.bench.epochs --out DIR [--trainings 300]

Each training draws its own: how many of the shop's messages it learns, how many validate, the
learning rate, the number of epochs, the share of wrong labels, and whether it reads sentence
embeddings or word counts. Networks of one hidden layer, AdamW, warm-up and cosine decay as in
``trainer.training.loop``. Near-duplicates are left out. After each epoch every rule sees the
validation scores; the rest of the messages, 2,000 and more with their right labels, say how good
the epoch is: accuracy, NLL under the temperature that validation fits, and the share that is
labelled rightly without a person (threshold by the lower bound, 0.9). Prints each rule's mean
difference from the lowest raw loss, with its 95 % interval over trainings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from torch.nn.functional import cross_entropy

from tests.bench.circle_data import Messages, load
from trainer.statistics.calibration import (
    Floats,
    Ints,
    cross_fitted,
    fit_temperature,
    nll,
    temperature_softmax,
)
from trainer.statistics.thresholds import review_threshold
from trainer.training.loop import lr_factor

LEARNT = (330, 1000, 2000)
VALIDATING = (110, 330, 600)
WRONG = (0.0, 0.08)
HIDDEN, BATCH, WORDS = 128, 32, 1500
PROMISE = 0.9

Figures = dict[str, float]


def main() -> int:
    """Train, keep by each rule, and print the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trainings", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="seed of the first training")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    messages = load(None, given.out)
    alone = np.unique(messages.clusters, return_index=True)[1]
    path = given.out / f"epochs-{given.first}.jsonl"
    done = _read(path)
    with path.open("a", encoding="utf-8") as file:
        for seed in range(given.first + len(done), given.first + given.trainings):
            done.append(train_one(messages, alone, seed))
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    everything = [row for kept in sorted(given.out.glob("epochs-*.jsonl")) for row in _read(kept)]
    print(table(everything))
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def train_one(messages: Messages, alone: Ints, seed: int) -> dict[str, Any]:
    """Return a training's settings, and the figures of each of its epochs."""
    draw = np.random.default_rng(seed)
    learnt, validating = int(draw.choice(LEARNT)), int(draw.choice(VALIDATING))
    rate, epochs = float(np.exp(draw.uniform(np.log(5e-4), np.log(1e-2)))), int(draw.integers(3, 9))
    wrong, counts = float(draw.choice(WRONG)), bool(draw.integers(2))
    order = draw.permutation(alone)
    train, validation, rest = np.split(order, [learnt, learnt + validating])
    x = _features(messages, train, counts=counts)
    given = messages.labels.copy()
    slips = draw.random(len(given)) < wrong
    given[slips] = draw.integers(len(messages.names), size=int(slips.sum()))
    torch.manual_seed(seed)
    asked = (torch.tensor(validation), torch.tensor(rest))
    scores = _train(x, torch.tensor(given), torch.tensor(train), asked, rate, epochs)
    return {
        "seed": seed, "learnt": learnt, "validating": validating, "rate": rate, "wrong": wrong,
        "counts": counts,
        "epochs": [
            _look(of_validation, given[validation]) | _truth(of_validation, given[validation],
                                                             of_rest, messages.labels[rest])
            for of_validation, of_rest in scores
        ],
    }  # fmt: skip


def _features(messages: Messages, train: Ints, *, counts: bool) -> torch.Tensor:
    if not counts:
        return torch.tensor(messages.features * 10, dtype=torch.float32)
    texts = list(messages.texts)
    words = TfidfVectorizer(sublinear_tf=True, max_features=WORDS).fit([texts[at] for at in train])
    return torch.tensor(words.transform(texts).toarray() * 6, dtype=torch.float32)


def _train(
    x: torch.Tensor,
    target: torch.Tensor,
    train: torch.Tensor,
    asked: Sequence[torch.Tensor],
    rate: float,
    epochs: int,
) -> list[list[Floats]]:
    """Return the scores (messages, labels) of each of ``asked`` after each epoch."""
    net = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], HIDDEN),
        torch.nn.GELU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(HIDDEN, int(target.max()) + 1),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.0)
    steps = -(-len(train) // BATCH) * epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: lr_factor(at, steps, 0.06))
    found = []
    for _ in range(epochs):
        net.train()
        shuffled = train[torch.randperm(len(train))]
        for at in range(0, len(train), BATCH):
            batch = shuffled[at : at + BATCH]
            optimizer.zero_grad()
            cross_entropy(net(x[batch]), target[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.inference_mode():
            found.append([net(x[of]).double().numpy() for of in asked])
    return found


def _look(scores: Floats, truth: Ints) -> Figures:
    """Return all that a rule may look at: figures of validation."""
    predicted = scores.argmax(axis=1)
    tempered = temperature_softmax(scores, fit_temperature(scores, truth))
    return {
        "loss": nll(temperature_softmax(scores, 1.0), truth),
        "tempered": nll(tempered, truth),
        "crossed": nll(cross_fitted(scores, truth, seed=0), truth),
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0)),
    }


def _truth(validation: Floats, given: Ints, rest: Floats, truth: Ints) -> Figures:
    """Return how good the epoch is on the messages that no rule sees."""
    temperature = fit_temperature(validation, given)
    crossed = cross_fitted(validation, given, seed=0)
    threshold = review_threshold(
        crossed.max(axis=1), crossed.argmax(axis=1) == given, PROMISE, floor=0.5
    )
    probabilities = temperature_softmax(rest, temperature)
    right = probabilities.argmax(axis=1) == truth
    return {
        "true_accuracy": float(right.mean()),
        "true_nll": nll(probabilities, truth),
        "true_alone": float((right & (probabilities.max(axis=1) >= threshold)).mean()),
        "temperature": temperature,
    }


Rule = Callable[[Mapping[str, float]], tuple[float, ...]]

RULES: Mapping[str, Rule] = {
    "lowest loss (before)": lambda epoch: (epoch["loss"],),
    "lowest loss after the temperature": lambda epoch: (epoch["tempered"],),
    "the same, cross-fitted": lambda epoch: (epoch["crossed"],),
    "highest accuracy, then loss": lambda epoch: (-epoch["accuracy"], epoch["loss"]),
    "highest macro-F1, then loss": lambda epoch: (-epoch["macro_f1"], epoch["loss"]),
    "highest macro-F1, then loss after the temperature": lambda epoch: (
        -epoch["macro_f1"],
        epoch["tempered"],
    ),
    "the last epoch": lambda epoch: (-epoch["number"],),
    "the truly most accurate (nobody knows it)": lambda epoch: (-epoch["true_accuracy"],),
}

OUTCOMES = ("true_accuracy", "true_nll", "true_alone")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the differences from the first rule, of all trainings and of parts of them."""
    parts: dict[str, list[Mapping[str, Any]]] = {"all": list(rows)}
    for size in VALIDATING:
        parts[f"{size} validating"] = [row for row in rows if row["validating"] == size]
    parts["embeddings"] = [row for row in rows if not row["counts"]]
    parts["word counts"] = [row for row in rows if row["counts"]]
    parts["wrong labels"] = [row for row in rows if row["wrong"]]
    parts["right of two thirds or more"] = [row for row in rows if _best(row) > 2 / 3]
    parts["the loss turned"] = [row for row in rows if _turned(row)]
    lines = []
    for part, some in parts.items():
        if len(some) < 2:
            continue
        lines.append(f"{part}: {len(some)} trainings")
        usual = _kept(some, next(iter(RULES.values())))
        for name, rule in RULES.items():
            kept = _kept(some, rule)
            other = np.mean([a["number"] != b["number"] for a, b in zip(usual, kept, strict=True)])
            told = "; ".join(_difference(key, usual, kept) for key in OUTCOMES)
            lines.append(f"  {name:50} another epoch {other:4.0%}; {told}")
    return "\n".join(lines)


def _best(row: Mapping[str, Any]) -> float:
    return max(float(epoch["true_accuracy"]) for epoch in row["epochs"])


def _turned(row: Mapping[str, Any]) -> bool:
    losses = [float(epoch["loss"]) for epoch in row["epochs"]]
    return losses[-1] > min(losses)


def _kept(rows: Sequence[Mapping[str, Any]], rule: Rule) -> list[dict[str, float]]:
    found = []
    for row in rows:
        epochs = [{**epoch, "number": at} for at, epoch in enumerate(row["epochs"], start=1)]
        found.append(min(epochs, key=lambda epoch: (*rule(epoch), epoch["number"])))
    return found


def _difference(
    key: str, usual: Sequence[Mapping[str, float]], kept: Sequence[Mapping[str, float]]
) -> str:
    gaps: NDArray[np.float64] = np.array(
        [b[key] - a[key] for a, b in zip(usual, kept, strict=True)], dtype=np.float64
    )
    mean = float(np.mean([epoch[key] for epoch in kept]))
    half = 1.96 * gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.nan
    return f"{key.removeprefix('true_')} {mean:.4f} ({gaps.mean():+.4f} ± {half:.4f})"


if __name__ == "__main__":
    sys.exit(main())
