"""More labels than there are letters and digits, from a CSV to a published adapter."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from tests.support.tiny_messages import FILLERS
from tests.support.trainer_world import run_cli
from tests.unit.trainer.conftest import make_tiny_base
from worker.contract import decide_from_codes, verify_adapter
from worker.contract.store import find_adapter
from worker.engine.model_files import load_encoders

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[3] / "config" / "trainer-cpu.toml"
COUNT = 77
SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


SPLIT = ("--minimum-per-label", 5, "--validation-share", 0.2, "--holdout-share", 0.2)
SETTINGS = [
    part
    for setting in ("epochs=1", "lora_rank=2", "prefix_block=0", "threads=1", "list_labels=true")
    for part in ("--set", setting)
]


# Made-up words, which are labels and also occur in their messages.
NAMES = [f"{SYLLABLES[at % 70]}{SYLLABLES[(at * 7 + at // 70) % 70]}" for at in range(150)]
LABELS = NAMES[:COUNT]


def write_source(folder: Path, labels: list[str]) -> tuple[Path, Path]:
    """Write six messages a label and the taxonomy; return both files."""
    source, taxonomy = folder / "raw.csv", folder / "taxonomy.toml"
    rng = random.Random(1)
    with source.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["message", "label"])
        for label in labels:
            for number in range(6):
                words = [*rng.sample(FILLERS, 4), label, f"{label}{number}", str(rng.random())]
                rng.shuffle(words)
                rows.writerow([" ".join(words), label])
    entries = "".join(f'[[labels]]\nname = "{name}"\n' for name in labels)
    taxonomy.write_text(f'name = "many"\nversion = "1"\n{entries}', encoding="utf-8")
    return source, taxonomy


def test_many_labels_go_all_the_way(tmp_path: Path) -> None:
    """A worker's tokenizer reads each code as its token, a decision has every label, and the output
    has no message text."""
    # A tokenizer with several hundred tokens that do not start a word.
    base = make_tiny_base(tmp_path / "base", NAMES * 9, vocab_size=700)
    source, taxonomy = write_source(tmp_path, LABELS)
    data, run, store = (tmp_path / name for name in ("data", "run", "store"))
    printed = ""
    for words in (
        ("prepare", "--input", source, "--taxonomy", taxonomy, "--out", data, *SPLIT),
        ("train", "--recipe", CONFIG, "--dataset", data, "--base", base, "--out", run, *SETTINGS),
        ("evaluate", run / "adapter", "--dataset", data, "--base", base, "--no-steering"),
        ("publish", run, "--store", store, "--force", "--reason", "it learnt for a second"),
    ):
        done = run_cli(*words)
        assert done.exit_code == 0, done.stderr
        printed += done.output
    check = run_cli("check", data, "--base", base, "--embeddings", "none")
    assert check.exit_code == 3, "six messages a label are too few"
    printed += check.output
    with source.open(encoding="utf-8", newline="") as file:
        assert not [row for row in csv.DictReader(file) if row["message"] in printed]
    manifest = verify_adapter(find_adapter(store).directory, base, load_encoders(base))
    codes = manifest.codes
    assert len({code.token_id for code in codes.values()}) == COUNT
    assert len({code.text for code in codes.values()}) == COUNT
    assert any(len(code.text) > 1 for code in codes.values())
    lines = (run / "evaluation" / "predictions.jsonl").read_text("utf-8").splitlines()
    prediction = json.loads(lines[0])
    temperature = manifest.calibration.temperature
    decision = decide_from_codes(prediction["logprobs"], tuple(codes), temperature)
    assert set(decision.scores) == set(LABELS)
    assert decision.label == prediction["predicted"]
