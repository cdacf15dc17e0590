"""The circle by simulation: does a team that decides what the machine asks get further with the
same number of decisions than one that decides random messages?

    python -m tests.bench.circle --out DIR                          # the shop's messages
    python -m tests.bench.circle --out DIR --tickets tickets.csv    # one's own: message, category,
                                                                    # subcategory

It starts with so many examples a label, of which one in twenty is wrong. A round is a number of
decisions by a reviewer who is wrong once in twenty times: of the circle a fifth goes to labels that
models doubt and the rest to what active learning asks; of the other arm all go to random messages.
Then the model (logistic regression on frozen sentence embeddings, as ``embedding-linear``) learns
anew, and the proposal's own rules say whether it replaces the one in service. Accuracy is by an
untouched test; near-duplicates never cross. Writes circle.json (figures, no text) and circle.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tests.bench.circle_data import Ints, Messages, load
from tests.bench.circle_plot import draw
from trainer.check.out_of_fold import assign_folds, cross_val_predict
from trainer.check.suspects import doubtful, self_confidence
from trainer.model.logistic import EMBEDDING_LENGTH, fit_grid
from trainer.propose.compare import OLD_HOLDOUT, Compared
from trainer.statistics.metrics import count_discordant
from trainer.statistics.noninferiority import non_inferiority_p
from trainer.tasks.choose import choose_batch
from worker.contract.circle import Figure

ARMS = ("circle", "random")
MISTAKES = 0.05
DOUBTS = 0.2
_MARGIN = 0.02
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the simulation: examples a label to start with, rounds, decisions a round, seeds;
    and the model's C, the inverse strength of its L2 penalty."""

    start: int
    rounds: int
    step: int
    seeds: int
    c: float


@dataclass(slots=True)
class Team:
    """One arm: what it knows (place -> label), its models' C, whom it asked about already, and what
    serves."""

    known: dict[int, int]
    c: float
    decided: set[int] = field(default_factory=set)
    serving: Any = None


def main() -> None:
    """Simulate, and write the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tickets", type=Path)
    for name, usual in (("start", 100), ("rounds", 5), ("step", 200), ("seeds", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--c", type=float, default=10.0, help="C of the logistic regression")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    messages = load(given.tickets, given.out)
    plan = Plan(given.start, given.rounds, given.step, given.seeds, given.c)
    runs = [run_seed(messages, plan, seed) for seed in range(plan.seeds)]
    result = summarize(messages, plan, runs) | {"cpu_s": round(time.process_time() - began)}
    (given.out / "circle.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "circle.svg").write_text(draw(result))
    print(json.dumps({k: v for k, v in result.items() if k != "runs"}, indent=1))


def run_seed(messages: Messages, plan: Plan, seed: int) -> dict[str, Any]:
    """Return what came of one seed: accuracy after each round of both arms, of the newest model and
    of the one in service; and what the proposals were told, of a worse and an equal one too."""
    test, holdout, pool = split(messages, seed)
    draw_ = np.random.default_rng(seed)
    start = begin(messages, pool, plan.start, draw_)
    teams = {name: Team(dict(start), plan.c) for name in ARMS}
    told: dict[str, Any] = {"newest": {}, "serving": {}, "verdicts": {}}
    for name, team in teams.items():
        draws = np.random.default_rng([seed, 7])
        newest, serving, verdicts = [], [], []
        for number in range(plan.rounds + 1):
            if number:
                spend(messages, team, pool, plan.step, draws, by=name)
            model = learn(messages, team.known, team.c)
            verdict = "publish" if team.serving is None else decide(
                messages, holdout, model, team.serving
            )  # fmt: skip
            if verdict == "publish":
                team.serving = model
            newest.append(accuracy(messages, test, model))
            serving.append(accuracy(messages, test, team.serving))
            verdicts.append(verdict)
        told["newest"][name] = newest
        told["serving"][name] = serving
        told["verdicts"][name] = verdicts[1:]
    told["planted"] = plant(messages, teams["circle"], holdout, draw_)
    return told


def split(messages: Messages, seed: int) -> tuple[Ints, Ints, Ints]:
    """Return the places of test (a fifth), hold-out (15 %) and pool, whole clusters in each."""
    order = np.random.default_rng([seed, 1]).permutation(messages.clusters.max() + 1)
    rank = order[messages.clusters] / len(order)
    places = np.arange(len(rank))
    return places[rank < 0.2], places[(rank >= 0.2) & (rank < 0.35)], places[rank >= 0.35]


def begin(messages: Messages, pool: Ints, each: int, draw_: np.random.Generator) -> dict[int, int]:
    """Return the export to start with: so many of each label, some of them wrong."""
    known: dict[int, int] = {}
    for label in range(len(messages.names)):
        of = pool[messages.labels[pool] == label]
        known |= {int(at): label for at in draw_.permutation(of)[:each]}
    return {at: review(messages, at, draw_) for at in known}


def review(messages: Messages, at: int, draw_: np.random.Generator) -> int:
    """Return the label that a reviewer gives: wrong once in twenty times."""
    label = int(messages.labels[at])
    if draw_.random() >= MISTAKES:
        return label
    return int((label + draw_.integers(1, len(messages.names))) % len(messages.names))


def spend(
    messages: Messages, team: Team, pool: Ints, step: int, draw_: np.random.Generator, *, by: str
) -> None:
    """Have people decide ``step`` messages, no message twice."""
    asked: list[int] = []
    if by == "circle":
        asked = doubts(messages, team, round(step * DOUBTS))
        asked += learning(messages, team, pool, step - len(asked), draw_)
    else:
        fresh = np.setdiff1d(pool, list(team.known))
        asked = [int(at) for at in draw_.permutation(fresh)[:step]]
    for at in asked:
        team.known[at] = review(messages, at, draw_)
    team.decided |= set(asked)


def doubts(messages: Messages, team: Team, most: int) -> list[int]:
    """Return the known messages whose label models doubt most, as ``check`` finds them."""
    places = np.array(sorted(team.known))
    own = np.array([team.known[int(at)] for at in places])
    x = messages.features[places] * EMBEDDING_LENGTH
    folds = assign_folds(own, messages.clusters[places], 1)
    found = cross_val_predict(x, own, folds, len(messages.names), fine=True)
    found = np.maximum(found, 1e-9)
    found /= found.sum(axis=1, keepdims=True)
    doubt = np.where(doubtful(own, found), 1 - self_confidence(own, found), 0.0)
    order = [at for at in np.argsort(-doubt, kind="stable") if doubt[at] > 0]
    return [int(places[at]) for at in order if int(places[at]) not in team.decided][:most]


def learning(
    messages: Messages, team: Team, pool: Ints, size: int, draw_: np.random.Generator
) -> list[int]:
    """Return the messages that active learning asks about, one of each cluster."""
    fresh = np.setdiff1d(pool, list(team.known))
    told = set(messages.clusters[list(team.known)].tolist())
    _, first = np.unique(messages.clusters[fresh], return_index=True)
    fresh = np.array([at for at in fresh[first] if int(messages.clusters[at]) not in told])
    model = learn(messages, team.known, team.c)
    x = messages.features[fresh]
    chosen = choose_batch(predict(messages, model, fresh), x, size, seed=int(draw_.integers(10**9)))
    return [int(fresh[at]) for at in chosen]


def learn(messages: Messages, known: dict[int, int], c: float) -> Any:
    """Fit the head on what is known, as ``embedding-linear`` does with this C."""
    places = np.array(sorted(known))
    own = [known[int(at)] for at in places]
    x = messages.features[places].astype(np.float64) * EMBEDDING_LENGTH
    return next(iter(fit_grid(x, own, lambda _: 0.0, grid=(c,)))).model


def predict(messages: Messages, model: Any, places: Ints) -> NDArray[np.float64]:
    """Return probabilities, (places, labels)."""
    x = messages.features[places].astype(np.float64) * EMBEDDING_LENGTH
    found = np.zeros((len(places), len(messages.names)))
    found[:, model.classes_] = model.predict_proba(x)
    return found


def accuracy(messages: Messages, places: Ints, model: Any) -> float:
    """Return the share of ``places`` that the model labels as the data does."""
    return float(rights(messages, places, model).mean())


def rights(messages: Messages, places: Ints, model: Any) -> NDArray[np.bool_]:
    """Tell of each place whether the model is right."""
    return np.asarray(predict(messages, model, places).argmax(axis=1) == messages.labels[places])


def decide(messages: Messages, holdout: Ints, new: Any, current: Any) -> str:
    """Return the proposal's verdict by the rules of the gate and of ``propose``."""
    found = count_discordant(rights(messages, holdout, new), rights(messages, holdout, current))
    compared = Compared(Figure(OLD_HOLDOUT, found.total, 0.0, 0.0, 0.0, 0.0, 0.0), found)
    if compared.worse or non_inferiority_p(found, _MARGIN) >= _ALPHA:
        return "refused"
    return "publish" if compared.is_better(_ALPHA) else "not_worth_it"


