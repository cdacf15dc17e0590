"""The circle through the programs themselves: every round by the commands that a team gives, into
one store, by a canary that the worker's own judge watches, to its promotion.

    python -m tests.bench.circle_store --out DIR                              # the shop's messages
    python -m tests.bench.circle_store --out DIR --tickets tickets.csv --each 700 --precision 0.85

As tests/bench/circle.py it begins with so many examples a label, of which one in twenty is wrong,
and a reviewer who is wrong once in twenty times; one team decides what the circle asks (``tasks
--for check`` for a fifth, ``--for learn`` for the rest), the other as many random messages. A
round: decisions, ``propose``; where it says yes, a person's yes by ``propose --decided``; the
canary labels a share of simulated traffic beside the adapter in service, and ``promote`` follows,
or ``rollback`` where the judge stops it. The model is ``embedding-linear`` on all-MiniLM-L6-v2,
scored by PyTorch; its frozen embeddings are computed once (``circle_frozen``). Decisions of rounds
after which nothing was promoted are in the next proposal too.
Accuracy is that of what the store's pointer names (``evaluate``) on messages that nothing else has
seen. At the end two worse proposals are made, all decisions with a tenth of them flipped and a
tenth of all that was learnt flipped, and two that are as good, a fiftieth of it left out or merely
confirmed. Writes
circle-store.json (figures, no text) and circle-store.svg; each seed's figures are kept, and a run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.circle import ARMS, begin, compare_arms
from tests.bench.circle_data import Ints, Messages, load
from tests.bench.circle_frozen import kept_embeddings
from tests.bench.circle_plot import draw
from tests.bench.circle_team import GATE, Team, command
from tests.support.propose_world import gates
from trainer.dataset.folder import Example, write_dataset
from trainer.model.embeddings import find_embedding_model
from trainer.store.history import read_history
from worker.contract import Label, Taxonomy

RECIPE = """kind = "embedding-linear"
name = "circle"
base_name = "all-MiniLM-L6-v2"
base_revision = "1"
pooling = "mean"
max_message_tokens = 256
onnx = []
review_precision = %g
"""
PARTS = (("test", 0.15), ("traffic", 0.06), ("holdout", 0.15), ("pool", 0.64))


def main() -> None:
    """Go round with every seed, and write the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tickets", type=Path)
    parser.add_argument("--each", type=int)
    for name, usual in (("start", 100), ("validation", 40), ("rounds", 4), ("step", 300)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--precision", type=float, default=0.8, help="the recipe's promise")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    messages = load(given.tickets, given.out, each=given.each)
    runs = []
    with kept_embeddings(messages):
        for seed in given.seeds:
            kept = given.out / f"seed-{seed}.json"
            if not kept.exists():
                kept.write_text(json.dumps(run_seed(messages, given, seed)))
            runs.append(json.loads(kept.read_text()))
            print(seed, json.dumps(runs[-1]["serving"]), f"{runs[-1]['cpu_s']} s", flush=True)
    if len(runs) == 1:  # no interval over seeds
        return
    result = {
        "messages": len(messages.labels), "labels": len(messages.names), "seeds": len(runs),
        "start": given.start * len(messages.names),
        "spent": [number * given.step for number in range(given.rounds + 1)],
        **{what: compare_arms([run[what] for run in runs]) for what in ("serving", "newest")},
        "runs": runs,
    }  # fmt: skip
    (given.out / "circle-store.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "circle-store.svg").write_text(draw(result, "serving"))
    print(json.dumps(result["serving"], indent=1))


def run_seed(messages: Messages, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return what came of one seed: accuracy in service after each round of both teams and that of
    its proposal, what happened in each round, and what was said of planted proposals."""
    began = time.process_time()
    folder = given.out / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    base = find_embedding_model()
    assert base is not None, "the extra 'embeddings' is not installed"
    open_place(folder / ARMS[0], messages, base, given, seed)
    shutil.copytree(folder / ARMS[0], folder / ARMS[1])
    told: dict[str, Any] = {"serving": {}, "newest": {}, "rounds": {}, "history": {}}
    for name in ARMS:
        team = Team(folder / name, messages, base, np.random.default_rng([seed, 7]))
        first = team.accuracy()
        rounds = [team.go_round(at, given.step, by=name) for at in range(1, given.rounds + 1)]
        told["rounds"][name] = rounds
        told["serving"][name] = [first, *(each["accuracy"] for each in rounds)]
        told["newest"][name] = [first, *(each["proposed_accuracy"] for each in rounds)]
        told["history"][name] = [each.event for each in read_history(team.store)]
        if name == "circle":
            told["planted"] = team.plant()
    shutil.rmtree(folder)
    return told | {"cpu_s": round(time.process_time() - began)}


def open_place(
    folder: Path, messages: Messages, base: Path, given: argparse.Namespace, seed: int
) -> None:
    """Write the first dataset, what is outside of it and the inbox, and publish the first
    adapter."""
    folder.mkdir(parents=True)
    places = split(messages, seed)
    pool = places["pool"]
    _, first = np.unique(messages.clusters[pool], return_index=True)
    pool = np.sort(pool[first])  # one of each near-duplicates
    draws = np.random.default_rng(seed)
    known = begin(messages, pool, given.start, draws)
    rest = np.setdiff1d(pool, list(known))
    checked = begin(messages, rest, given.validation, draws)
    taxonomy = Taxonomy("circle", "1", "", tuple(Label(name, "") for name in messages.names))
    outside = np.concatenate([places["test"], places["traffic"]])
    for name, held in (("data", places["holdout"]), ("outside", outside)):
        parts = {"train": known, "validation": checked, "holdout": own_labels(messages, held)}
        splits = {part: examples(messages, labels) for part, labels in parts.items()}
        write_dataset(folder / name, name=f"circle-{name}", taxonomy=taxonomy, splits=splits)
    (folder / "traffic.json").write_text(json.dumps(places["traffic"].tolist()))
    lines = [
        json.dumps({"id": f"m{at}", "message": messages.texts[at]})
        for at in np.setdiff1d(rest, list(checked)).tolist()
    ]
    (folder / "inbox.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE % given.precision)
    run, data = folder / "run", folder / "data"
    command("train", "--recipe", folder / "recipe.toml", "--dataset", data, "--base", base,
            "--out", run)  # fmt: skip
    command("evaluate", run / "adapter", "--dataset", data, "--base", base)
    command("publish", run, "--store", folder / "store", *gates("--set", GATE))


def split(messages: Messages, seed: int) -> dict[str, Ints]:
    """Return the places of each part, whole clusters of near-duplicates in one."""
    order = np.random.default_rng([seed, 1]).permutation(messages.clusters.max() + 1)
    rank = order[messages.clusters] / len(order)
    ends = np.cumsum([share for _, share in PARTS])
    part = np.minimum(np.searchsorted(ends, rank, side="right"), len(PARTS) - 1)
    return {name: np.flatnonzero(part == at) for at, (name, _) in enumerate(PARTS)}


def own_labels(messages: Messages, places: Ints) -> dict[int, int]:
    """Return place -> the label that the data has."""
    return {int(at): int(messages.labels[at]) for at in places}


def examples(messages: Messages, labels: dict[int, int]) -> list[Example]:
    """Return the rows of a dataset's part."""
    return [
        Example(f"m{at}", messages.texts[at], messages.names[label]) for at, label in labels.items()
    ]


if __name__ == "__main__":
    main()
