"""Reviewers' decisions: applied, recorded or refused, without changing the split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Made, Prepare, Record, Refused, WriteCsv
from worker.contract.text import message_sha256

Queue = Callable[[Sequence[Sequence[str]]], Path]
HEADER = ("id", "message_sha256", "decision", "new_label", "note", "decided_by", "suspicion")


def decide(
    record: Record, word: str, new_label: str = "", by: str = "ann", note: str = ""
) -> list[str]:
    id_, message, _ = record
    return [id_, message_sha256(message), word, new_label, note, by, "0.9"]


@pytest.fixture
def queue(write_csv: WriteCsv) -> Queue:
    return lambda rows: write_csv(rows, "q.csv", HEADER)


@pytest.fixture
def decided(prepare: Prepare, queue: Queue, records: list[Record]) -> Callable[..., Made]:
    """Return a function (queue rows, *options) -> the dataset with these decisions."""
    return lambda rows, *options: prepare(records, *options, "--decisions", queue(rows))


def test_decisions_leave_every_untouched_row_in_its_split(
    decided: Callable[..., Made], records: list[Record]
) -> None:
    """A third of all rows is relabelled or dropped, in the hold-out too."""
    dropped, relabelled = records[::12], records[3::12] + records[8::12]
    rows = [decide(record, "drop") for record in dropped]
    rows += [decide(record, "relabel", "refund") for record in relabelled]
    before, after = decided([]).placed(), decided(rows).placed()
    gone, renamed = {record[0] for record in dropped}, {record[0] for record in relabelled}
    assert {before[id_][0] for id_ in renamed} == {"train", "validation", "holdout"}
    assert set(after) == set(before) - gone
    for id_, (split, label) in after.items():
        assert before[id_][0] == split
        assert label == ("refund" if id_ in renamed else before[id_][1])


def test_under_a_cap_one_decision_lets_one_other_row_in(
    decided: Callable[..., Made], records: list[Record]
) -> None:
    before = decided([], "--per-label", 10).placed()
    gone = next(record for record in records if before.get(record[0], ("",))[0] == "train")
    after = decided([decide(gone, "drop")], "--per-label", 10).placed()
    assert set(before) - set(after) == {gone[0]}
    (new,) = set(after) - set(before)
    assert after[new] == ("train", gone[2])
    assert all(before[id_] == after[id_] for id_ in set(before) & set(after))


def test_near_duplicates_stay_together_when_one_of_them_is_dropped(
    prepare: Prepare, queue: Queue, records: list[Record]
) -> None:
    families = [
        (f"{id_}-{place}", f"{message} {ending}".strip(), label)
        for id_, message, label in records
        for place, ending in enumerate(("", "so", "so now", "so now it is"))
    ]
    drops = queue([decide(record, "drop") for record in families[1::4]])
    before = prepare(families).placed()
    after = prepare(families, "--decisions", drops).placed()
    assert len(after) == len(before) - len(records)
    assert all(before[id_] == after[id_] for id_ in after)


def test_the_manifest_says_who_decided_what(
    decided: Callable[..., Made], records: list[Record]
) -> None:
    made = decided(
        [
            decide(records[0], "Relabel", " Refund ", note="asks for money"),
            decide(records[1], "drop", by="bob"),
            decide(records[2], "accept"),
            decide(records[3], ""),
        ]
    )
    told = made.record["decisions"]["made"]
    assert told[0] == {
        "id": "t000", "decision": "relabel", "from": records[0][2], "to": "refund", "by": "ann",
        "note": "asks for money", "copies": 0,
    }  # fmt: skip
    assert [(each["decision"], each["to"], each["by"]) for each in told[1:]] == [
        ("drop", None, "bob"), ("accept", records[2][2], "ann"),
    ]  # fmt: skip
    assert made.counts["decisions"] == {
        "relabel": 1, "drop": 1, "accept": 1, "undecided": 1, "rows_dropped": 1,
    }  # fmt: skip
    assert made.record["digest"] != decided([]).record["digest"]


def test_a_corrected_message_does_not_stand_against_its_own_copy(
    prepare: Prepare, queue: Queue, records: list[Record]
) -> None:
    """Both rows are corrected; otherwise they would be a conflict, and both would be dropped."""
    export = [*records, ("twin", records[0][1].upper(), records[0][2])]
    made = prepare(export, "--decisions", queue([decide(records[0], "relabel", "refund")]))
    assert made.counts["conflicts"]["messages"] == 0
    assert made.record["decisions"]["made"][0]["copies"] == 1
    assert made.placed()["t000"][1] == "refund"


def test_the_conflicts_file_filled_in_resolves_the_conflicts(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    export = [("twin", records[0][1], "refund"), *records]
    first = prepare(export)
    assert "t000" not in first.placed()
    rows = first.table("conflicts.csv")
    assert [(row["id"], row["kind"], row["label"]) for row in rows] == [
        ("t000", "exact", "order_tracking"), ("twin", "exact", "refund"),
    ]  # fmt: skip
    rows[1] |= {"decision": "accept", "decided_by": "ann"}
    filled = write_csv([list(row.values()) for row in rows], "filled.csv", list(rows[0]))
    second = prepare(export, "--decisions", filled)
    assert second.placed()["twin"][1] == "refund"
    assert second.counts["conflicts"]["resolved"] == {"decided by a person": 1}


def test_a_decision_holds_for_the_text_as_exported_and_as_cleaned(
    prepare: Prepare, queue: Queue, records: list[Record]
) -> None:
    mails = [(id_, f"{text} a@example.com", label) for id_, text, label in records]
    shown = (records[1][0], f"{records[1][1]} [mail]", records[1][2])
    both = queue([decide(mails[0], "accept"), decide(shown, "accept")])
    assert prepare(mails, "--redact", "--decisions", both).counts["decisions"]["accept"] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: "t999"}, "q.csv:3: no row has the id 't999'"),
        ({1: "0" * 64}, "q.csv:3: the text of 't001' has changed since the decision"),
        ({2: "ok"}, "q.csv:3: unknown decision 'ok': use accept, relabel, drop"),
        ({2: "relabel", 3: "refunds"}, "q.csv:3: unknown label 'refunds'; did you mean 'refund'?"),
        ({2: "relabel"}, "q.csv:3: relabel needs a 'new_label'"),
        ({0: "t000", 2: "drop"}, "q.csv:3: contradicts q.csv:2 about 't000'"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_an_error_with_its_row(
    refused: Refused, write_csv: WriteCsv, queue: Queue, records: list[Record],
    change: Mapping[int, str], said: str,
) -> None:  # fmt: skip
    row = decide(records[0] if change.get(0) == "t000" else records[1], "accept")
    row = [change.get(place, cell) for place, cell in enumerate(row)]
    rows = queue([decide(records[0], "accept"), row])
    assert said in refused(write_csv(records), "--decisions", rows)


def test_all_problems_of_all_queues_are_reported_at_once(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    first = [decide(record, "ok") for record in records[:2]] + [decide(records[2], "relabel", "x")]
    second = [decide(records[3], "relabel"), decide(records[4], "accept")]
    queues = [write_csv(rows, f"q{n}.csv", HEADER) for n, rows in enumerate((first, second))]
    said = refused(write_csv(records), "--decisions", queues[0], "--decisions", queues[1])
    assert "q0.csv lines 2, 3: unknown decision 'ok'" in said
    assert "q0.csv:4: unknown label 'x'" in said
    assert "q1.csv:2: relabel needs a 'new_label'" in said
    path = write_csv(records)
    assert "no column 'message_sha256'" in refused(path, "--decisions", path)