def plant(
    messages: Messages, team: Team, holdout: Ints, draw_: np.random.Generator
) -> dict[str, str]:
    """Return the verdicts on two proposals beside a model of all that the team knows: one that
    learnt the same with a tenth of the labels flipped, and one of all but a hundredth of it."""
    current = learn(messages, team.known, team.c)
    places = draw_.permutation(sorted(team.known))
    tenth = len(places) // 10
    flipped = dict(team.known)
    for at in places[:tenth].tolist():
        flipped[at] = int((flipped[at] + draw_.integers(1, len(messages.names)))
                          % len(messages.names))  # fmt: skip
    equal = {at: team.known[at] for at in places[len(places) // 100 :].tolist()}
    return {
        "tenth_flipped": decide(messages, holdout, learn(messages, flipped, team.c), current),
        "a_hundredth_less": decide(messages, holdout, learn(messages, equal, team.c), current),
    }


def summarize(messages: Messages, plan: Plan, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the seeds come to."""
    first = plan.start * len(messages.names)
    spent = [number * plan.step for number in range(plan.rounds + 1)]
    result: dict[str, Any] = {
        "messages": len(messages.labels), "labels": len(messages.names), "start": first,
        "spent": spent, "seeds": plan.seeds, "c": plan.c,
    }  # fmt: skip
    for what in ("newest", "serving"):
        result[what] = compare_arms([run[what] for run in runs])
    result["runs"] = runs
    for name in ("tenth_flipped", "a_hundredth_less"):
        result[name] = [run["planted"][name] for run in runs]
    result["verdicts"] = {arm: [run["verdicts"][arm] for run in runs] for arm in ARMS}
    return result


def compare_arms(runs: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Return both arms' means over seeds, and their difference with its 95 % interval (Student's t
    over seeds, paired)."""
    arms = {name: np.array([run[name] for run in runs]) for name in ARMS}
    difference = arms["circle"] - arms["random"]
    mean = difference.mean(axis=0)
    reach = stats.t.ppf(0.975, len(runs) - 1) * difference.std(axis=0, ddof=1) / np.sqrt(len(runs))
    return {
        **{name: np.round(found.mean(axis=0), 4).tolist() for name, found in arms.items()},
        "difference": np.round(mean, 4).tolist(),
        "low": np.round(mean - reach, 4).tolist(),
        "high": np.round(mean + reach, 4).tolist(),
    }


if __name__ == "__main__":
    main()
