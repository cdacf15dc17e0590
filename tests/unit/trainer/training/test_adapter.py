"""An adapter's probes, and its reference for monitoring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.dataset.folder import Dataset, open_dataset
from trainer.training.adapter import choose_probes, make_reference
from trainer.training.inputs import read_code_inputs
from trainer.training.recipe import load_recipe
from worker.contract import Calibration, Probe, Thresholds

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"
CALIBRATION = Calibration(1.0, 10)


def scores(dataset: Dataset, sure: float) -> tuple[np.ndarray, np.ndarray]:
    """Return scores that classify every validation message but the first correctly."""
    names = dataset.taxonomy.names
    truth = np.array([names.index(example.label) for example in dataset.validation])
    probabilities = np.full((len(truth), len(names)), (0.98 - sure) / (len(names) - 1))
    probabilities[np.arange(len(truth)), truth] = sure
    probabilities[0] = np.roll(probabilities[0], 1)
    return np.log(probabilities), truth


def probes(
    dataset: Dataset, sure: float, thresholds: Thresholds, probes_per_label: int = 2
) -> tuple[Probe, ...]:
    return choose_probes(
        dataset,
        *scores(dataset, sure),
        CALIBRATION,
        thresholds,
        probes_per_label=probes_per_label,
        seed=1,
    )


def test_probes_are_right_and_far_from_review(dataset_dir: Path) -> None:
    """At most so many per label, none that is misclassified, none that would go to review."""
    dataset = open_dataset(dataset_dir)
    found = probes(dataset, 0.9, Thresholds(0.6, 0.1))
    known = {example.message: example.label for example in dataset.validation[1:]}
    assert {probe.message: probe.label for probe in found}.items() <= known.items()
    for name in dataset.taxonomy.names:
        assert sum(probe.label == name for probe in found) == 2
    assert probes(dataset, 0.9, Thresholds(0.6, 0.1), probes_per_label=0) == ()
    assert probes(dataset, 0.5, Thresholds(0.6, 0.1)) == ()
    assert probes(dataset, 0.9, Thresholds(0.6, 0.01)) == ()
    assert probes(dataset, 0.9, Thresholds(None))


def test_shares_are_those_of_the_data_and_quantiles_those_of_validation(dataset_dir: Path) -> None:
    """A limit per label does not change the expected traffic."""
    dataset = open_dataset(dataset_dir)
    logprobs, _ = scores(dataset, 0.9)
    found = make_reference(dataset, logprobs, CALIBRATION)
    assert sum(found.label_shares.values()) == pytest.approx(1, abs=1e-5)
    assert found.off_label_mass["0.95"] == pytest.approx(0.02, abs=1e-5)
    assert found.confidence["0.5"] == pytest.approx(0.9 / 0.98, abs=1e-5)
    name = dataset.taxonomy.names[0]
    record: Any = dataset.record
    record["counts"] = {"surplus": {name: 1000}}
    capped = make_reference(dataset, logprobs, CALIBRATION)
    assert capped.label_shares[name] > 0.8 > found.label_shares[name]


def test_a_manifest_records_that_names_were_redacted(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """Serving does not redact names, so the manifest has to say it."""
    places = {"base": tiny_base, "dataset": dataset_dir, "run": tmp_path / "run"}
    inputs = read_code_inputs(load_recipe(CONFIG, places))
    assert "names_redaction" not in inputs.to_record()
    names = {"by": "presidio-analyzer 2.2", "models": [], "mark": "[name]", "marked": 3}
    record = {**inputs.dataset.record, "names_redaction": names}
    redacted = replace(inputs, dataset=replace(inputs.dataset, record=record))
    assert redacted.to_record()["names_redaction"] == names
