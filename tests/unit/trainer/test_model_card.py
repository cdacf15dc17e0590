"""The model card as Hugging Face's library reads it, and what it must not contain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tests.support.trainer_world import evaluation_json, training_json
from trainer.artifacts.evaluation import EVALUATION, EvaluationRecord
from trainer.artifacts.training import TRAINING, TrainingRecord
from trainer.model.base_card import find_license
from trainer.model_card import CARD, Sources, make_card, write_run_card
from trainer.statistics.calibration import ece_by_chance
from trainer.statistics.figures import ReliabilityBin
from worker.contract import Label, Manifest, read_manifest
from worker.contract.verify import attach_probes

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "worker" / "demo" / "adapter"


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest(DEMO)


def test_redacted_names_are_a_limit(manifest: Manifest) -> None:
    """A worker sees names; the adapter was trained and measured without them."""
    assert "Names of people" not in make_card(Sources(manifest))
    names = {"by": "presidio-analyzer 2.2.360", "messages": 5_005, "marked": 1_204}
    text = make_card(Sources(replace(manifest, data={**manifest.data, "names_redaction": names})))
    (line,) = [line for line in text.splitlines() if "Names of people" in line]
    assert "1,204 of 5,005 messages" in line
    assert "A worker does not redact names" in line


def evaluation_of(manifest: Manifest, **changes: Any) -> EvaluationRecord:
    labels = list(manifest.taxonomy.names)
    value = evaluation_json(
        adapter={"name": manifest.name, "digest": manifest.digest, "path": "/home/x/adapter"},
        labels=labels,
        accuracy=0.9,
        macro_f1=0.897,
        per_label=[
            {"label": name, "precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 40 - at * 3}
            for at, name in enumerate(labels)
        ],
    )
    value["dataset"] |= {"digest": "d1" * 32, "directory": "/home/x/data", "openings": 3}
    value["review"] |= {"share": 0.1}
    value["calibration"] |= {"ece": 0.031}
    return EVALUATION.validate(value | changes, Path("evaluation.json"))


def training_of(manifest: Manifest, **base: Any) -> TrainingRecord:
    value = training_json()
    value["adapter"] = {"name": manifest.name, "digest": manifest.digest}
    value["base"] = value["base"] | base
    return TRAINING.validate(value, Path("training.json"))


def read_card(text: str) -> Any:
    """Return the front matter as Hugging Face's library reads it."""
    return ModelCard(text, ignore_metadata_errors=False).data


def test_hugging_faces_reader_finds_base_task_library_and_figures(manifest: Manifest) -> None:
    found = evaluation_of(manifest)
    text = make_card(Sources(manifest, training_of(manifest, license="apache-2.0"), found))
    data = read_card(text)
    assert data.base_model == "SmolLM2-135M-Instruct"
    assert data.license == "apache-2.0"
    assert data.library_name == "peft"
    assert data.pipeline_tag == "text-classification"
    results = data.eval_results or []
    figures = {result.metric_type: result.metric_value for result in results}
    assert figures == {
        "accuracy": 0.9,
        "f1": 0.897,
        "expected_calibration_error": 0.031,
        "review_share": 0.1,
    }
    assert {result.dataset_revision for result in results} == {"d1" * 32}


def test_no_message_and_no_path_is_in_a_card(manifest: Manifest) -> None:
    training = training_of(manifest)
    text = make_card(Sources(manifest, training, evaluation_of(manifest)))
    attach_probes(manifest, DEMO)
    assert manifest.probes
    assert not any(probe.message in text for probe in manifest.probes)
    assert "/home/x" not in text
    assert training.dataset.directory not in text


def test_without_an_evaluation_it_has_only_validation_figures(manifest: Manifest) -> None:
    text = make_card(Sources(manifest))
    assert "Not measured on held-out messages" in text
    assert "605 validation messages, which also selected" in text
    assert read_card(text).eval_results is None


def test_words_that_are_markdown_or_yaml_stay_words(manifest: Manifest) -> None:
    labels = manifest.taxonomy.labels
    about = Label(labels[0].name, "a | b <script>\n# c")
    taxonomy = replace(manifest.taxonomy, labels=(about, *labels[1:]))
    base = replace(manifest.base, name='no: "yes" # \\ é')
    text = make_card(Sources(replace(manifest, taxonomy=taxonomy, base=base)))
    assert read_card(text).base_model == 'no: "yes" # \\ é'
    assert "| a \\| b \\<script\\> # c |" in text


def test_a_readme_of_the_user_stays(tmp_path: Path, manifest: Manifest) -> None:
    """A card is overwritten, and never has figures of another adapter."""
    (tmp_path / "adapter").symlink_to(DEMO)
    (tmp_path / "evaluation").mkdir()
    EVALUATION.write(tmp_path / "evaluation", evaluation_of(manifest))
    write_run_card(tmp_path)
    assert "| accuracy | 90.0%" in (tmp_path / CARD).read_text()
    other = {"name": "other", "digest": "cd" * 32, "path": "x"}
    EVALUATION.write(tmp_path / "evaluation", evaluation_of(manifest, adapter=other))
    write_run_card(tmp_path)
    assert "Not measured" in (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text("my notes")
    write_run_card(tmp_path)
    assert (tmp_path / CARD).read_text() == "my notes"


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("README.md", '---\nlicense: "Llama3.1"\nlanguage: en\n---\nlicense: gpl\n', "llama3.1"),
        ("README.md", "# x\nlicense: mit\n", None),
        ("LICENSE", "     Apache License\n  Version 2.0, January 2004\n", "apache-2.0"),
        ("LICENSE.txt", "All rights reserved\n" + "x" * 2000 + "MIT License", None),
    ],
)
def test_the_licence_is_read_from_the_bases_folder(
    tmp_path: Path, file: str, text: str, name: str | None
) -> None:
    (tmp_path / file).write_text(text)
    assert find_license(tmp_path) == name


@pytest.mark.slow
def test_perfect_confidences_exceed_the_bound_of_chance_one_time_in_twenty() -> None:
    """Simulated with 400 sets of 300 calibrated answers. A model with a confidence of 90 % and an
    accuracy of 80 % is far above the bound."""
    rng = np.random.default_rng(5)
    above = 0
    for _ in range(400):
        counts = rng.multinomial(300, [0.1, 0.2, 0.3, 0.4])
        confidence = np.array([0.45, 0.65, 0.85, 0.97])
        right = rng.binomial(counts, confidence) / np.maximum(counts, 1)
        rows = list(zip(confidence, right, counts, strict=True))
        bins = [ReliabilityBin(float(c), float(a), int(n)) for c, a, n in rows]
        ece = sum(abs(c - a) * n for c, a, n in rows) / 300
        above += ece > ece_by_chance(bins, seed=int(rng.integers(1 << 30)))
    assert 0.02 <= above / 400 <= 0.09
    assert ece_by_chance([ReliabilityBin(0.9, 0.8, 300)]) < 0.05
    assert ece_by_chance([]) == 0
