"""``python -m tests.bench.names``: what it costs that training saw marks and serving sees names.

The demo's messages are signed, a share of them, by people of made-up names; those of the hold-out
are others than those of training. A model of word counts learns from messages with ``[name]``, as
``prepare --redact-names`` leaves them, and is judged on messages with the same mark, as an
evaluation does it, and with the names, as a worker sees them; one that learnt with the names is
judged too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.dataset.folder import Example
from trainer.dataset.names import NAME
from trainer.duel.baselines import make_split
from trainer.duel.linear import train_linear
from trainer.model.embeddings import find_embedding_model

DATA = Path(__file__).parents[2] / "worker" / "demo" / "data"
FIRST = (
    "Ann Ben Cleo Dora Emil Finn Greta Hugo Ines Jonas Karla Leon Mara Nils Olga Pia Quin Rosa "
    "Sven Tilda Uwe Vera Willem Xenia Yusuf Zoe Amir Bianca Carlos Deepa Elif Fatou Giulia Hassan"
)
LAST = (
    "Archer Baumann Costa Dufour Eriksen Fischer Garcia Hale Ivanov Jansen Kaya Laurent Meyer "
    "Novak Okafor Petersen Quist Rossi Schulz Tanaka Ullman Vogel Weber Xu Young Zeman Field Stone"
)
SAID = (
    "Hi, {name} here. {message}",
    "My name is {name}. {message}",
    "{message} Thanks, {name}",
    "{message}\n{name}",
    "{message} The order is under {name}.",
)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.names", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--embeddings", action="store_true", help="sentence embeddings as well")
    given = parser.parse_args()
    model = find_embedding_model() if given.embeddings else None
    train, holdout = (_read(DATA / f"{part}.jsonl") for part in ("train", "holdout"))
    for share in (0.3, 1.0):
        found = [_measure(train, holdout, share, seed, model) for seed in range(given.seeds)]
        marks, names, differ, known = np.mean(found, axis=0)
        print(
            f"{share:.0%} of messages with a name: learnt with marks, right on marks {marks:.1%}, "
            f"on names {names:.1%}, {differ:.1%} answered otherwise; learnt with names {known:.1%}"
        )


def _measure(
    train: Sequence[Example], holdout: Sequence[Example], share: float, seed: int,
    model: Path | None,
) -> tuple[float, float, float, float]:  # fmt: skip
    people = [f"{first} {last}" for first, last in itertools.product(FIRST.split(), LAST.split())]
    random.Random(seed).shuffle(people)
    half = len(people) // 2
    learnt = _sign(train, people[:half], share, seed)
    held = _sign(holdout, people[half:], share, seed + 1)
    both = [mark for mark, _ in held] + [name for _, name in held]
    answers = _answers([mark for mark, _ in learnt], both, model)
    marked, named = np.array(answers[: len(held)]), np.array(answers[len(held) :])
    known = np.array(_answers([name for _, name in learnt], both, model)[len(held) :])
    truth = np.array([example.label for example in holdout])
    return (
        float((marked == truth).mean()),
        float((named == truth).mean()),
        float((marked != named).mean()),
        float((known == truth).mean()),
    )


def _sign(
    examples: Sequence[Example], people: Sequence[str], share: float, seed: int
) -> list[tuple[Example, Example]]:
    """Return each message with a mark, and the same with a name."""
    rng = random.Random(seed)
    signed = []
    for example in examples:
        said = rng.choice(SAID) if rng.random() < share else "{message}"
        name = rng.choice(people)
        mark, named = (
            Example(example.id, said.format(name=who, message=example.message), example.label)
            for who in (NAME, name)
        )
        signed.append((mark, named))
    return signed


def _answers(learnt: Sequence[Example], asked: Sequence[Example], model: Path | None) -> list[str]:
    labels = sorted({example.label for example in learnt})
    train, judged = (make_split(tuple(part), model, lambda _: None) for part in (learnt, asked))
    trained = train_linear(
        train, train, judged, labels, features="combined" if model else "tfidf", sublabels=False,
        hyperparameters={"C": 10.0},
    )  # fmt: skip
    return [labels[at] for at in trained.probabilities.argmax(axis=1)]


def _read(path: Path) -> list[Example]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Example(str(at), row["message"], row["label"]) for at, row in enumerate(rows)]


if __name__ == "__main__":
    main()
