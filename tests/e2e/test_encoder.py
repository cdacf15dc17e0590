"""From an export to a store with a small encoder, as its users run it."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from tests.support.tiny_encoder import make_tiny_encoder
from tests.support.trainer_world import call
from worker.contract import load_adapter, verify_adapter
from worker.contract.store import find_adapter

ROOT = Path(__file__).parents[2]
WORDS = {
    "orders": {"late": ["parcel", "late", "waiting"], "lost": ["parcel", "lost", "gone"]},
    "money": {"refund": ["money", "refund", "back"], "double": ["charged", "twice", "double"]},
}
FILLERS = ["please", "my", "the", "hello", "today", "thanks", "it", "is", "still", "now"]
TAXONOMY = """
name = "tiny"
version = "1"
[[labels]]
name = "orders"
description = "where a parcel is"
[[labels]]
name = "money"
description = "what was paid"
"""


def write_export(path: Path) -> None:
    """Write 160 made-up messages, each with a sublabel."""
    rng = random.Random(7)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "message", "label", "topic"])
        for number in range(160):
            label = rng.choice(sorted(WORDS))
            topic = rng.choice(sorted(WORDS[label]))
            words = [*WORDS[label][topic], *rng.sample(FILLERS, 6), f"no{rng.randrange(10**6)}"]
            rng.shuffle(words)
            writer.writerow([number, " ".join(words), label, topic])


def test_prepare_train_evaluate_duel_publish(tmp_path: Path) -> None:
    """An encoder with sublabels is compared with cheaper methods and becomes current in a store,
    as a self-contained directory."""
    write_export(tmp_path / "export.csv")
    (tmp_path / "taxonomy.toml").write_text(TAXONOMY, encoding="utf-8")
    base = make_tiny_encoder(
        tmp_path / "base", (tmp_path / "export.csv").read_text(encoding="utf-8").splitlines()
    )
    data, run, store = tmp_path / "data", tmp_path / "run", tmp_path / "store"

    def clerk(*arguments: object) -> None:
        code, _, error = call(*arguments)
        assert code == 0, error

    clerk(
        *("prepare", "--input", tmp_path / "export.csv", "--out", data),
        *("--taxonomy", tmp_path / "taxonomy.toml", "--id-column", "id"),
        *("--label-column", "label", "--sublabel-column", "topic"),
    )
    clerk(
        *("train", "--recipe", ROOT / "config" / "trainer-encoder.toml", "--dataset", data),
        *("--base", base, "--out", run, "--set", "max_message_tokens=100"),
        *("--set", "epochs=6", "--set", "batch_size=16", "--set", "learning_rate=3e-3"),
        *("--set", "head_learning_rate=3e-2", "--set", "mixed_precision=no"),
        *("--set", "review_precision_by=point"),
    )
    clerk("evaluate", run / "adapter", "--dataset", data, "--no-steering")
    clerk("duel", run / "adapter", "--dataset", data, "--embeddings", base)
    clerk("report", run)
    clerk(
        *("publish", run, "--store", store, "--set", "accuracy=0.5", "--set", "macro_f1=0.5"),
        *("--set", "ece=0.5", "--set", "steering=false", "--set", "steering_unreviewed=false"),
        *("--probes", "validation"),
    )
    clerk("list", "--store", store)
    found = find_adapter(store)
    manifest = load_adapter(found.directory)
    assert manifest.kind == "encoder"
    assert not manifest.needs_base
    assert manifest.head is not None
    assert {output.name for output in manifest.head.outputs} == {"late", "lost", "refund", "double"}
    evaluation = json.loads((run / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["accuracy"] > 0.8
    from trainer.model.prompt import load_tokenizer

    encoders = load_tokenizer(found.directory).encoders
    assert verify_adapter(found.directory, None, encoders).probes
