"""The review queue can be opened and edited safely, and is never lost."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.check.run import COLUMNS, write_queue
from trainer.check.suspects import Suspect
from trainer.dataset.folder import Example
from trainer.dataset.labels import read_decisions

ODD = 'Zwei\nZeilen, "Anführung"; ein Komma, 日本語 🙏'


def suspect(number: int, message: str = ODD, label: str = "refund") -> Suspect:
    example = Example(f"m{number}", message, label)
    similar = tuple(Example(f"s{at}", f"=like {at}", "payment") for at in range(3))
    return Suspect(example, "payment", 0.98765, "because", similar)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def decide(path: Path, **cells: str) -> None:
    """Edit the first row as a spreadsheet would."""
    rows = read(path)
    rows[0] |= cells
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def test_prepare_reads_what_check_writes(tmp_path: Path) -> None:
    path = tmp_path / "queue.csv"
    assert write_queue(path, [suspect(1), suspect(2)], update=False) == 0
    row, second = read(path)
    assert (row["rank"], second["rank"]) == ("1", "2")
    assert (row["message"], row["label"], row["suggested_label"]) == (ODD, "refund", "payment")
    assert row["decision"] == row["new_label"] == row["note"] == row["decided_by"] == ""
    decide(path, decision="relabel", new_label="payment", decided_by="Ann")
    [(answer, _)], undecided = read_decisions(path, ("payment", "refund"))
    assert (answer.id, answer.decision, answer.new_label, answer.decided_by, undecided) == (
        "m1", "relabel", "payment", "Ann", 1,
    )  # fmt: skip
    assert answer.message_sha256 == hashlib.sha256(ODD.encode()).hexdigest()


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_cell_is_run_as_a_formula(tmp_path: Path, start: str) -> None:
    """A customer's text must not run in a reviewer's spreadsheet."""
    path = tmp_path / "queue.csv"
    odd = suspect(1, f"{start} hello", f"{start}label")
    odd = replace(odd, example=replace(odd.example, id=f"{start}1"), suggested=f"{start}b")
    write_queue(path, [odd], update=False)
    row = read(path)[0]
    assert (row["id"], row["label"]) == (f"'{start}1", f"'{start}label")
    assert row["message"] == f"'{start} hello"
    assert row["similar_1"] == "s0 [payment] =like 0"
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


def test_an_update_keeps_what_people_wrote(tmp_path: Path) -> None:
    path = tmp_path / "queue.csv"
    write_queue(path, [suspect(1), suspect(2)], update=False)
    decide(path, decision="accept", note="seen", decided_by="Ann")
    assert write_queue(path, [suspect(3), suspect(1)], update=True) == 1
    assert [(row["id"], row["decision"], row["note"]) for row in read(path)] == [
        ("m3", "", ""),
        ("m1", "accept", "seen"),
    ]
    assert write_queue(path, [suspect(3), suspect(1, "another text")], update=True) == 1
    rows = read(path)
    assert [(row["rank"], row["id"], row["decision"]) for row in rows] == [
        ("1", "m3", ""),
        ("2", "m1", ""),
        ("3", "m1", "accept"),
    ]
    assert rows[2]["message"] == ODD
    assert rows[2]["reason"] == "decided earlier; no longer suspected"
