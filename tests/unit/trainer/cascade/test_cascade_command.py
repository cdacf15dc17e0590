"""``clerk-trainer cascade``: from two evaluated runs to a published cascade."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.toy_adapter import LABELS, toy_manifest, toy_taxonomy
from tests.support.trainer_world import call, run_cli
from trainer.artifacts.evaluation import (
    EVALUATION,
    POOL,
    PREDICTIONS,
    TEACHER_LABELS,
    VALIDATION,
    EvaluatedAdapter,
    TeacherLabel,
)
from trainer.dataset.folder import Dataset, Example, open_holdout, write_dataset
from trainer.evaluation.evaluate import describe_dataset
from trainer.evaluation.predictions import outputs_of, predict
from trainer.evaluation.summary import EngineSpeed, Predictions, Setup, summarize, verify_evaluation
from worker.contract import (
    Calibration,
    FileDigest,
    Manifest,
    Thresholds,
    load_adapter,
    write_manifest,
)
from worker.contract.digest import sha256_bytes
from worker.contract.store import read_canary, read_pointer
from worker.contract.verify import attach_probes, verify_files

pytestmark = pytest.mark.slow

COUNT = 1200


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    splits = {
        part: [
            Example(f"{part}-{at}", f"message {part} number {at}", LABELS[at % len(LABELS)], None)
            for at in range(count)
        ]
        for part, count in (("train", 30), ("validation", COUNT), ("holdout", COUNT))
    }
    directory = tmp_path_factory.mktemp("data") / "dataset"
    return write_dataset(directory, name="toy", taxonomy=toy_taxonomy(), splits=splits)


Write = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path, dataset: Dataset) -> Write:
    """Return a function that writes a run whose adapter is wrong on a share of its confident
    answers, and of the others."""

    def write(
        name: str, sure: float, unsure: float, *, speed: float = 10.0, seed: int = 0, **changes: Any
    ) -> Path:
        run = tmp_path / name
        (run / "adapter").mkdir(parents=True)
        data = name.encode() * 99
        (run / "adapter" / "adapter_model.safetensors").write_bytes(data)
        given: dict[str, Any] = {
            "name": name,
            "files": {"adapter_model.safetensors": FileDigest(sha256_bytes(data), len(data))},
            "calibration": Calibration(1.0, COUNT),
            "thresholds": Thresholds(0.5, 0.5),
            "data": {"digest": dataset.digest},
        }
        manifest = toy_manifest(**given | changes)
        write_manifest(run / "adapter", manifest)
        rng = np.random.default_rng(seed)
        holdout = open_holdout(dataset, purpose="evaluate", subject=manifest.digest)
        parts = [
            answer(manifest, examples, sure, unsure, rng)
            for examples in (holdout, dataset.validation)
        ]
        record = summarize(
            Setup(
                created_at="2026-01-01T00:00:00Z",
                adapter=EvaluatedAdapter(
                    name=name, digest=manifest.digest, path=str(run / "adapter")
                ),
                dataset=describe_dataset(dataset),
                outputs=outputs_of(manifest),
                temperature=1.0,
                limits=manifest.thresholds,
                wanted_precision=0.95,
                speeds=(EngineSpeed("transformers", speed, "x86"),),
            ),
            Predictions(parts[0], parts[1], None, None),
        )
        (run / "evaluation").mkdir()
        EVALUATION.write(run / "evaluation", record)
        PREDICTIONS.write(run / "evaluation", parts[0])
        VALIDATION.write(run / "evaluation", parts[1])
        return run

    return write


def answer(
    manifest: Manifest,
    examples: Sequence[Example],
    sure: float,
    unsure: float,
    rng: np.random.Generator,
) -> list[Any]:
    rows = []
    for at, example in enumerate(examples):
        is_sure = at % 10 < 8
        wrong = rng.random() < (sure if is_sure else unsure)
        label = LABELS[(LABELS.index(example.label) + wrong) % len(LABELS)]
        p = 0.97 - 0.05 * rng.random() if is_sure else 0.7 - 0.3 * rng.random()
        rows.append([math.log(p if name == label else (0.999 - p) / 2) for name in LABELS])
    return predict(
        [example.id for example in examples],
        [example.label for example in examples],
        np.array(rows),
        [True] * len(rows),
        outputs=outputs_of(manifest),
        temperature=1.0,
        limits=manifest.thresholds,
    )


@pytest.fixture
def runs(write_run: Write) -> tuple[Path, Path]:
    """Return a small model that is right only where it is confident, and a large one that is right
    everywhere."""
    return (
        write_run("small", 0.01, 0.5, speed=500.0),
        write_run("large", 0.01, 0.05, speed=20.0, seed=1),
    )


def test_a_cascade_that_is_as_good_is_published_like_any_adapter(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """It passes evaluation and gate, is a canary, and is rolled back."""
    out, store = tmp_path / "cascade", tmp_path / "store"
    code, record, errors = call("cascade", *runs, "--out", out, "--margin", "1", "--json")
    assert code == 0, errors
    chosen = record["chosen"]
    assert record["worth_it"]
    assert 0.6 < chosen["first_share"] < 0.85
    assert chosen["first_share"] + chosen["last_share"] == pytest.approx(1)
    assert [row["margin"] for row in record["rows"]] == [0.0025, 0.005, 0.01, 0.02, 0.03]
    shares = [row["first_share"] for row in record["rows"]]
    assert shares == sorted(shares)
    for alone in record["alone"]:
        assert 0 < alone["review_share"] < 1
        assert alone["accuracy"] < alone["accepted_precision"] <= 1
    speed = 1 / (1 / 500 + chosen["last_share"] / 20)
    assert chosen["messages_per_s"] == pytest.approx(speed)
    assert chosen["relative_cost"] == pytest.approx(20 / speed)
    low, high = record["holdout_accuracy_interval_95"]
    assert low < record["holdout_accuracy"] < high
    assert record["holdout_accuracy"] > record["holdout_last_alone"] - 0.01
    made = attach_probes(verify_files(out / "adapter"), out / "adapter")
    assert made.kind == "cascade"
    assert made.stages[0].sure_from == chosen["sure_from"]
    assert made.probes
    verify_evaluation(out / "evaluation")

    large = runs[1]
    rules = [
        part
        for rule in ("accuracy=0.8", "label_recall=0.5", "ece=0.5", "steering=false")
        for part in ("--set", rule)
    ]
    rules += ["--set", "steering_unreviewed=false"]
    code, _, errors = call("publish", large, "--store", store, *rules, "--json")
    assert code == 0, errors
    code, _, errors = call(
        "publish", out, "--store", store, *rules, "--canary", "0.1", "--accept-promise", "0.95",
        "--json",
    )  # fmt: skip
    assert code == 0, errors
    canary = read_canary(store)
    assert canary is not None
    assert canary.digest == made.digest
    assert call("promote", "--store", store, "--json")[0] == 0
    assert verify_files(store / made.digest).digest == made.digest
    code, _, errors = call("rollback", "--store", store, "--reason", "a trial", "--json")
    assert code == 0, errors
    pointer = read_pointer(store)
    assert pointer is not None
    assert pointer.digest != made.digest


def test_a_cascade_has_the_figures_with_its_teachers_help(
    runs: tuple[Path, Path], dataset: Dataset, tmp_path: Path
) -> None:
    pool = [Example(f"pool-{at}", f"message {at}", LABELS[at % 3], None) for at in range(600)]
    for run, unsure in zip(runs, (0.5, 0.05), strict=True):
        manifest = load_adapter(run / "adapter")
        answers = answer(manifest, pool, 0.01, unsure, np.random.default_rng(7))
        POOL.write(run / "evaluation", answers)
        held = PREDICTIONS.read(run / "evaluation")
        said = [TeacherLabel(id=each.id, label=str(each.label)) for each in held]
        TEACHER_LABELS.write(run / "evaluation", said)
    out = tmp_path / "cascade"
    done = run_cli("cascade", *runs, "--out", out, "--margin", "1")
    assert done.exit_code == 0, done.stderr
    assert "accuracy, with the teacher's help: " in done.stdout
    found = verify_evaluation(out / "evaluation").taught
    assert found is not None
    assert (found.pool, found.compared) == (600, COUNT)
    # The teacher makes no mistake, so agreement is accuracy: the last stage has the small one's.
    alone = sum(each.predicted == each.label for each in POOL.read(runs[0] / "evaluation")) / 600
    assert found.agreement > alone + 0.05

    # A stage that may have learnt the pool was not asked about it.
    (runs[0] / "evaluation" / POOL.name).unlink()
    code, record, _ = call("cascade", *runs, "--out", tmp_path / "other", "--margin", 1, "--json")
    assert (code, record["taught"]) == (0, None)
    assert "only large was evaluated on the messages" in record["note"]
    assert verify_evaluation(tmp_path / "other" / "evaluation").taught is None


def test_a_stage_whose_learning_is_unknown_makes_the_cascades_unknown(
    write_run: Write, dataset: Dataset, tmp_path: Path
) -> None:
    unknown = {"form": "onnx", "learnt": "unknown", "unseen": None}
    data = {"digest": dataset.digest, "imported": unknown}
    small = write_run("small", 0.01, 0.5, speed=500.0, data=data)
    large = write_run("large", 0.01, 0.05, speed=20.0, seed=1)
    out = tmp_path / "cascade"
    code, _, errors = call("cascade", small, large, "--out", out, "--margin", "1", "--json")
    assert code == 0, errors
    code, _, errors = call("publish", out, "--store", tmp_path / "store", "--json")
    assert code == 3
    assert "hold-out unseen" in errors


@pytest.mark.parametrize(
    ("small", "large", "says"),
    [
        ((0.3, 0.5), (0.01, 0.02), "small would answer 0.0%"),
        ((0.0, 0.0), (0.0, 0.3), "large would answer"),
    ],
)
def test_a_cascade_with_a_stage_that_answers_almost_nothing_is_not_worth_it(
    small: tuple[float, float],
    large: tuple[float, float],
    says: str,
    write_run: Write,
    tmp_path: Path,
) -> None:
    """Exit code 3, and nothing that could be published."""
    runs = (write_run("small", *small), write_run("large", *large, seed=1))
    out = tmp_path / "cascade"
    code, _, errors = call("cascade", *runs, "--out", out, "--margin", "1")
    assert code == 3
    assert "a cascade is not worth it" in errors
    assert says in errors
    assert not (out / "adapter").exists()


def test_a_first_stage_that_cannot_keep_the_promise_answers_nothing(
    write_run: Write, tmp_path: Path
) -> None:
    """Its confident answers are right 85 % of the time, and would not be reviewed."""
    runs = (write_run("small", 0.15, 0.9), write_run("large", 0.15, 0.2, seed=1))
    out = tmp_path / "cascade"
    asked = ("cascade", *runs, "--out", out, "--margin", "5", "--json")
    code, found, errors = call(*asked)
    assert code == 3
    assert "no part of small's answers is shown to keep the promised precision" in errors
    assert found["messages_needed"] is None
    assert not (out / "adapter").exists()
    shutil.rmtree(out)
    code, found, errors = call(*asked, "--precision", "0.75")
    assert code == 0, errors
    chosen = found["chosen"]
    assert chosen["promise_shown"]
    assert chosen["accepted_precision"] > 0.75


def test_runs_that_cannot_be_compared_are_refused(write_run: Write, tmp_path: Path) -> None:
    small = write_run("small", 0.01, 0.5)
    other = write_run("other", 0.01, 0.1, data={"digest": "ab" * 32})
    taxonomy = toy_taxonomy(LABELS)
    versioned = write_run(
        "versioned", 0.01, 0.1, taxonomy=type(taxonomy)("toy", "2", "", taxonomy.labels)
    )
    out = ("--out", tmp_path / "cascade")
    for last, says in (
        (small, "the same adapter"),
        (other, "not trained and evaluated on one dataset"),
        (versioned, "different taxonomies"),
    ):
        code, _, errors = call("cascade", small, last, *out)
        assert code == 2
        assert says in errors
    code, _, errors = call("cascade", small, small, *out, "--margin", "0")
    assert code == 2
    assert "'--margin'" in errors
