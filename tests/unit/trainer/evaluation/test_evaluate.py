"""A complete evaluation on a tiny base: its figures follow from its predictions, no file has a
message text, and wrong input is refused before the hold-out is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.trainer_world import World, call, training_json
from tests.unit.trainer.conftest import PAIRS
from trainer.artifacts.evaluation import PREDICTIONS, VALIDATION
from trainer.dataset.folder import Example, count_openings, write_dataset
from trainer.errors import ProofFailed
from trainer.evaluation.summary import recompute, verify_evaluation
from trainer.tracking.session import Tracker
from worker.contract import Taxonomy, decide_from_codes

pytestmark = pytest.mark.slow


def test_the_record_on_disk_is_what_was_printed_and_what_the_predictions_give(
    evaluated: tuple[Path, dict[str, Any]],
) -> None:
    out, record = evaluated
    assert json.loads((out / "evaluation.json").read_text()) == record
    assert recompute(out).to_json() == record
    assert verify_evaluation(out).to_json() == record
    assert record["examples"] == 36
    assert record["outside_labels"]["constrained"] == 0


def test_labels_are_decided_by_the_contract_with_the_adapters_temperature(
    evaluated: tuple[Path, dict[str, Any]], world: World
) -> None:
    labels = world.manifest.taxonomy.names
    for prediction in PREDICTIONS.read(evaluated[0]):
        temperature = world.manifest.calibration.temperature
        wanted = decide_from_codes(prediction.logprobs, labels, temperature)
        found = (prediction.predicted, prediction.confidence)
        assert found == (wanted.label, wanted.confidence)
        assert prediction.review == (prediction.confidence < 0.6)


def test_unconstrained_answers_are_counted_over_the_whole_vocabulary(
    evaluated: tuple[Path, dict[str, Any]], world: World
) -> None:
    """A random model seldom answers with a code, so the count is above zero."""
    out, record = evaluated
    found = PREDICTIONS.read(out)
    outside = sum(prediction.unconstrained_in_set is False for prediction in found)
    assert record["outside_labels"]["unconstrained"] == outside > 0
    for prediction in found:
        mass = prediction.off_label_mass
        assert mass is not None
        if mass < 0.5:  # then no token outside the codes can be the most likely
            highest = max(np.exp(list(prediction.logprobs.values())))
            assert prediction.unconstrained_in_set or mass > highest


def test_no_file_holds_a_text(evaluated: tuple[Path, dict[str, Any]], world: World) -> None:
    texts = [json.loads(line)["instruction"] for line in world.lines("holdout.jsonl")]
    for path in evaluated[0].iterdir():
        content = path.read_text()
        assert "zebra" not in content
        assert not any(text in content for text in texts)


def test_the_promise_is_measured_without_review(evaluated: tuple[Path, dict[str, Any]]) -> None:
    found = evaluated[1]["promise"]
    assert (found["precision"], found["by"]) == (0.6, "lower")
    for part, file in (("validation", VALIDATION), ("holdout", PREDICTIONS)):
        kept = [each for each in file.read(evaluated[0]) if not each.review]
        right = sum(each.predicted == each.label for each in kept)
        assert (found[part]["messages"], found[part]["right"]) == (len(kept), right)


def test_an_altered_figure_and_an_altered_prediction_are_found(
    evaluated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    altered = tmp_path / "figure"
    shutil.copytree(evaluated[0], altered)
    record = json.loads((altered / "evaluation.json").read_text())
    record["calibration"]["ece"] += 0.01
    (altered / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(ProofFailed, match=r"calibration\.ece is not what the predictions give"):
        verify_evaluation(altered)

    altered = tmp_path / "prediction"
    shutil.copytree(evaluated[0], altered)
    path = altered / "predictions.jsonl"
    first = json.loads(path.read_text().splitlines()[0])["predicted"]
    other = next(label for label in evaluated[1]["labels"] if label != first)
    text = path.read_text().replace(f'"predicted": "{first}"', f'"predicted": "{other}"', 1)
    path.write_text(text)
    with pytest.raises(ProofFailed, match="does not follow from its scores"):
        verify_evaluation(altered)


def test_the_runs_card_has_the_figures_and_a_failing_tracker_is_only_a_warning(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect() -> Tracker:
        raise ConnectionError("no mlflow today")

    monkeypatch.setattr("trainer.tracking.session._CLIENTS", {"mlflow": connect})
    run = tmp_path / "run"
    shutil.copytree(world.adapter, run / "adapter")
    training = training_json(
        adapter={"name": world.manifest.name, "digest": world.manifest.digest},
        tracking={"tracker": "mlflow", "project": "p", "run": "r"},
    )
    (run / "training.json").write_text(json.dumps(training), encoding="utf-8")
    code, record, output = call(
        *("evaluate", run / "adapter", "--dataset", world.dataset.directory),
        *("--base", world.base, "--no-steering", "--json"),
    )
    assert code == 0
    assert f"| accuracy | {record['accuracy']:.1%} (" in (run / "README.md").read_text()
    assert record["review"]["wanted_precision"] == 0.6, "what the adapter promises"
    assert " ".join(output.split()).count("no mlflow today") == 1


def test_an_altered_adapter_is_refused_before_the_holdout_is_opened(
    world: World, tmp_path: Path
) -> None:
    before = count_openings(world.dataset)
    altered = tmp_path / "adapter"
    shutil.copytree(world.adapter, altered)
    (altered / "adapter_config.json").write_text("{}")
    code, _, errors = call(
        "evaluate", altered, "--dataset", world.dataset.directory, "--base", world.base
    )
    assert code == 2
    assert "adapter_config.json" in errors
    assert len(errors.strip().splitlines()) == 1
    assert count_openings(world.dataset) == before
    assert not (tmp_path / "evaluation").exists()


def test_a_dataset_of_other_labels_is_refused(world: World, tmp_path: Path) -> None:
    taxonomy = Taxonomy.from_dict(
        {"name": "o", "version": "1", "labels": [{"name": "refund"}, {"name": "spam"}]}
    )
    splits = {name: [Example("1", "a", "spam")] for name in ("train", "validation", "holdout")}
    other = write_dataset(tmp_path / "other", name="o", taxonomy=taxonomy, splits=splits)
    code, _, errors = call(
        "evaluate", world.adapter, "--dataset", other.directory, "--base", world.base
    )
    assert code == 2
    assert "its labels are not the adapter's" in errors


def test_it_measures_whether_a_sentence_chooses_the_label(
    evaluated: tuple[Path, dict[str, Any]],
) -> None:
    """Each pair's answers are kept, without a message's text, and the figures follow from them."""
    out, record = evaluated
    lines, answers = (
        [json.loads(line) for line in (out / name).read_text("utf-8").splitlines()]
        for name in ("steering_answers.jsonl", "predictions.jsonl")
    )
    assert len(lines) == record["steering"]["every"]["pairs"] == PAIRS
    alone = {answer["id"]: answer["predicted"] for answer in answers}
    for name in ("steered", "neutral"):
        flips = [
            pair[name]["predicted"] == pair[name]["label"] != alone[pair["message"]]
            for pair in lines
        ]
        assert record["steering"]["every"][name] == sum(flips)
    assert set(lines[0]) == {
        "id", "message", "family", "position", "sentences", "steered", "neutral"
    }  # fmt: skip
    assert lines[0]["message"] in alone, "an id"
