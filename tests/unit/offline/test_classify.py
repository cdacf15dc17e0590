"""Labelling without Kafka: order, formats and what cannot be read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event

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
from worker.contract.records import InputFormat, SupportMessage
from worker.core.labeller import Labeller
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected, SettingsError
from worker.offline import classify
from worker.offline.classify import (
    ClassifyRequest,
    MessageFile,
    Row,
    label_in_order,
    read_rows,
    run_classify,
)
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
    rows = [Row({}, SupportMessage(text, None)) for text in texts]
    (_, first), (_, second) = label_in_order(labeller, engine, rows, silence_s=5)
    engine.close()
    assert (first["stage"], first["earlier"], first["label"]) == ("small", [], "billing")
    assert not first["truncated"]
    assert (second["stage"], second["label"]) == ("large", "delivery")
    [thought] = second["earlier"]
    assert (thought["stage"], thought["label"]) == ("small", "billing")
    assert second["review"] == ["disagreement"]
    assert second["truncated"]


def test_results_come_in_the_order_of_the_input() -> None:
    rows = [Row({"n": n}, SupportMessage(f"message {n}", None)) for n in range(300)]
    rows[7] = Row({"n": 7}, MessageRejected("not_json", "no"))
    rows[9] = Row({"n": 9}, SupportMessage("\x00", None))
    engine = _engine()
    pairs = list(label_in_order(_labeller(), engine, rows, silence_s=5))
    engine.close()
    assert [row.fields["n"] for row, _ in pairs] == list(range(300))
    assert pairs[7][1] == {"label": None, "error": "not_json: no"}
    assert pairs[9][1]["error"].startswith("empty_message")
    assert {result["label"] for row, result in pairs if row.fields["n"] not in (7, 9)} == {
        "delivery"
    }


def test_an_answer_does_not_wait_for_the_next_row() -> None:
    """A user who types one message at a time sees each label at once."""
    answered = Event()

    def typing() -> Iterator[Row]:
        yield Row({"n": 1}, SupportMessage("where is it", None))
        assert answered.wait(timeout=10)
        yield Row({"n": 2}, SupportMessage("and now", None))

    engine = _engine()
    results = label_in_order(_labeller(), engine, typing(), silence_s=5)
    assert next(results)[0].fields == {"n": 1}
    answered.set()
    assert [row.fields["n"] for row, _ in results] == [2]
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
    rows = [Row({}, SupportMessage(text, None)) for text in texts]
    results = [result for _, result in label_in_order(_labeller(), engine, rows, silence_s=0.05)]
    engine.close()
    assert [result["label"] for result in results] == ["delivery", None, "delivery"]
    assert results[1]["error"].startswith("deadline_exceeded: no answer within 0.1 s")
    assert never[0].cancelled()


def test_an_engine_that_answers_nothing_ends_the_labelling() -> None:
    """It used to wait without end."""
    engine = FakeEngine(lambda _: scores("billing"))
    rows = [Row({}, SupportMessage("where is it", None))]
    with pytest.raises(EngineDied, match="answered nothing"):
        list(label_in_order(_labeller(), engine, rows, silence_s=0.05))


def test_a_source_that_fails_ends_the_labelling() -> None:

    def broken() -> Iterator[Row]:
        yield Row({"n": 1}, SupportMessage("where is it", None))
        raise SettingsError("line 2 is not readable")

    engine = _engine()
    results = label_in_order(_labeller(), engine, broken(), silence_s=5)
    assert next(results)[0].fields == {"n": 1}
    with pytest.raises(SettingsError, match="line 2"):
        next(results)
    engine.close()


@pytest.mark.usefixtures("opened")
def test_csv_in_gives_csv_out_with_the_columns_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.csv"
    file.write_text('id,body,label\n1,"where, is it?",old\n2,,old\n', encoding="utf-8")
    run_classify(Settings(), ClassifyRequest(None, str(file), None, "body"))
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["label"] for row in found] == ["old", "old"]
    assert [row["clerk_label"] for row in found] == ["delivery", ""]
    assert found[1]["clerk_error"].startswith("empty_message")


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
    run_classify(Settings(), ClassifyRequest(None, str(file), None, None))
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in found] == labels


def test_one_text_on_a_terminal_is_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("billing [urgent]", "sent back [/b]", "other")
    result = {
        "label": labels[0],
        "confidence": 0.6,
        "off_label_mass": 0.2,
        "review": ["low_confidence"],
        "scores": dict(zip(labels, (0.6, 0.3, 0.1), strict=True)),
    }
    monkeypatch.setenv("COLUMNS", "100")
    classify._print_result(result)
    assert capsys.readouterr().out.splitlines() == [
        "billing [urgent]  60.0%",
        "sent back [/b]  30.0%",
        "other  10.0%",
        "no label fits  20.0%",
        "for review: low_confidence",
    ]
    classify._print_result({"label": None, "error": "not_json: at [/x]"})
    assert capsys.readouterr().out == "no label  not_json: at [/x]\n"


def test_an_out_of_scope_score_is_shown_where_there_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = {
        "label": "billing",
        "confidence": 0.6,
        "off_label_mass": None,
        "out_of_scope": -1.25,
        "review": ["out_of_scope"],
        "scores": {"billing": 0.6, "other": 0.4},
    }
    classify._print_result(result)
    shown = capsys.readouterr().out
    assert "out of scope  -1.250" in shown
    assert "for review: out_of_scope" in shown


@pytest.mark.parametrize("line", ["[" * 100_000, '{"message":' * 100_000, "{", "9" * 5_000])
def test_a_line_that_is_no_json_is_one_message_that_is_rejected(line: str, tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_text(f'{line}\n{{"message": "hi"}}\n', encoding="utf-8")
    first, second = (row.message for row in read_rows(MessageFile(str(path)), InputFormat()))
    assert isinstance(first, MessageRejected)
    assert second == SupportMessage("hi", None)
