"""Labelling without Kafka: order, formats and what cannot be read."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count, islice
from pathlib import Path
from threading import Event, Timer

import openpyxl
import pytest

from tests.support.toy_adapter import (
    ENCODERS,
    cascade_of,
    decode,
    scores,
    small_manifest,
    toy_manifest,
    toy_spec,
)
from worker.contract.errors import AdapterRefused, MessageRejected
from worker.contract.records import InputFormat, SupportMessage, read_output
from worker.contract.records.identity import to_json
from worker.contract.scoring import Decision
from worker.core.labeller import Labeller
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import EngineDied, SettingsError
from worker.library import NoLabel, open_clerk
from worker.offline import classify
from worker.offline.classify import label_in_order, run_classify
from worker.offline.message_files import MessageFile, Row, file_row, read_rows
from worker.records.encode import OutputEncoder
from worker.records.types import Classified, Rejected, Timing
from worker.settings import Settings


def _labeller() -> Labeller:
    manifest = small_manifest()
    return Labeller(manifest, ENCODERS.plain, manifest.thresholds, InputFormat())


def _engine() -> FakeEngine:
    return FakeEngine(lambda _: scores("delivery"), service_s=0.0, concurrency=4)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine that is opened is a fake one."""
    monkeypatch.setattr(
        classify,
        "open_model",
        lambda _: OpenedEngine(_engine(), small_manifest(), ENCODERS, "merged"),
    )


def test_a_cascades_result_has_the_stage_and_the_earlier_answer() -> None:
    small = toy_manifest(name="small")
    large = toy_manifest(name="large", prompt=toy_spec(max_message_tokens=8))
    cascade = cascade_of(small, large, sure_from=0.8)
    engines = (
        FakeEngine(lambda ids: scores("billing", 0.9 if len(ids) < 20 else 0.02), service_s=0.0),
        FakeEngine(lambda _: scores("delivery"), service_s=0.0),
    )
    stages = zip(cascade.stages, (small, large), engines, strict=True)
    engine = CascadeEngine(
        [OpenStage(rule, own, ENCODERS.plain, each) for rule, own, each in stages]
    )
    labeller = Labeller(
        cascade,
        ENCODERS.plain,
        cascade.thresholds,
        InputFormat(),
        stages=tuple(stage.thresholds for stage in cascade.stages),
    )
    texts = ("brief", "a message that is longer")
    rows = [file_row("t", n, SupportMessage(text, None)) for n, text in enumerate(texts)]
    outputs = OutputEncoder(cascade, "9.9", ("int8", "bf16"))
    records = [
        classify.as_record(row, result, outputs)
        for row, result in label_in_order(labeller, engine, rows, silence_s=5)
    ]
    engine.close()
    first, second = (read_output(to_json(each)) for each in records)
    assert first.cascade is not None
    assert second.cascade is not None
    assert (first.cascade.answered.name, first.cascade.earlier) == ("small", ())
    assert first.label == "billing"
    assert not first.truncated
    assert (second.cascade.answered.name, second.label) == ("large", "delivery")
    [thought] = second.cascade.earlier
    assert (thought.adapter.name, thought.label) == ("small", "billing")
    assert second.review.reasons == ("disagreement",)
    assert second.truncated


def test_results_come_in_the_order_of_the_input() -> None:
    rows = [file_row("t", n, SupportMessage(f"message {n}", None)) for n in range(300)]
    rows[7] = file_row("t", 7, MessageRejected("not_json", "no"))
    rows[9] = file_row("t", 9, SupportMessage("\x00", None))
    engine = _engine()
    pairs = list(label_in_order(_labeller(), engine, rows, silence_s=5))
    engine.close()
    assert [row.record.offset for row, _ in pairs] == list(range(300))
    assert pairs[7][1] == Rejected("not_json", "decode", "no")
    assert isinstance(pairs[9][1], Rejected)
    assert pairs[9][1].reason == "empty_message"
    labelled = [result for _, result in pairs if isinstance(result, Classified)]
    assert [result.decision.label for result in labelled] == ["delivery"] * 298


def test_an_answer_does_not_wait_for_the_next_row() -> None:
    """A user who types one message at a time sees each label at once."""
    answered = Event()

    def typing() -> Iterator[Row]:
        yield file_row("t", 1, SupportMessage("where is it", None))
        assert answered.wait(timeout=10)
        yield file_row("t", 2, SupportMessage("and now", None))

    engine = _engine()
    results = label_in_order(_labeller(), engine, typing(), silence_s=5)
    assert next(results)[0].name == "line 1"
    answered.set()
    assert [row.name for row, _ in results] == ["line 2"]
    engine.close()


