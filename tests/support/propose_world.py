"""A store with a small adapter in service, and decisions that would improve it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.trainer_world import call
from trainer.dataset.folder import Dataset, Example, write_dataset
from trainer.dataset.people import Taught, keep_taught
from worker.common.review_files import save_answers
from worker.contract import Taxonomy
from worker.contract.digest import sha256_bytes
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256

Make = Callable[[int, int], list[tuple[str, str]]]
# Steering has to be measured, whatever is found: rules that were off hid that it was not.
GATE = (
    "accuracy=0",
    "macro_f1=0",
    "label_recall=0",
    "ece=1",
    "steering=false",
    "steering_unreviewed=1",
    "non_inferiority_margin=0.1",
)
COMMON = """base_name = "tiny"
base_revision = "1"
max_message_tokens = 100
"""
RECIPES = {
    "embedding-linear": 'kind = "embedding-linear"\nonnx = ["fp32"]\npooling = "mean"\n',
    "encoder": 'kind = "encoder"\nonnx = ["fp32"]\npooling = "mean"\nepochs = 6\nbatch_size = 16\n'
    'learning_rate = 3e-3\nhead_learning_rate = 3e-2\nmixed_precision = "no"\n',
}
"""Recipes that learn a tiny dataset from a random base."""


class Place(NamedTuple):
    """A store with an adapter in service, its dataset, decisions that correct it, and a recipe."""

    store: Path
    dataset: Path
    recipe: Path
    base: Path
    decisions: Path
    truth: dict[str, str]

    def command(self, out: Path, decisions: Path | None = None, *more: Any) -> tuple[Any, ...]:
        return (
            *("propose", "--store", self.store, "--dataset", self.dataset, "--out", out),
            *("--recipe", self.recipe, "--base", self.base, "--json", *gates()),
            *("--decisions", decisions or self.decisions, *more),
        )

    def propose(self, out: Path, decisions: Path | None = None, *more: Any) -> Any:
        return call(*self.command(out, decisions, *more))

    def carry_out(self, out: Path, decided: Path) -> Any:
        return call(
            *("propose", "--store", self.store, "--out", out, "--json", *gates()),
            *("--decided", decided),
        )


def gates(option: str = "--gate-set", rules: Sequence[str] = GATE) -> tuple[str, ...]:
    """The gate's rules as the command accepts them: ``publish`` with ``--set``."""
    return tuple(word for rule in rules for word in (option, rule))


def make_place(
    root: Path, kind: str, base: Path, taxonomy_file: Path, make_messages: Make
) -> Place:
    """Make the place below ``root``: two in five training labels of the adapter in service are
    wrong."""
    draw = random.Random(5)
    parts, truth = {}, {}
    for seed, (part, count) in enumerate((("train", 60), ("validation", 20), ("holdout", 100))):
        rows = []
        for at, (message, label) in enumerate(make_messages(count, 90 + seed)):
            wrong = part == "train" and draw.random() < 0.4
            given = draw.choice(sorted({"refund", "payment", "order_tracking"} - {label}))
            rows.append(Example(f"{part}-{at}", message, given if wrong else label))
            if part == "train":
                truth[rows[-1].id] = label
        parts[part] = rows
    dataset = root / "dataset"
    taxonomy = Taxonomy.from_toml(taxonomy_file)
    pool = [Example(f"pool-{at}", *row) for at, row in enumerate(make_messages(5, 99))]
    write_taught(dataset, taxonomy, parts, pool)
    recipe = root / "recipe.toml"
    recipe.write_text(COMMON + RECIPES[kind])
    run, store = root / "run", root / "store"
    for command in (
        ("train", "--recipe", recipe, "--dataset", dataset, "--base", base, "--out", run),
        ("evaluate", run / "adapter", "--dataset", dataset, "--base", base),
        ("publish", run, "--store", store, *gates("--set")),
    ):
        code, _, error = call(*command)
        assert code == 0, error
    decisions = root / "decisions.csv"
    write(decisions, parts["train"], truth)
    return Place(store, dataset, recipe, base, decisions, truth)


def write_taught(
    directory: Path, taxonomy: Taxonomy, parts: dict[str, list[Example]], pool: Sequence[Example]
) -> Dataset:
    """Write a dataset with a pool, whose teacher is right about every held-out message."""
    said = Taught({each.id: each.label for each in parts["holdout"]}, tuple(pool))
    directory.mkdir()
    files = {}
    for name, data, rows in keep_taught(said, said.labels):
        (directory / name).write_bytes(data)
        files[name] = {"sha256": sha256_bytes(data), "bytes": len(data), "rows": rows}
    return write_dataset(directory, name="tiny", taxonomy=taxonomy, splits=parts, extra_files=files)


def write(path: Path, rows: Any, labels: dict[str, str]) -> Path:
    """Write a decision for each row, with its label in ``labels``."""
    save_answers(
        path,
        [
            Answer(
                row.id, message_sha256(row.message),
                "accept" if labels[row.id] == row.label else "relabel",
                "" if labels[row.id] == row.label else labels[row.id],
                purpose="check", guideline="2",
            )
            for row in rows
        ],
    )  # fmt: skip
    return path


NAME_RULES = """
supported_languages: [en]
nlp_configuration:
  nlp_engine_name: no_op
  models: [{lang_code: en, model_name: no_op}]
recognizer_registry:
  recognizers:
    - {name: staff, type: custom, supported_languages: [en], supported_entity: PERSON,
       deny_list: [Ann Example, Bob Sample]}
"""
"""A configuration of Presidio without a model: it knows these two names."""
