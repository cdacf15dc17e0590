"""A label is the same in every Unicode form, file and encoding."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Prepare, Record, WriteCsv
from tests.unit.trainer.dataset.test_decisions import HEADER, decide
from trainer.dataset.labels import read_decisions, read_label_map
from trainer.duel.candidates import read_recorded
from trainer.evaluation.evaluate import read_written
from trainer.propose.version import read_new_messages
from trainer.store.rules import load_rules
from trainer.suggest.order import read_labelled
from trainer.teacher.prompt import read_answer
from trainer.training.imported import map_outputs
from worker.contract import Taxonomy
from worker.contract.exchange import parse_answer

COMPOSED = "Réclamation"
APART = unicodedata.normalize("NFD", COMPOSED)
LABELS = (COMPOSED, "refund", "payment")


@pytest.fixture
def complaints(records: list[Record]) -> list[Record]:
    """Return the records, a third of them complaints."""
    return [
        (id_, text, COMPOSED if label == "order_tracking" else label)
        for id_, text, label in records
    ]


@pytest.fixture(params=[COMPOSED, APART], ids=["composed", "apart"])
def taxonomy(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "taxonomy.toml"
    names = (request.param, *LABELS[1:])
    labels = "".join(f'[[labels]]\nname = "{name}"\n' for name in names)
    path.write_text(f'name = "shop"\nversion = "1"\n{labels}', encoding="utf-8")
    return path


@pytest.mark.parametrize("form", [COMPOSED, APART], ids=["composed", "apart"])
def test_an_exports_labels_are_those_of_the_taxonomy(
    prepare: Prepare, complaints: list[Record], form: str
) -> None:
    rows = [(id_, text, form if label == COMPOSED else label) for id_, text, label in complaints]
    dataset = prepare(rows).dataset
    assert {each.label for each in dataset.train} == set(LABELS) == set(dataset.taxonomy.names)


def test_what_people_write_is_read_in_both_forms(
    tmp_path: Path, write_csv: WriteCsv, complaints: list[Record]
) -> None:
    (tmp_path / "map.csv").write_text(f"{APART}s,{APART}\n", encoding="utf-8")
    assert read_label_map(tmp_path / "map.csv", LABELS) == {f"{COMPOSED}s": COMPOSED}
    made = write_csv([decide(complaints[1], "relabel", APART)], "q.csv", HEADER)
    assert read_decisions(made, LABELS)[0][0].answer.new_label == COMPOSED
    cells = {"id": "a", "message_sha256": "b", "decision": "relabel", "new_label": APART}
    assert parse_answer(cells, "x:1").new_label == COMPOSED
    line = {"id": "a", "message": "Hello", "label": APART}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert read_written(tmp_path / "m.jsonl", LABELS)[0].label == COMPOSED
    [message] = read_new_messages([tmp_path / "m.jsonl"]).values()
    assert message.label == COMPOSED
    (tmp_path / "answers.csv").write_text(f"id,label\na,{APART}\n", encoding="utf-8")
    assert read_recorded(f"other={tmp_path / 'answers.csv'}").answers == {"a": COMPOSED}
    (tmp_path / "m.csv").write_text(f"message,label\nHello,{APART}\n", encoding="utf-8")
    assert [label for _, label in read_labelled(tmp_path / "m.csv", LABELS).values()] == [COMPOSED]
    assert {each.label for each in map_outputs([APART, *LABELS[1:]], LABELS, None)} == set(LABELS)
    assert read_answer(json.dumps({"label": APART}), LABELS).label == COMPOSED
    (tmp_path / "gate.toml").write_text(f'label_unproven = ["{APART}"]\n', encoding="utf-8")
    assert load_rules(tmp_path / "gate.toml").label_unproven == (COMPOSED,)
    assert load_rules(None, [f'label_unproven=["{APART}"]']).label_unproven == (COMPOSED,)
    assert Taxonomy.from_dict({"name": "t", "version": "1", "labels": [
        {"name": APART}, {"name": "b"}]}).names[0] == APART  # fmt: skip
