"""Reviewers' decisions: applied, recorded or refused, without changing the split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.dataset.conftest import Record, Refused, Run, WriteCsv
from worker.contract.text import message_sha256

Prepared = Callable[..., Path]
HEADER = ("id", "message_sha256", "decision", "new_label", "note", "decided_by", "suspicion")


def decide(
    record: Record, word: str, new_label: str = "", by: str = "ann", note: str = ""
) -> list[str]:
    id_, message, _ = record
    return [id_, message_sha256(message), word, new_label, note, by, "0.9"]


def placed(out: Path) -> dict[str, tuple[str, str]]:
    """Return id -> (split, label)."""
    return {
        line["id"]: (name, line["response"])
        for name in ("train", "validation", "holdout")
        for line in map(json.loads, (out / f"{name}.jsonl").read_text("utf-8").splitlines())
    }


def manifest(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture
def prepared(run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path) -> Prepared:
    """Return a function (queue rows, *options) -> the folder prepared with these decisions."""
    export = write_csv(records)

    def prepare(rows: Sequence[Sequence[str]], *options: object) -> Path:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        queue = write_csv(rows, f"{out.name}.csv", HEADER)
        result = run(export, *options, "--decisions", queue, out=out)
        assert result.exit_code == 0, (result.output, result.exception)
        return out

    return prepare


def test_decisions_leave_every_untouched_row_in_its_split(
    prepared: Prepared, records: list[Record]
) -> None:
    """A third of all rows is relabelled or dropped, in the hold-out too."""
    dropped, relabelled = records[::12], records[3::12] + records[8::12]
    rows = [decide(record, "drop") for record in dropped]
    rows += [decide(record, "relabel", "refund") for record in relabelled]
    before, after = placed(prepared([])), placed(prepared(rows))
    gone, renamed = {record[0] for record in dropped}, {record[0] for record in relabelled}
    assert {before[id_][0] for id_ in renamed} == {"train", "validation", "holdout"}
    assert set(after) == set(before) - gone
    for id_, (split, label) in after.items():
        assert before[id_][0] == split
        assert label == ("refund" if id_ in renamed else before[id_][1])


def test_under_a_cap_one_decision_lets_one_other_row_in(
    prepared: Prepared, records: list[Record]
) -> None:
    before = placed(prepared([], "--per-label", 10))
    gone = next(record for record in records if before.get(record[0], ("",))[0] == "train")
    after = placed(prepared([decide(gone, "drop")], "--per-label", 10))
    assert set(before) - set(after) == {gone[0]}
    (new,) = set(after) - set(before)
    assert after[new] == ("train", gone[2])
    assert all(before[id_] == after[id_] for id_ in set(before) & set(after))


def test_near_duplicates_stay_together_when_one_of_them_is_dropped(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    families = [
        (f"{id_}-{place}", f"{message} {ending}".strip(), label)
        for id_, message, label in records
        for place, ending in enumerate(("", "so", "so now", "so now it is"))
    ]
    export = write_csv(families)
    queue = write_csv([decide(record, "drop") for record in families[1::4]], "q.csv", HEADER)
    run(export, out=tmp_path / "a")
    run(export, "--decisions", queue, out=tmp_path / "b")
    before, after = placed(tmp_path / "a"), placed(tmp_path / "b")
    assert len(after) == len(before) - len(records)
    assert all(before[id_] == after[id_] for id_ in after)


def test_the_manifest_says_who_decided_what(prepared: Prepared, records: list[Record]) -> None:
    rows = [
        decide(records[0], "Relabel", "refund", note="asks for money"),
        decide(records[1], "drop", by="bob"),
        decide(records[2], "accept"),
        decide(records[3], ""),
    ]
    out = prepared(rows)
    record = manifest(out)
    first = records[0][2]
    assert record["decisions"]["made"] == [
        {"id": "t000", "decision": "relabel", "from": first, "to": "refund", "by": "ann",
         "note": "asks for money", "copies": 0},
        {"id": "t001", "decision": "drop", "from": records[1][2], "to": None, "by": "bob",
         "note": "", "copies": 0},
        {"id": "t002", "decision": "accept", "from": records[2][2], "to": records[2][2],
         "by": "ann", "note": "", "copies": 0},
    ]  # fmt: skip
    assert record["counts"]["decisions"] == {
        "relabel": 1, "drop": 1, "accept": 1, "undecided": 1, "rows_dropped": 1,
    }  # fmt: skip
    assert "asks for money" in (out / "report.md").read_text(encoding="utf-8")
    assert record["digest"] != manifest(prepared([]))["digest"]


def test_a_corrected_message_does_not_stand_against_its_own_copy(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """Both rows are corrected; otherwise they would be a conflict, and both would be dropped."""
    export = write_csv([*records, ("twin", records[0][1].upper(), records[0][2])])
    queue = write_csv([decide(records[0], "relabel", "refund")], "q.csv", HEADER)
    run(export, "--decisions", queue)
    record = manifest(tmp_path / "out")
    assert record["counts"]["conflicts"]["messages"] == 0
    assert record["decisions"]["made"][0]["copies"] == 1
    assert placed(tmp_path / "out")["t000"][1] == "refund"


def test_the_conflicts_file_filled_in_resolves_the_conflicts(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    export = write_csv([("twin", records[0][1], "refund"), *records])
    run(export, out=tmp_path / "a")
    assert "t000" not in placed(tmp_path / "a")
    with (tmp_path / "a" / "conflicts.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["kind"], row["label"]) for row in rows] == [
        ("t000", "exact", "order_tracking"), ("twin", "exact", "refund"),
    ]  # fmt: skip
    rows[1] |= {"decision": "accept", "decided_by": "ann"}
    filled = write_csv([list(row.values()) for row in rows], "filled.csv", list(rows[0]))
    run(export, "--decisions", filled, out=tmp_path / "b")
    assert placed(tmp_path / "b")["twin"][1] == "refund"
    assert manifest(tmp_path / "b")["counts"]["conflicts"]["resolved"] == {"decided by a person": 1}


def test_a_decision_holds_for_the_text_as_exported_and_as_cleaned(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    redacted = [(id_, f"{text} a@example.com", label) for id_, text, label in records]
    shown = (records[1][0], f"{records[1][1]} [mail]", records[1][2])
    queue = write_csv([decide(redacted[0], "accept"), decide(shown, "accept")], "q.csv", HEADER)
    assert run(write_csv(redacted), "--redact", "--decisions", queue).exit_code == 0


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
    refused: Refused,
    write_csv: WriteCsv,
    records: list[Record],
    change: Mapping[int, str],
    said: str,
) -> None:
    row = decide(records[0] if change.get(0) == "t000" else records[1], "accept")
    row = [change.get(place, cell) for place, cell in enumerate(row)]
    queue = write_csv([decide(records[0], "accept"), row], "q.csv", HEADER)
    assert said in refused(write_csv(records), "--decisions", queue)


def test_a_queue_saved_by_a_spreadsheet_is_read(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    queue = tmp_path / "q.csv"
    lines = [";".join(cells) for cells in (HEADER, decide(records[0], "relabel", "refund"))]
    queue.write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    assert run(write_csv(records), "--decisions", queue).exit_code == 0
    assert placed(tmp_path / "out")["t000"][1] == "refund"


def test_a_file_that_is_no_queue_is_refused(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    path = write_csv(records)
    assert "no column 'message_sha256'" in refused(path, "--decisions", path)
