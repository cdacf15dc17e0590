"""A taxonomy that is wrong on purpose, and after how many decisions the advice says so.

    python -m tests.bench.circle_labels --out DIR [--tickets tickets.csv]

Two labels that are one (people guess between them), one that is two (under one name), and one that
is missing (people say that no label fits). People are wrong once in twenty times. Messages are
decided in random order, by two people each for the first fault; every 25 decisions the advice is
asked. Beside each fault the same is done with nothing planted, which says how often the advice is
wrong. Writes circle-labels.json: figures, no text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.circle_data import Ints, Messages, load
from trainer.advice.opinions import DecidedMessage
from trainer.advice.pairs import find_pairs
from trainer.advice.shape import find_missing
from trainer.advice.split import find_split

MISTAKES = 0.05
STEP = 25
MOST = 1500
PER_LABEL = (150, 200, 300, 400)
KNOWN = 100


def main() -> None:
    """Plant each fault with each seed, and write after how many decisions it was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tickets", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    messages = load(given.tickets, given.out)
    result: dict[str, Any] = {}
    for name, find in FAULTS.items():
        rows = [find(messages, seed) for seed in range(given.seeds)]
        result[name] = {
            "found_after": [found for found, _ in rows],
            "wrong_words": [wrong for _, wrong in rows],
        }
        print(name, result[name], flush=True)
    (given.out / "circle-labels.json").write_text(json.dumps(result, indent=1) + "\n")


def two_that_are_one(messages: Messages, seed: int) -> tuple[int | None, int]:
    """Return after how many doubly decided messages the pair was called confused or one, and how
    many other pairs were named by then, or without it."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(messages.labels))[:MOST]
    pair = tuple(sorted(draw.choice(len(messages.names), 2, replace=False).tolist()))
    wanted = tuple(sorted(messages.names[at] for at in pair))
    told: dict[bool, list[DecidedMessage]] = {True: [], False: []}
    wrong = 0
    for number, at in enumerate(order, start=1):
        for planted, decided in told.items():
            said = [_say(messages, int(at), pair if planted else (), draw) for _ in range(2)]
            decided.append(DecidedMessage(str(at), str(at), opinions=said))
        if number % STEP == 0:
            wrong = max(wrong, len(find_pairs(told[False], messages.names)))
            found = {each.labels for each in find_pairs(told[True], messages.names)}
            if wanted in found:
                return number, wrong + len(found) - 1
    return None, wrong


def _say(messages: Messages, at: int, pair: Any, draw: np.random.Generator) -> str:
    label = int(messages.labels[at])
    if label in pair:
        label = int(draw.choice(pair))
    if draw.random() < MISTAKES:
        label = int(draw.integers(len(messages.names)))
    return messages.names[label]


def one_that_is_two(messages: Messages, seed: int) -> tuple[int | None, int]:
    """Return from how many messages of it on a label of two is named, and how many others were
    called two, with it or without."""
    draw = np.random.default_rng(seed)
    first, second = draw.choice(len(messages.names), 2, replace=False).tolist()
    wrong = 0
    for size in PER_LABEL:
        parts = [_some(messages, label, size, draw) for label in range(len(messages.names))]
        sound = find_split([messages.features[part] for part in parts], messages.names)
        wrong = max(wrong, sum(each.strange for each in sound))
        both = np.concatenate([parts[first][: size // 2], parts[second][: size // 2]])
        rest = [at for at in range(len(messages.names)) if at not in {first, second}]
        vectors = [messages.features[both], *(messages.features[parts[at]] for at in rest)]
        names = ["both", *(messages.names[at] for at in rest)]
        found = find_split(vectors, names)
        if "both" in {each.label for each in found}:
            return len(both), wrong + sum(each.strange for each in found if each.label != "both")
    return None, wrong


def one_that_is_missing(messages: Messages, seed: int) -> tuple[int | None, int]:
    """Return after how many decisions a cluster of the missing label was told, and how many others
    were, with it or without."""
    draw = np.random.default_rng(seed)
    gone = int(draw.integers(len(messages.names)))
    known = np.concatenate(
        [_some(messages, at, KNOWN, draw) for at in range(len(messages.names)) if at != gone]
    )
    order = np.setdiff1d(np.arange(len(messages.labels)), known)
    order = draw.permutation(order)[:MOST]
    wrong = 0
    slips = draw.random(len(order)) < MISTAKES
    for number in range(STEP, len(order) + 1, STEP):
        seen, slipped = order[:number], slips[:number]
        of_it = messages.labels[seen] == gone
        sound = _missing(messages, seen[slipped & ~of_it], seen[~slipped & ~of_it], known)
        wrong = max(wrong, len(sound))
        dropped = seen[np.where(of_it, ~slipped, slipped)]
        kept = seen[np.where(of_it, slipped, ~slipped)]
        found = _missing(messages, dropped, kept, known)
        hits = [
            (messages.labels[dropped[list(each.places)]] == gone).mean() > 0.8 for each in found
        ]
        if any(hits):
            return number, wrong + hits.count(False)
    return None, wrong


def _missing(messages: Messages, dropped: Ints, kept: Ints, known: Ints) -> list[Any]:
    beside = messages.features[np.concatenate([kept, known])]
    return list(find_missing(messages.features[dropped], beside))


def _some(messages: Messages, label: int, size: int, draw: np.random.Generator) -> Ints:
    return np.asarray(draw.permutation(np.flatnonzero(messages.labels == label))[:size])


FAULTS: dict[str, Callable[[Messages, int], tuple[int | None, int]]] = {
    "two labels that are one": two_that_are_one,
    "one label that is two": one_that_is_two,
    "a label that is missing": one_that_is_missing,
}

if __name__ == "__main__":
    main()
