"""``publish --what``: any candidate of a duel that a worker can serve, through the same gate."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import World, call
from trainer.dataset.folder import Dataset
from worker.contract import load_adapter
from worker.contract.store import find_adapter

pytestmark = pytest.mark.slow

RULES = ("accuracy=0.01", "macro_f1=0.01", "label_recall=0.01", "ece=1", "steering=false",
         "steering_unreviewed=false")  # fmt: skip
EASY = tuple(word for rule in RULES for word in ("--set", rule))


@pytest.fixture(scope="module")
def run(
    world: World,
    evaluated: tuple[Path, dict[str, Any]],
    sealed: Dataset,
    tiny_encoder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return a run of the tiny adapter with an evaluation and a duel."""
    run = tmp_path_factory.mktemp("what") / "run"
    shutil.copytree(world.adapter, run / "adapter")
    shutil.copytree(evaluated[0], run / "evaluation")
    code, _, error = call(
        *("duel", run / "adapter", "--dataset", sealed.directory, "--base", world.base, "--json"),
        *("--evaluation", run / "evaluation", "--no-base-prompted"),
        *("--embeddings", tiny_encoder),
    )
    assert code == 0, error
    return run


def test_a_baseline_of_embeddings_becomes_a_model_and_is_judged(
    run: Path, tmp_path: Path, tiny_encoder: Path
) -> None:
    """It is trained and evaluated once, and answers nearly as in the duel, where it did not learn
    to pass over sentences that name a label."""
    arguments = ("publish", run, "--store", tmp_path / "store", "--json", *EASY)
    arguments += ("--what", "embeddings-sublabels", "--base", tiny_encoder)
    code, record, error = call(*arguments)
    assert code == 0, error
    made = run / "baselines" / "embeddings-sublabels"
    assert load_adapter(made / "adapter").kind == "embedding-linear"
    assert load_adapter(find_adapter(tmp_path / "store").directory).digest == record["digest"]
    rows = (run / "duel" / "duel_predictions.csv").read_text(encoding="utf-8").splitlines()
    column = rows[0].split(",").index("embeddings-sublabels")
    fought = {row.split(",")[0]: row.split(",")[column] for row in rows[1:]}
    lines = (made / "evaluation" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {line["id"]: _label_probabilities(line) for line in map(json.loads, lines)}
    same = [max(answer, key=answer.__getitem__) == fought[key] for key, answer in answers.items()]
    assert sum(same) >= 0.8 * len(same)
    before = (made / "training.json").read_bytes()
    code, record, _ = call(*arguments)
    assert (code, record["outcome"]) == (0, "already_current")
    assert (made / "training.json").read_bytes() == before


def _label_probabilities(prediction: dict[str, Any]) -> dict[str, float]:
    """Return a prediction's probabilities, summed by label."""
    likely: dict[str, float] = {}
    for name, logit in prediction["logprobs"].items():
        label = name.partition("/")[0]
        likely[label] = likely.get(label, 0.0) + math.exp(logit)
    total = sum(likely.values())
    return {label: share / total for label, share in likely.items()}


def test_a_candidate_that_no_worker_serves_is_refused_with_the_reason(
    run: Path, tmp_path: Path
) -> None:
    for what, problem in (
        ("tfidf", "workers have no engine for word counts"),
        ("best", "the duel has no such candidate: choose one of adapter, tfidf"),
    ):
        code, _, error = call("publish", run, "--store", tmp_path / "store", "--what", what)
        assert code == 2
        assert problem in error
        assert not (tmp_path / "store").exists()
