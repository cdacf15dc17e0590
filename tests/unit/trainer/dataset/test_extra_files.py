"""A dataset keeps the origins of labels, and how often each hold-out message occurred."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Made, Prepare, Record, Refused, WriteCsv
from trainer.dataset.extra_files import COPIES, read_copies, read_label_sources
from trainer.dataset.folder import LabelOrigin
from trainer.errors import BadInput
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256


def test_every_row_of_the_export_that_is_held_out_is_counted(
    prepare: Prepare, records: list[Record]
) -> None:
    plain = prepare(records)
    assert not (plain.out / COPIES).exists()
    assert read_copies(plain.dataset) == {}
    labels = sorted({label for _, _, label in records})
    rows = list(records)
    for at, (id_, text, label) in enumerate(records):
        rows += [(f"{id_}-{copy}", text, label) for copy in range(at % 3)]
        if at % 10 == 9:
            rows.append((f"{id_}-x", text, labels[labels.index(label) - 1]))
    made = prepare(rows)
    held = made.held()
    wanted = Counter(text for _, text, _ in rows)
    found = read_copies(made.dataset)
    assert found is not None
    assert max(found.values()) == 3
    for example in held:
        assert found.get(example.id, 1) == wanted[example.message]
    counted = made.counts["holdout_traffic"]
    assert counted["rows"] == sum(wanted[example.message] for example in held)
    assert counted["ambiguous"] > 0
    text = made.text(COPIES)
    assert not any(example.message in text for example in held)
    (made.out / COPIES).write_text(text[1:], encoding="utf-8")
    with pytest.raises(BadInput, match=r"copies\.jsonl: altered"):
        read_copies(made.dataset)


def counted(made: Made, *origins: str) -> dict[str, int]:
    """Return the labels of each origin, over the splits."""
    sources = made.record["label_sources"].values()
    return {words: sum(part.get(words, 0) for part in sources) for words in origins}


def test_decisions_are_persons_labels_by_their_guideline(
    prepare: Prepare, records: list[Record], tmp_path: Path
) -> None:
    decided = [("4", "outcome"), (None, "outcome"), ("4", "opinion")]
    save_answers(
        tmp_path / "d.csv",
        [
            Answer(
                id_, message_sha256(text), "relabel", "payment",
                guideline=guideline, role=role,  # type: ignore[arg-type]
            )
            for (id_, text, _), (guideline, role) in zip(records, decided, strict=False)
        ],
    )  # fmt: skip
    made = prepare(records, "--decisions", tmp_path / "d.csv")
    assert read_label_sources(made.dataset) == {
        records[0][0]: LabelOrigin("person", "4"),
        records[1][0]: LabelOrigin("person"),
    }
    origins = ("export", "person", "person, guideline 4")
    assert counted(made, *origins) == dict(zip(origins, (118, 1, 1), strict=True))
    assert "label_sources" not in prepare(records).record
    assert made.placed()[records[2][0]][1] == records[2][2]  # an opinion is no decision


def test_each_row_of_an_export_may_say_it(
    prepare: Prepare, refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """``--label-source`` is for the rows that do not say it themselves."""
    said = ("teacher", "person", "export", "")
    rows = [(*row, said[at % 4]) for at, row in enumerate(records)]
    header = ("id", "message", "label", "label_source")
    made = prepare(rows, "--label-source", "teacher", header=header)
    assert counted(made, "export", "person") == {"export": 30, "person": 30}
    rows[4] = (*records[4], "hearsay")
    error = refused(write_csv(rows, header=header))
    assert "1 row whose 'label_source' is not one of export, person, teacher" in error
