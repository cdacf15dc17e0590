"""Comparing two adapters on a file, with fake engines, to screen, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import binomtest

from tests.support.toy_adapter import ENCODERS, decode, scores, small_manifest
from worker.contract import write_manifest
from worker.contract.errors import MessageRejected
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import SettingsError
from worker.offline.compare import (
    CompareResult,
    Labelled,
    Pair,
    compare,
    mcnemar,
    run_compare,
    show,
    to_json,
    write_csv,
)
from worker.offline.message_files import MessageFile, read_rows
from worker.serving import record_layout
from worker.settings import ModelSettings, RecordSettings, Settings

ROWS = [
    {"id": "1", "text": "my invoice", "label": "billing"},
    {"id": "2", "text": "my parcel", "label": "delivery"},
    {"id": "3", "text": "new parcel", "label": "delivery"},
    {"id": "4", "text": "new invoice", "label": "billing"},
    {"id": "5", "text": "hello", "label": "other"},
    {"id": "6", "text": "too hard", "label": "other"},
]
SECRET = "new parcel"


def opener(settings: Settings) -> OpenedEngine:
    """The adapter called new labels new messages as other; each adapter refuses one message."""
    assert settings.model.adapter is not None
    name = settings.model.adapter.name
    opened.append(name)

    def respond(prompt: Sequence[int]) -> Answer | Exception:
        text = decode([token for token in prompt if token >= 10])
        if "hard" in text:
            return MessageRejected("engine_rejected", "no")
        if name == "new" and "new" in text:
            return scores("other", p=0.7)
        if "invoice" in text:
            return scores("billing", p=0.95)
        return scores("delivery" if "parcel" in text else "other", p=0.4)

    manifest = replace(small_manifest(), name=name)
    engine = FakeEngine(respond, service_s=0.0005, concurrency=2)
    original = engine.close

    def close() -> None:
        opened.append(f"{name} closed")
        original()

    engine.close = close  # type: ignore[method-assign]
    return OpenedEngine(engine, manifest, ENCODERS, "merged")


opened: list[str] = []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    opened.clear()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, replace(small_manifest(), name=name))
    return Settings(
        model=ModelSettings(adapter=tmp_path / "old"), records=RecordSettings(text_fields=("text",))
    )


def messages(tmp_path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> MessageFile:
    file = tmp_path / "messages.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return MessageFile(str(file), label_field="label")


def compared(
    settings: Settings, tmp_path: Path, other: str = "new", rows: Any = ROWS, *, texts: bool = False
) -> CompareResult:
    names, file = ("current", str(tmp_path / other)), messages(tmp_path, rows)
    return run_compare(settings, names, file, limit=5000, texts=texts, opener=opener)


def screen(result: CompareResult) -> str:
    console = Console(file=io.StringIO(), width=80)
    show(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_both_label_every_message_one_engine_at_a_time(settings: Settings, tmp_path: Path) -> None:
    result = compared(settings, tmp_path)
    assert opened == ["old", "old closed", "new", "new closed"]
    assert (result.first.name, result.second.name) == ("old", "new")
    assert result.unlabelled == 1
    comparison = result.comparison
    assert (comparison.messages, comparison.agreed) == (5, 3)
    assert comparison.truth is not None
    assert (comparison.truth.first_only, comparison.truth.second_only) == (2, 0)
    assert set(comparison.moves) == {("billing", "other", 1), ("delivery", "other", 1)}
    # The toy adapter asks for review above an off-label mass of 0.5.
    assert comparison.first.review == pytest.approx(3 / 5)
    assert comparison.second.review == pytest.approx(2 / 5)


def test_a_true_label_counts_in_every_unicode_form(settings: Settings, tmp_path: Path) -> None:
    """A spreadsheet on a Mac writes accents as separate characters."""
    composed, apart = (unicodedata.normalize(form, "Réclamation") for form in ("NFC", "NFD"))
    (file := tmp_path / "mails.csv").write_text(f"text,label\nmy invoice,{apart}\n")
    line = json.dumps({"text": "my invoice", "label": apart}, ensure_ascii=False)
    (lines := tmp_path / "mails.jsonl").write_text(f"{line}\n")
    for path in (file, lines):
        source = MessageFile(str(path), label_field="label")
        [row] = read_rows(source, record_layout(settings.records))
        assert row.label == composed


def test_the_screen_fits_and_has_no_texts(settings: Settings, tmp_path: Path) -> None:
    printed = screen(compared(settings, tmp_path))
    assert max(map(len, printed.splitlines())) <= 80
    assert "60.0% have the same label from both; 2 do not" in printed
    assert "McNemar's exact p = 0.5" in printed
    assert SECRET not in printed
    lines = printed.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("message"))
    assert lines[at + 1].split() == ["4", "billing", "98%", "other", "97%"]
    assert lines[at + 2].split() == ["3", "delivery", "95%", "other", "97%"]


def test_no_text_runs_as_a_formula_in_a_spreadsheet(settings: Settings, tmp_path: Path) -> None:
    rows = [{"id": "=1", "text": "=HYPERLINK(1) new invoice", "label": "billing"}]
    result = compared(settings, tmp_path, rows=rows, texts=True)
    write_csv(tmp_path / "out.csv", result.pairs)
    text = (tmp_path / "out.csv").read_text(encoding="utf-8-sig")
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["id"], row["text"]) == ("'=1", "'=HYPERLINK(1) new invoice")


def test_texts_are_included_only_on_request(settings: Settings, tmp_path: Path) -> None:
    quiet = compared(settings, tmp_path)
    file = tmp_path / "out.csv"
    assert write_csv(file, quiet.pairs) == 2
    assert SECRET not in screen(quiet) + json.dumps(to_json(quiet)) + file.read_text()
    open_ = compared(settings, tmp_path, texts=True)
    write_csv(file, open_.pairs)
    for said in (screen(open_), json.dumps(to_json(open_)), file.read_text()):
        assert SECRET in said


def test_json_and_csv_hold_the_same_disagreements(settings: Settings, tmp_path: Path) -> None:
    result = compared(settings, tmp_path)
    found = json.loads(json.dumps(to_json(result)))
    assert found["schema"] == "comparison/1"
    assert found["adapters"]["second"]["digest"] == result.second.digest
    assert found["agreement"] == 0.6
    assert found["moves"][0].keys() == {"first", "second", "messages"}
    assert [row["id"] for row in found["disagreements"]] == ["4", "3"]
    file = tmp_path / "out.csv"
    write_csv(file, result.pairs)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["id"], row["first"], row["second"], row["truth"]) for row in rows] == [
        ("4", "billing", "other", "billing"),
        ("3", "delivery", "other", "delivery"),
    ]


def test_nothing_to_compare_is_an_error_before_or_after(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the same adapter"):
        compared(settings, tmp_path, "old")
    with pytest.raises(SettingsError, match="no message"):
        compared(settings, tmp_path, rows=[])
    assert opened == []
    with pytest.raises(SettingsError, match="none of the 1 messages"):
        compared(settings, tmp_path, rows=[ROWS[5]])


def pair(first: str, second: str, truth: str | None = None) -> Pair:
    return Pair("m", Labelled(first, 0.9, 0.1, True), Labelled(second, 0.5, None, False), truth)


def test_agreement_moves_and_means_are_counted() -> None:
    pairs = [*[pair("yes", "yes")] * 35, *[pair("yes", "no")] * 5, *[pair("no", "yes")] * 10]
    found = compare(pairs)
    assert (found.messages, found.agreed, found.agreement) == (50, 35, 0.7)
    assert found.moves == (("no", "yes", 10), ("yes", "no", 5))
    assert (found.first.confidence, found.second.confidence) == pytest.approx((0.9, 0.5))
    assert (found.first.review, found.second.review) == (1, 0)
    assert found.first.off_label_mass == pytest.approx(0.1)
    assert found.second.off_label_mass is None
    assert (found.truth, found.first.accuracy) == (None, None)


def test_true_labels_decide_which_adapter_is_correct() -> None:
    known = [
        *[pair("a", "a", "a")] * 4,
        *[pair("a", "b", "a")] * 3,
        *[pair("a", "b", "b")] * 9,
        *[pair("a", "b", "c")] * 2,
        *[pair("a", "b")] * 7,
    ]
    found = compare(known)
    assert found.truth is not None
    assert found.truth.messages == 18
    right = (found.truth.both, found.truth.first_only, found.truth.second_only)
    assert (*right, found.truth.neither) == (4, 3, 9, 2)
    assert found.truth.p_value == pytest.approx(binomtest(3, 12).pvalue)
    assert found.first.accuracy == pytest.approx(7 / 18)
    assert found.second.accuracy == pytest.approx(13 / 18)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (5, 5), (2, 11), (40, 80), (0, 2000)])
def test_mcnemar_is_the_exact_coin(a: int, b: int) -> None:
    exact = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(exact)
    assert mcnemar(b, a) == mcnemar(a, b)
