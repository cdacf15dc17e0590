"""How often the advice names a label that is two, and calls one two: where it is, and where not.

    python -m tests.bench.circle_split --out DIR [--tickets tickets.csv]

From each label so many messages are drawn, with several seeds. Sound: the advice is asked about the
labels as they are. Planted: two labels, half of each, under one name, beside the others as they
are; every pair, or so many at random. With finer labels there are taxonomies of other makers too:
of their centres, grouped by Ward's method into 7 to 11 labels, some of the finer labels left out;
and of twelve finer labels each by itself. Counted are the planted ones that are named, first or
second of two, and called two, by how near the two are (the third of the pairs whose centres are
nearest, the middle third, the furthest), and the sound taxonomies in which a label is called two.
Two of ten would be named by chance two times in ten. Writes circle-split.json: figures, no text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

from tests.bench.circle_data import Ints, Messages, load
from trainer.advice.split import find_split

SIZES = (400, 200, 150)
Parts = list[NDArray[np.float32]]
Draw = np.random.Generator


def main() -> None:
    """Plant, ask, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tickets", type=Path)
    parser.add_argument("--own", action="store_true", help="no taxonomies of other makers")
    for name, usual in (("seeds", 10), ("pairs", 12)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    messages = load(given.tickets, given.out)
    makers: dict[str, Callable[[Messages, Draw], list[Ints]]] = {"own": own_labels}
    if messages.sublabels.max() > messages.labels.max() and not given.own:
        makers |= {"by Ward's method": ward_labels, "finer labels": finer_labels}
    result = []
    for name, make in makers.items():
        for size in given.sizes:
            row = {"taxonomies": name, "messages_a_label": size}
            row |= study(messages, make, size, given.seeds, given.pairs)
            print(row, flush=True)
            result.append(row)
    (given.out / "circle-split.json").write_text(json.dumps(result, indent=1) + "\n")


def own_labels(messages: Messages, _draw: Draw) -> list[Ints]:
    """Return the places of each label's messages."""
    return [np.flatnonzero(messages.labels == at) for at in range(len(messages.names))]


def finer_labels(messages: Messages, draw: Draw) -> list[Ints]:
    """Return those of the finer labels, in any order."""
    return [
        np.flatnonzero(messages.sublabels == at)
        for at in draw.permutation(messages.sublabels.max() + 1)
    ]


def ward_labels(messages: Messages, draw: Draw) -> list[Ints]:
    """Return those of labels that are neighbouring finer labels."""
    fine = draw.permutation(messages.sublabels.max() + 1)[: draw.integers(40, 70)]
    centres = [messages.features[messages.sublabels == at].mean(axis=0) for at in fine]
    made = AgglomerativeClustering(int(draw.integers(7, 12))).fit_predict(np.stack(centres))
    return [
        np.flatnonzero(np.isin(messages.sublabels, fine[made == at]))
        for at in range(made.max() + 1)
    ]


def study(
    messages: Messages,
    make: Callable[[Messages, Draw], list[Ints]],
    size: int,
    seeds: int,
    pairs: int,
) -> dict[str, Any]:
    """Return how many taxonomies of each kind there were, and of how many what was said."""
    sound, wrong, beside, planted_ones = 0, 0, 0, []
    for seed in range(seeds):
        draw = np.random.default_rng([seed, 3])
        found = [
            draw.permutation(each)[:size] for each in make(messages, draw) if len(each) >= size
        ]
        parts = [messages.features[each] for each in found][:12]
        if len(parts) < 7:
            continue
        sound += 1
        names = [str(at) for at in range(len(parts))]
        wrong += any(each.strange for each in find_split(parts, names))
        for apart, vectors in planted(parts, size, draw, pairs):
            told = find_split(vectors, ["both", *names[1 : len(vectors)]])
            places = [at for at, each in enumerate(told) if each.label == "both"]
            called = any(told[at].strange for at in places)
            planted_ones.append((apart, places == [0], bool(places), called))
            beside += any(each.strange for each in told if each.label != "both")
    ranked = [hits for _, *hits in sorted(planted_ones)]
    thirds = np.array_split(np.array(ranked, dtype=int), 3) if ranked else []
    return {
        "sound": sound, "sound_called_two": wrong, "planted": len(ranked), "beside": beside,
        "first_named_called_by_third": [[len(part), *part.sum(axis=0).tolist()] for part in thirds],
        "first_named_called": np.array(ranked, dtype=int).sum(axis=0).tolist(),
    }  # fmt: skip


def planted(parts: Parts, size: int, draw: Draw, most: int) -> Iterator[tuple[float, Parts]]:
    """Yield taxonomies whose first label is two, and how far apart the two labels' centres are."""
    everything = list(combinations(range(len(parts)), 2))
    for place in draw.permutation(len(everything))[:most].tolist():
        first, second = everything[place]
        both = np.concatenate([parts[first][: size // 2], parts[second][: size // 2]])
        apart = np.linalg.norm(parts[first].mean(axis=0) - parts[second].mean(axis=0))
        rest = [rows for at, rows in enumerate(parts) if at not in {first, second}]
        yield float(apart), [both, *rest]


if __name__ == "__main__":
    main()