def test_a_message_that_is_never_answered_gets_no_label_and_the_rest_goes_on() -> None:
    """One stuck message must not block a file of thousands."""
    engine = _engine()
    answering = engine.submit
    never: list[Future[Answer]] = []

    def submit(prompt_ids: Sequence[int]) -> Future[Answer]:
        if "never" not in decode([token for token in prompt_ids if token >= 10]):
            return answering(prompt_ids)
        never.append(Future())
        return never[-1]

    engine.submit = submit  # type: ignore[method-assign]
    texts = ("where is it", "never", "and now")
    rows = [file_row("t", n, SupportMessage(text, None)) for n, text in enumerate(texts)]
    results = [result for _, result in label_in_order(_labeller(), engine, rows, silence_s=0.05)]
    engine.close()
    first, stuck, last = results
    assert isinstance(first, Classified)
    assert isinstance(stuck, Rejected)
    assert isinstance(last, Classified)
    assert stuck.reason == "deadline_exceeded"
    assert stuck.detail.startswith("no answer within 0.1 s")
    assert never[0].cancelled()


def test_an_engine_that_answers_nothing_ends_the_labelling() -> None:
    """It used to wait without end."""
    engine = FakeEngine(lambda _: scores("billing"))
    rows = [file_row("t", 1, SupportMessage("where is it", None))]
    with pytest.raises(EngineDied, match="answered nothing"):
        list(label_in_order(_labeller(), engine, rows, silence_s=0.05))


def test_an_engine_that_dies_meanwhile_rejects_nothing() -> None:
    """Like a cascade whose second stage hangs, which its first stage does not show."""

    class Dying(FakeEngine):
        def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
            if self.first:
                self.first = False
                return Future()
            Timer(0.02, self.die).start()
            return super().submit(prompt_ids)

        first = True

    rows = [file_row("t", 1, SupportMessage("never", None))]
    engine = Dying(lambda _: scores("billing"), service_s=0.0)
    with pytest.raises(EngineDied, match="the fake engine died"):
        list(label_in_order(_labeller(), engine, rows, silence_s=0.1))


EXPORT = [("id", "body", "label"), ("T-1", "=where, is it?", "old"), ("T-2", "", "old")]


def as_csv(path: Path) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows(EXPORT)
    path.write_bytes(("sep=;\r\n" + text.getvalue()).encode("cp1252"))


def as_workbook(path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in EXPORT:
        book.active.append(row)
    book.active["B2"].data_type = "s"
    book.save(path)


def as_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, *rows = EXPORT
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    pq.write_table(pa.table(columns), path)


def run_on(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    field: str | None = None,
    as_json: bool = False,
) -> str:
    run_classify(Settings(), MessageFile(str(path), field=field), as_json=as_json)
    return capsys.readouterr().out


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("name", "write"), [("in.csv", as_csv), ("in.xlsx", as_workbook), ("in.parquet", as_parquet)]
)
def test_a_table_gives_csv_with_its_columns_and_the_records_fields(
    name: str,
    write: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / name)
    out = run_on(tmp_path / name, capsys, field="Body").removeprefix("\ufeff")
    first, second = csv.DictReader(io.StringIO(out))
    assert (first["input.label"], first["label"], first["message_id"]) == ("old", "delivery", "T-1")
    assert first["input.body"] == "'=where, is it?"
    assert (first["source.topic"], first["source.partition"]) == (name, "0")
    assert (second["label"], second["reason"], second["message_id"]) == ("", "empty_message", "T-2")
    assert float(first["confidence"]) == float(first["scores.delivery"])


@pytest.mark.usefixtures("opened")
def test_the_columns_of_csv_are_the_fields_of_json_and_json_is_the_output_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_csv(tmp_path / "in.csv")
    lines = run_on(tmp_path / "in.csv", capsys, field="body", as_json=True).splitlines()
    record = read_output(lines[0])
    assert (record.label, record.message_id, record.source.topic) == ("delivery", "T-1", "in.csv")
    assert record.id == f"in.csv-0-{record.source.offset}"
    assert json.loads(lines[1])["reason"] == "empty_message"
    out = run_on(tmp_path / "in.csv", capsys, field="body").removeprefix("\ufeff")
    [row, _] = csv.DictReader(io.StringIO(out))
    fields = classify._cells(json.loads(lines[0]))
    assert set(fields) <= set(row)
    same = set(fields) - {"labelled_at", "latency.engine_s"}
    assert {name: row[name] for name in same} == {name: fields[name] for name in same}


