"""A student, its teacher, and people: what an evaluation says of the three."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_messages import make_messages
from tests.support.trainer_world import call
from tests.unit.trainer.conftest import ROOT
from trainer.artifacts.evaluation import EVALUATION, POOL
from trainer.dataset.folder import open_dataset
from trainer.dataset.people import read_taught
from trainer.errors import ProofFailed
from trainer.evaluation.summary import recompute, verify_evaluation
from trainer.propose.version import make_version
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, taxonomy_file: Path
) -> tuple[Path, Path]:
    """Return a dataset of a teacher's labels with a sample by people, and the run folder of an
    encoder that learned it."""
    place, rng = tmp_path_factory.mktemp("taught"), random.Random(1)
    rows: list[dict[str, Any]] = []
    names = sorted({label for _, label in make_messages(1, 1)})
    for at, (text, label) in enumerate(make_messages(90, 5)):
        said = label if rng.random() < 0.9 else rng.choice(names)
        row = {"id": f"m{at}", "message": text, "label": said, "label_source": "teacher"}
        if at % 4 == 0:
            row |= {"label": label, "label_source": "person", "teacher_label": said}
        rows.append(row)
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, error = call(
        *("prepare", "--input", place / "rows.jsonl", "--taxonomy", taxonomy_file),
        *("--out", place / "data", "--minimum-per-label", 3),
    )
    assert code == 0, error
    code, _, error = call(
        *("train", "--recipe", ROOT / "config" / "trainer-encoder.toml", "--json"),
        *("--dataset", place / "data", "--base", tiny_encoder, "--out", place / "run"),
        *("--set", "max_message_tokens=100", "--set", "epochs=3", "--set", "batch_size=16"),
        *("--set", "learning_rate=3e-3", "--set", "head_learning_rate=3e-2"),
        *("--set", "mixed_precision=no"),
    )
    assert code == 0, error
    return place / "data", place / "run"


def test_accuracy_is_against_people_and_the_teacher_only_helps(run: tuple[Path, Path]) -> None:
    data, folder = run
    dataset = open_dataset(data)
    taught = read_taught(dataset)
    assert taught is not None
    code, record, error = call(
        *("evaluate", folder / "adapter", "--dataset", data, "--no-steering", "--json"),
    )
    assert code == 0, error
    found = record["taught"]
    assert found["pool"] == len(taught.pool)
    assert found["compared"] == record["examples"] == len(taught.labels)
    assert record["dataset"]["holdout_sources"] == {"person": record["examples"]}
    assert record["dataset"]["validation_sources"] == {"person": len(dataset.validation)}
    pool = POOL.read(folder / "evaluation")
    said = {each.id: each.label for each in taught.pool}
    assert {each.id: each.label for each in pool} == said
    agree = sum(each.predicted == each.label for each in pool)
    assert found["agreement"] == pytest.approx(agree / len(pool))
    low, high = found["accuracy_interval_95"]
    assert low <= found["accuracy"] <= high
    assert found["reachable"][0] <= record["accuracy"] + 0.15
    wrong = found["both_wrong"] + found["adapter_wrong"]
    assert wrong == round((1 - record["accuracy"]) * record["examples"])

    # Every figure follows from the files, so an edited one is noticed.
    assert recompute(folder / "evaluation") == EVALUATION.read(folder / "evaluation")
    assert verify_evaluation(folder / "evaluation").taught is not None
    path = folder / "evaluation" / EVALUATION.name
    kept = path.read_bytes()
    path.write_text(json.dumps(json.loads(kept) | {"taught": found | {"accuracy": 0.99}}))
    with pytest.raises(ProofFailed, match=r"taught\.accuracy"):
        verify_evaluation(folder / "evaluation")
    path.write_bytes(kept)

    card = (folder / "README.md").read_text()
    assert "| accuracy, with the teacher's help |" in card
    assert f"hold-out person {record['examples']}." in card
    code, _, error = call("report", folder, "--out", folder / "page.html")
    assert code == 0, error
    page = (folder / "page.html").read_text()
    assert "agreement with the teacher" in page


def test_a_pool_that_the_adapter_may_have_learnt_is_not_used(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    """The pool belongs to the dataset that the adapter was trained on."""
    data, folder = run
    other = tmp_path / "other"
    code, _, error = call(
        *("prepare", "--input", data.parent / "rows.jsonl", "--seed", 4, "--out", other),
        *("--taxonomy", _taxonomy(data, tmp_path), "--minimum-per-label", 3),
    )
    assert code == 0, error
    code, record, error = call(
        *("evaluate", folder / "adapter", "--dataset", other, "--no-steering", "--json"),
        *("--out", tmp_path / "evaluation"),
    )
    assert code == 0, error
    assert record["taught"] is None
    assert "no accuracy with the teacher's help" in error


def test_a_version_of_the_dataset_keeps_the_pool(run: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = run
    decided = open_dataset(data).train[0]
    decision = Answer(decided.id, message_sha256(decided.message), "accept", purpose="check")
    new = make_version(
        open_dataset(data), {decision.message_sha256: decision}, {}, tmp_path / "new"
    )
    code, record, error = call(
        *("evaluate", folder / "adapter", "--dataset", new.directory, "--trained-on", data),
        *("--no-steering", "--json", "--out", tmp_path / "evaluation"),
    )
    assert code == 0, error
    own = EVALUATION.read(folder / "evaluation").taught
    assert own is not None
    assert record["taught"] == own.to_json()


def _taxonomy(data: Path, folder: Path) -> Path:
    labels = json.loads((data / "dataset.json").read_text())["taxonomy"]["labels"]
    path = folder / "taxonomy.toml"
    text = "".join(f'[[labels]]\nname = "{label["name"]}"\n' for label in labels)
    path.write_text(f'name = "tiny"\nversion = "1"\n{text}')
    return path
