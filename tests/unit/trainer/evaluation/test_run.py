"""A whole evaluation and a whole duel on a tiny base: the figures follow from the predictions,
nothing leaks a text, and what does not fit is refused before the hold-out is opened."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.unit.trainer.evaluation.conftest import World
from trainer.cli.main import app
from trainer.dataset.examples import Example
from trainer.dataset.folder import count_openings, open_dataset, write_dataset
from trainer.errors import BadInput, ProofFailed
from trainer.evaluation.predictions import read_predictions
from trainer.evaluation.recompute import recompute, verify_evaluation
from worker.contract import AdapterRefused, Taxonomy, decide_from_codes

RUNNER = CliRunner()


def call(*arguments: object) -> tuple[int, dict[str, Any], str]:
    found = RUNNER.invoke(app, [str(one) for one in arguments])
    result = json.loads(found.stdout) if found.stdout.startswith("{") else {}
    return found.exit_code, result, found.stderr


@pytest.fixture(scope="module")
def evaluated(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    outside = tmp_path_factory.mktemp("outside") / "odd.jsonl"
    outside.write_text(
        "".join(json.dumps({"message": f"odd {at} zebra"}) + "\n" for at in range(5))
    )
    out = tmp_path_factory.mktemp("results") / "evaluation"
    code, record, _ = call(
        *("evaluate", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", out, "--out-of-scope", outside, "--wanted-precision", 0.5, "--json"),
    )
    assert code == 0
    return out, record


def test_the_record_on_disk_is_what_was_printed_and_what_the_predictions_give(
    evaluated: tuple[Path, dict],
) -> None:
    out, record = evaluated
    assert json.loads((out / "evaluation.json").read_text()) == record
    assert recompute(out) == record
    assert verify_evaluation(out) == record
    assert record["schema"] == "evaluation/1"
    assert record["examples"] == 36
    assert record["outside_labels"]["constrained"] == 0
    assert record["limited"] is False
    assert record["agreement"] is None


def test_labels_are_decided_by_the_contract_with_the_adapters_temperature(
    evaluated: tuple[Path, dict], world: World
) -> None:
    codes = world.manifest.codes
    for one in read_predictions(evaluated[0] / "predictions.jsonl"):
        raw = {codes[label].token_id: value for label, value in one.logprobs.items()}
        wanted = decide_from_codes(raw, codes, world.manifest.calibration.temperature)
        assert (one.predicted, one.confidence) == (wanted.label, wanted.confidence)
        assert one.review == (one.confidence < 0.6)


def test_unconstrained_answers_are_counted_over_the_whole_vocabulary(
    evaluated: tuple[Path, dict], world: World
) -> None:
    """A random model seldom answers with a code by itself: the two figures must differ."""
    out, record = evaluated
    found = read_predictions(out / "predictions.jsonl")
    outside = sum(one.unconstrained_in_set is False for one in found)
    assert record["outside_labels"]["unconstrained"] == outside > 0
    for one in found:
        if one.off_label_mass < 0.5:  # then no token outside can be the likeliest of all three
            assert one.unconstrained_in_set or one.off_label_mass > max(
                np.exp(list(one.logprobs.values()))
            )


def test_the_batch_size_changes_no_label(evaluated: tuple[Path, dict]) -> None:
    found = evaluated[1]["batch_sensitivity"]
    assert found["sizes"] == [1, 8, 64]
    assert found["messages"] == 36
    assert 0 <= found["max_logprob_difference"] < 1e-3
    assert found["labels_changed"] == 0
    assert evaluated[1]["engines"][0]["latency_ms"]["p99"] > 0


def test_the_wanted_threshold_is_fitted_on_validation_and_told_on_the_holdout(
    evaluated: tuple[Path, dict],
) -> None:
    out, record = evaluated
    review = record["review"]
    validation = read_predictions(out / "validation_predictions.jsonl")
    sure = [one for one in validation if one.confidence >= review["threshold_for_wanted"]]
    if sure:
        assert sum(one.predicted == one.label for one in sure) / len(sure) >= 0.5
    holdout = read_predictions(out / "predictions.jsonl")
    covered = [one for one in holdout if one.confidence >= review["threshold_for_wanted"]]
    assert review["coverage_at_wanted"] == pytest.approx(len(covered) / 36)


def test_no_file_holds_a_text(evaluated: tuple[Path, dict], world: World) -> None:
    texts = [json.loads(one)["instruction"] for one in _lines(world, "holdout.jsonl")]
    for path in evaluated[0].iterdir():
        content = path.read_text()
        assert "zebra" not in content
        assert not any(text in content for text in texts)


def test_an_altered_figure_and_an_altered_prediction_are_found(
    evaluated: tuple[Path, dict], tmp_path: Path
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
    one = json.loads(path.read_text().splitlines()[0])
    other = next(label for label in evaluated[1]["labels"] if label != one["predicted"])
    text = path.read_text().replace(
        f'"predicted": "{one["predicted"]}"', f'"predicted": "{other}"', 1
    )
    path.write_text(text)
    with pytest.raises(ProofFailed, match="does not follow from its own scores"):
        verify_evaluation(altered)


def test_a_try_says_so_and_takes_a_place_of_its_own(world: World) -> None:
    code, record, _ = call(
        *("evaluate", world.adapter, "--dataset", world.dataset.directory),
        *("--base", world.base, "--limit", 4, "--json"),
    )
    assert code == 0
    assert record["limited"] is True
    assert record["examples"] == 4
    assert recompute(world.adapter.parent / "evaluation-try") == record


def test_every_opening_of_the_holdout_is_counted(world: World, tmp_path: Path) -> None:
    before = count_openings(world.dataset)
    arguments = ["evaluate", world.adapter, "--dataset", world.dataset.directory]
    code, record, _ = call(
        *arguments, "--base", world.base, "--limit", 2, "--out", tmp_path / "e", "--json"
    )
    assert code == 0
    assert record["dataset"]["openings"] == before + 1
    opening = open_dataset(world.dataset.directory).record["holdout_openings"][-1]
    assert opening["subject"] == world.manifest.digest


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
    parts = {name: [Example("1", "a", "spam")] for name in ("train", "validation", "holdout")}
    other = write_dataset(tmp_path / "other", name="o", taxonomy=taxonomy, splits=parts)
    code, _, errors = call(
        "evaluate", world.adapter, "--dataset", other.directory, "--base", world.base
    )
    assert code == 2
    assert "its labels are not the adapter's" in errors


def test_an_unrelated_folder_is_not_replaced(world: World, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, errors = call(
        *("evaluate", world.adapter, "--dataset", world.dataset.directory),
        *("--base", world.base, "--out", tmp_path),
    )
    assert code == 2
    assert "holds other files" in errors
    assert (tmp_path / "thesis.txt").exists()


@pytest.fixture(scope="module")
def fought(
    world: World, evaluated: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    directory = tmp_path_factory.mktemp("duel")
    answers = directory / "hosted.csv"
    with answers.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "seconds"])
        for line in _lines(world, "holdout.jsonl"):
            one = json.loads(line)
            label = "twelfth" if one["id"].endswith("0") else one["response"]
            writer.writerow([one["id"], label, 0.5])
    code, record, _ = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", directory / "duel", "--evaluation", evaluated[0]),
        *("--contender", f"hosted={answers}", "--embeddings", "none", "--json"),
    )
    assert code == 0
    return directory / "duel", record


def test_a_duel_says_ship_the_baseline_and_is_no_error(fought: tuple[Path, dict]) -> None:
    out, record = fought
    assert json.loads((out / "duel.json").read_text()) == record
    names = [one["name"] for one in record["contenders"]]
    assert names == ["adapter", "tfidf", "tfidf-sublabels", "hosted", "base-prompted"]
    assert record["recommend"] in {"tfidf", "tfidf-sublabels"}
    assert record["verdict"].startswith("Ship tfidf")


def test_the_pairs_follow_from_the_table_of_answers(fought: tuple[Path, dict]) -> None:
    out, record = fought
    with (out / "duel_predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    for pair in record["pairs"]:
        mine = np.array([one["adapter"] == one["label"] for one in rows])
        other = np.array([one[pair["b"]] == one["label"] for one in rows])
        assert pair["difference"] == pytest.approx(mine.mean() - other.mean())
        assert (pair["a_only"], pair["b_only"]) == ((mine & ~other).sum(), (other & ~mine).sum())
        assert pair["interval_95"][0] <= pair["difference"] <= pair["interval_95"][1]
        assert pair["mcnemar_p"] <= pair["p_holm"] <= 1


def test_an_answer_outside_the_set_is_wrong_and_counted(fought: tuple[Path, dict]) -> None:
    hosted = next(one for one in fought[1]["contenders"] if one["name"] == "hosted")
    assert hosted["outside_labels"] == 4  # the ids 3-0, 3-10, 3-20 and 3-30
    assert hosted["accuracy"] == pytest.approx(32 / 36)
    assert hosted["messages_per_s"] == pytest.approx(2.0)


def test_reused_predictions_are_those_of_scoring_again(
    world: World, fought: tuple[Path, dict], tmp_path: Path
) -> None:
    code, record, _ = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", tmp_path / "duel", "--embeddings", "none", "--no-base-prompted", "--json"),
    )
    assert code == 0
    again, first = record["contenders"][0], fought[1]["contenders"][0]
    for key in ("accuracy", "macro_f1", "outside_labels"):
        assert again[key] == first[key]


def test_an_evaluation_of_another_adapter_is_not_reused(
    world: World, evaluated: tuple[Path, dict], tmp_path: Path
) -> None:
    other = tmp_path / "evaluation"
    shutil.copytree(evaluated[0], other)
    record = json.loads((other / "evaluation.json").read_text())
    record["adapter"]["digest"] = "0" * 64
    (other / "evaluation.json").write_text(json.dumps(record))
    code, _, errors = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--evaluation", other, "--out", tmp_path / "duel"),
    )
    assert code == 2
    assert "is of another adapter" in errors


def test_an_adapter_that_answers_in_words_is_refused(world: World, tmp_path: Path) -> None:
    from trainer.evaluation.adapter import read_adapter
    from worker.contract import write_manifest

    words = tmp_path / "adapter"
    shutil.copytree(world.adapter, words)
    write_manifest(words, replace(world.manifest, decoding="choice", codes={}))
    with pytest.raises(BadInput, match="answers with decoding='choice'"):
        read_adapter(words, world.base)
    with pytest.raises(AdapterRefused):
        read_adapter(tmp_path, world.base)


def test_a_person_reads_tables_and_the_verdict(world: World, fought: tuple[Path, dict]) -> None:
    from trainer.evaluation.show_duel import show_duel
    from trainer.evaluation.show_evaluation import show_evaluation

    console = Console(record=True, width=120, file=io.StringIO())
    show_duel(console, fought[1])
    show_evaluation(console, recompute(world.adapter.parent / "evaluation-try"))
    text = console.export_text()
    assert fought[1]["verdict"] in " ".join(text.split())
    assert "order_tracking" in text
    assert "a try: not all messages" in text


def _lines(world: World, name: str) -> list[str]:
    return (world.dataset.directory / name).read_text().splitlines()