@pytest.mark.usefixtures("opened")
def test_a_table_without_the_column_or_with_broken_rows_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,body\n1,a\n2,b,c\n3,d,e\n4,f\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"no column 'message', only id, body: .* --field"):
        run_classify(Settings(), MessageFile(str(path)))
    with pytest.raises(SettingsError, match=r"in.csv: 2 rows with another number of cells.* 3, 4"):
        run_classify(Settings(), MessageFile(str(path), field="body"))


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("in.jsonl", '{"id": 5, "message": "a"}\n\nnope\n{"x": 1}\n', ["delivery", None, None]),
        ("in.txt", "one\ntwo\n", ["delivery", "delivery"]),
    ],
)
def test_lines_in_give_json_lines_out(
    name: str,
    content: str,
    labels: Sequence[str | None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    found = [json.loads(line) for line in run_on(file, capsys).splitlines()]
    assert [row["label"] for row in found] == labels


def test_one_text_on_a_terminal_is_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("billing [urgent]", "sent back [/b]", "other")
    scored = dict(zip(labels, (0.6, 0.3, 0.1), strict=True))
    monkeypatch.setenv("COLUMNS", "100")
    classify._print_result(
        Classified(
            Decision(labels[0], 0.6, scored, 0.2), None, False, ("low_confidence",), Timing(0, 0)
        )
    )
    assert capsys.readouterr().out.splitlines() == [
        "billing [urgent]  60.0%",
        "sent back [/b]  30.0%",
        "other  10.0%",
        "no label fits  20.0%",
        "for review: low_confidence",
    ]
    classify._print_result(Rejected("not_json", "decode", "at [/x]"))
    assert capsys.readouterr().out == "no label  not_json: at [/x]\n"


@pytest.mark.parametrize("line", ["[" * 100_000, '{"message":' * 100_000, "{", "9" * 5_000])
def test_a_line_that_is_no_json_is_one_message_that_is_rejected(line: str, tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_text(f'{line}\n{{"message": "hi"}}\n', encoding="utf-8")
    first, second = (row.message for row in read_rows(MessageFile(str(path)), InputFormat()))
    assert isinstance(first, MessageRejected)
    assert second == SupportMessage("hi", None)


def test_a_table_with_several_fields_gives_the_text_that_is_served(tmp_path: Path) -> None:
    """A body that is HTML is found behind a subject too, as in a record."""
    cells = {"subject": "Order 7", "body": "<html><body><p>Where is<br>it?</p></body></html>"}
    layout = InputFormat("json", ("subject", "body"))
    table, lines = tmp_path / "m.csv", tmp_path / "m.jsonl"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, cells)
        writer.writeheader()
        writer.writerow(cells)
    lines.write_text(json.dumps(cells) + "\n", encoding="utf-8")
    ((from_table,), (from_line,)) = (
        [row.message for row in read_rows(MessageFile(str(path)), layout)]
        for path in (table, lines)
    )
    assert isinstance(from_table, SupportMessage)
    assert isinstance(from_line, SupportMessage)
    assert from_table.text == from_line.text == "Order 7\nWhere is\nit?"


def test_the_library_labels_any_iterable_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is still read: of an endless one the first records come too. What ``classify``
    prints is the same."""
    asked: list[Settings] = []

    def opened(settings: Settings) -> OpenedEngine:
        asked.append(settings)
        return OpenedEngine(_engine(), small_manifest(), ENCODERS, "merged")

    monkeypatch.setattr(classify, "open_model", opened)
    with open_clerk("runs/v1/adapter", base="base", settings=["loop.deadline_s=7"]) as clerk:
        assert clerk.labels == small_manifest().taxonomy.names
        first, empty, third = clerk.label([SupportMessage("where?", "T-1"), "", "my money?"])
        endless = clerk.label(f"message {n}" for n in count())
        assert {record.label for record in islice(endless, 300)} == {"delivery"}
        del endless
        for thread in threading.enumerate():
            if thread.name == "rows":
                thread.join(10)
                assert not thread.is_alive(), "it would read for ever"
    assert (first.label, first.message_id, first.source.offset) == ("delivery", "T-1", 1)
    assert isinstance(empty, NoLabel)
    assert (empty.label, empty.reason, empty.source.offset) == (None, "empty_message", 2)
    assert third.label == "delivery"
    (settings,) = asked
    assert settings.model.adapter == Path("runs/v1/adapter")
    assert settings.model.base == Path("base")
    assert settings.loop.deadline_s == 7


def test_an_adapter_that_is_not_there_is_refused() -> None:
    refused = pytest.raises(AdapterRefused, match=r"nowhere: there is no such adapter")
    with refused, open_clerk("nowhere"):
        pass
