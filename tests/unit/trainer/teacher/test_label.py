"""``clerk-trainer label`` against an endpoint that errs, limits, breaks, and keeps accounts."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.known_messages import decide, read_known
from tests.support.simulated_teacher import ALL_FAULTS, Faults, SimulatedTeacher
from tests.support.trainer_world import call, run_cli
from tests.unit.trainer.teacher.conftest import TAXONOMY, MakeShop, Serve, read_rows
from trainer.dataset.folder import open_dataset
from trainer.dataset.people import read_taught
from trainer.evaluation.evaluate import describe_dataset
from trainer.teacher.prices import DOLLAR
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer, read_tasks
from worker.contract.text import message_sha256

pytestmark = pytest.mark.slow


def spent(text: str) -> int:
    """Picodollars of an amount as the command writes it."""
    return round(float(text.removeprefix("$").replace(",", "")) * DOLLAR)


def test_messages_get_labels_doubts_become_tasks_and_prepare_takes_the_file(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(220), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    votes = ("--votes", 3)
    code, result, error = call(*shop.command(teacher, out, "--budget", "5.00", *votes, "--json"))
    assert code == 0, error
    rows, tasks = read_rows(out), read_tasks(tmp_path / "labelled.tasks.jsonl")
    assert {row["label_source"] for row in rows} == {"teacher"}
    assert len({row["id"] for row in rows}) == len(rows)
    # A message has a label, or a question to a person, or both if a vote differed.
    asked = {task.message_id for task in tasks if task.purpose == "learn"}
    assert asked.isdisjoint(row["id"] for row in rows)
    assert asked | {row["id"] for row in rows} == set(shop.truth)
    by_id = {row["id"]: row for row in rows}
    for task in tasks:
        if task.purpose == "check":
            assert (task.label_source, task.label) == ("teacher", by_id[task.message_id]["label"])
            assert by_id[task.message_id]["votes"] < by_id[task.message_id]["asked"]
    unanimous = [row for row in rows if row["votes"] == row["asked"]]
    assert len(unanimous) + len(tasks) == len(shop.truth)
    right = sum(shop.truth[row["id"]] == row["label"] for row in unanimous) / len(unanimous)
    assert right > 0.9  # one vote is right in nine of ten
    assert spent(result["spent"]) >= teacher.billed
    assert spent(result["spent"]) - teacher.billed < DOLLAR // 10**4
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert teacher.most_open <= 8

    # Nothing could say how good a model of these labels is.
    prepare = ("prepare", "--input", out, "--taxonomy", TAXONOMY, "--minimum-per-label", 3)
    code, _, error = call(*prepare, "--out", tmp_path / "data")
    assert code == 2
    assert "tasks MESSAGES --for audit" in error


def test_a_random_sample_by_people_judges_what_the_teacher_labelled(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(220), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    assert call(*shop.command(teacher, out, "--budget", "5.00"))[0] == 0
    sample = tmp_path / "sample.jsonl"
    code, drawn, error = call(
        *("tasks", shop.messages, "--for", "audit", "--size", 40, "--out", sample, "--json")
    )
    assert code == 0, error
    assert drawn["count"] == 40
    asked = [*read_tasks(sample), *read_tasks(tmp_path / "labelled.tasks.jsonl")]
    save_answers(tmp_path / "decisions.csv", [decide(each, shop.truth) for each in asked])
    more = ("--budget", "5.00", "--decisions", tmp_path / "decisions.csv")
    done = run_cli(*shop.command(teacher, out, *more))
    assert done.exit_code == 0, done.stderr
    assert f"first/taxonomy.toml && clerk-trainer start {out} --out first" in done.stdout
    rows = {row["id"]: row for row in read_rows(out)}
    blind = [rows[each.message_id] for each in read_tasks(sample)]
    assert {(row["label_source"], row["drawn"]) for row in blind} == {("person", "random")}
    # The sample has messages that the teacher gave no label.
    assert "" in {row["teacher_label"] for row in blind}
    chosen = [row for row in rows.values() if row.get("drawn") == "chosen"]
    assert len(chosen) == sum(row["label_source"] == "person" for row in rows.values()) - 40

    code, prepared, error = call(
        *("prepare", "--input", out, "--taxonomy", TAXONOMY, "--minimum-per-label", 3, "--json"),
        *("--out", tmp_path / "data"),
    )
    assert code == 0, error
    dataset = open_dataset(tmp_path / "data")
    held = sum(prepared["splits"]["holdout"].values())
    assert held + len(dataset.validation) == 40
    assert describe_dataset(dataset).holdout_sources == {"person": held}
    found = read_taught(dataset)
    assert found is not None
    assert len(found.labels) == held
    assert 15 <= len(found.pool) <= 45


def test_people_replace_the_teachers_labels(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """The same command with --decisions costs nothing and rewrites the file."""
    shop, out = make_shop(60), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    assert call(*shop.command(teacher, out, "--budget", "5"))[0] == 0
    tasks = read_tasks(tmp_path / "labelled.tasks.jsonl")
    assert len(tasks) >= 3
    answers = [decide(each, shop.truth) for each in tasks[1:]]
    answers.append(Answer(tasks[0].message_id, tasks[0].message_sha256, "drop"))
    save_answers(tmp_path / "decisions.csv", answers)
    served = teacher.served
    more = ("--budget", "5", "--decisions", tmp_path / "decisions.csv", "--json")
    code, result, error = call(*shop.command(teacher, out, *more))
    assert code == 0, error
    assert teacher.served == served
    assert "Nothing leaves: all are decided." in error
    rows = {row["id"]: row for row in read_rows(out)}
    assert result["rows_by_people"] == len(tasks) - 1
    assert tasks[0].message_id not in rows
    for each in tasks[1:]:
        row = rows[each.message_id]
        assert (row["label"], row["label_source"]) == (shop.truth[each.message_id], "person")
    assert read_tasks(tmp_path / "labelled.tasks.jsonl") == ()
    other = Answer("m0", message_sha256("another message"), "accept")
    save_answers(tmp_path / "decisions.csv", [other])
    code, _, error = call(*shop.command(teacher, out, *more))
    assert code == 2
    assert "decisions about another file" in error


def test_every_fault_at_once_costs_no_label_and_no_budget(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(80), tmp_path / "labelled.jsonl"
    teacher = serve(shop, faults=ALL_FAULTS, latency_s=0.01)
    code, result, error = call(*shop.command(teacher, out, "--budget", "1.00", "--json"))
    assert code == 0, error
    assert {"limited", "broken", "malformed", "duplicate", "larger"} <= set(teacher.outcomes)
    assert result["not_asked"] == 0
    assert result["overruns"] >= 1
    assert teacher.billed <= spent(result["spent"]) <= DOLLAR
    ids = {row["id"] for row in read_rows(out)}
    ids |= {task.message_id for task in read_tasks(tmp_path / "labelled.tasks.jsonl")}
    assert ids == set(shop.truth)


def test_the_budget_ends_the_run_and_a_larger_one_goes_on(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """What is labelled by then is written; nothing is asked twice."""
    shop, out = make_shop(60), tmp_path / "labelled.jsonl"
    teacher = serve(shop, latency_s=0.005)
    code, result, error = call(*shop.command(teacher, out, "--budget", "0.004", "--json"))
    assert code == 3
    assert "larger --budget" in error
    assert 0 < teacher.billed <= 4 * DOLLAR // 1000
    assert 0 < len(read_rows(out)) < 60
    assert result["not_asked"] > 0
    first = [json.dumps(body["messages"]) for body in teacher.bodies]
    code, result, error = call(*shop.command(teacher, out, "--budget", "1", "--json"))
    assert code == 0, error
    every = [json.dumps(body["messages"]) for body in teacher.bodies]
    assert len(set(every)) == len(every) > len(first)
    assert result["not_asked"] == 0


def test_an_invented_answer_is_asked_once_more_then_a_person_decides(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(4), tmp_path / "labelled.jsonl"
    teacher = serve(shop, answer=lambda _text, _order: "fantasy")
    code, result, _ = call(*shop.command(teacher, out, "--budget", "1", "--json"))
    assert code == 0
    assert read_rows(out) == []
    assert result["invented"] == teacher.served == 8
    tasks = read_tasks(tmp_path / "labelled.tasks.jsonl")
    assert [task.reasons for task in tasks] == [("teacher_invented",)] * 4


def test_a_model_that_never_names_a_label_is_given_up_early(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """A reasoning model whose answers are cut would spend the budget on nothing."""
    shop, out = make_shop(60), tmp_path / "labelled.jsonl"
    teacher = serve(shop, answer=lambda _text, _order: "Let me think", finish="length")
    code, _, error = call(*shop.command(teacher, out, "--budget", "1", "--concurrency", 4))
    assert code == 3
    # Those that are already asked for are waited for.
    assert re.search(r"the first 2\d answers are not labels", error), error
    assert "give --answer-tokens 2000" in error
    assert teacher.served < 30


@pytest.mark.parametrize("header", ["retry-after-ms", "retry-after"])
def test_everybody_waits_as_long_as_the_server_asks(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, header: str
) -> None:
    shop, out = make_shop(12), tmp_path / "labelled.jsonl"
    value = {"retry-after-ms": "900", "retry-after": "1"}[header]
    faults = Faults(first=["none"] * 4 + ["limited"])
    teacher = serve(shop, faults=faults, retry_after=(header, value), latency_s=0.01)
    assert call(*shop.command(teacher, out, "--budget", "1", "--concurrency", 2))[0] == 0
    (limited,) = teacher.limited_at
    early = [at for at in teacher.arrived_at if limited < at < limited + 0.85]
    assert len(early) <= 1, "only the other request, which may have left before the answer came"
    assert max(teacher.arrived_at) > limited + 0.85


def test_a_wait_of_hours_ends_the_run(tmp_path: Path, make_shop: MakeShop, serve: Serve) -> None:
    shop, out = make_shop(4), tmp_path / "labelled.jsonl"
    faults = Faults(first=["none"] * 3 + ["limited"])
    teacher = serve(shop, faults=faults, retry_after=("retry-after", "7200"))
    code, _, error = call(*shop.command(teacher, out, "--budget", "1", "--concurrency", 1))
    assert code == 3
    assert "asks to wait for 120 minutes" in error


def refuse_schema(body: dict[str, Any]) -> tuple[int, str] | None:
    return (400, "response_format is not supported") if "response_format" in body else None


def refuse_all_but_text(body: dict[str, Any]) -> tuple[int, str] | None:
    if "structured_outputs" in body:
        return 422, "extra inputs are not permitted"
    return refuse_schema(body)


def refuse_old_limit(body: dict[str, Any]) -> tuple[int, str] | None:
    if "max_tokens" in body:
        return 400, "Unsupported parameter: max_tokens. Use max_completion_tokens instead."
    if "temperature" in body:
        return 400, "Unsupported value: temperature does not support 0"
    return None


@pytest.mark.parametrize(
    ("accepts", "words", "refused"),
    [
        (lambda _: None, "JSON schema", 0),
        (refuse_schema, "vLLM's choice", 1),
        (refuse_all_but_text, "checked here", 2),
        (refuse_old_limit, "JSON schema", 2),
    ],
)
def test_requests_are_written_as_the_endpoint_takes_them(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, accepts: Any, words: str, refused: int
) -> None:
    """A refused form costs nothing and is not tried again."""
    shop, out = make_shop(6), tmp_path / "labelled.jsonl"
    teacher = serve(shop, accepts=accepts)
    code, result, error = call(*shop.command(teacher, out, "--budget", "1", "--json"))
    assert code == 0, error
    assert words in result["constrained"]
    assert sum(accepts(body) is not None for body in teacher.bodies) == refused
    limits = [body.get("max_tokens", body.get("max_completion_tokens")) for body in teacher.bodies]
    assert all(isinstance(limit, int) and limit < 100 for limit in limits)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, "check the key"),
        (404, "check the address and --model"),
        (402, "no credit"),
        (307, "final"),
    ],
)
def test_a_refusal_ends_the_run_with_its_remedy_and_quotes_nothing(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, status: int, problem: str
) -> None:
    shop, out = make_shop(5), tmp_path / "labelled.jsonl"
    teacher = serve(shop, accepts=lambda body: (status, str(body["messages"])))
    code, _, error = call(*shop.command(teacher, out, "--budget", "1"))
    assert code == 3
    assert problem in error
    assert f"status {status}" in error
    assert teacher.served == 1
    assert not any(text[:20] in error for text in shop.sent)


def test_an_endpoint_that_is_down_is_given_up_and_costs_nothing(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.teacher.run._LONGEST_BACKOFF_S", 0.001)
    shop, out = make_shop(5), tmp_path / "labelled.jsonl"
    nobody = SimulatedTeacher(lambda: "", 1, 1, url="http://127.0.0.1:9/v1")
    serve(shop)
    code, result, error = call(*shop.command(nobody, out, "--budget", "1", "--json"))
    assert code == 3
    assert "5 messages got no answer" in error
    assert result["spent"] == "$0.0000"


def test_no_text_and_no_key_is_shown_or_kept(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Not in the output, a log, an error, or the ledger, whatever the client's log level."""
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level("DEBUG")
    shop, out = make_shop(30), tmp_path / "labelled.jsonl"
    teacher = serve(shop, faults=ALL_FAULTS)
    done = run_cli(*shop.command(teacher, out, "--budget", "1"))
    assert done.exit_code == 0, done.stderr
    assert teacher.keys == {"Bearer sk-secret-of-a-test"}
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("labelled.ledger*"))
    shown = (done.stdout + done.stderr + caplog.text).encode()
    assert b"sk-secret" not in shown + kept
    for text in shop.sent:
        assert text[:25].encode() not in shown + kept


def test_what_leaves_is_masked_and_said_first(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(3), tmp_path / "labelled.jsonl"
    with shop.messages.open("a") as file:
        file.write(json.dumps({"id": "p", "message": "write to ann@example.com please"}) + "\n")
    seen: list[str] = []

    def answer(text: str, _order: object) -> str:
        seen.append(text)
        return "refund"

    teacher = serve(shop, answer=answer)
    done = run_cli(*shop.command(teacher, out, "--budget", "0.50"))
    assert done.exit_code == 0, done.stderr
    assert "write to [mail] please" in seen
    assert not any("ann@" in text for text in seen)
    host = re.sub("https?://|/v1", "", teacher.url)
    before = done.stdout.split("labelled rows")[0]
    for words in (
        "4 messages",
        "are masked",
        host,
        "at most $0.5000",
        "Time: about",
        "without enc",
    ):
        assert words in before, before
    # The row is the customer's text: prepare has its own --redact.
    assert "ann@example.com" in out.read_text()
    seen.clear()
    other = tmp_path / "whole.jsonl"
    done = run_cli(*shop.command(teacher, other, "--budget", "0.50", "--no-redact"))
    assert "NOTHING IS MASKED" in done.stdout
    assert "write to ann@example.com please" in seen


def test_nothing_is_sent_without_a_yes_or_for_an_estimate(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(5), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    command = shop.command(teacher, out, "--budget", "1")
    code, result, error = call(*command, "--estimate", "--json")
    assert code == 0, error
    assert (result["open"], result["budget"]) == (5, "$1.0000")
    command.remove("--yes")
    code, _, error = call(*command)
    assert (code, "add --yes" in error) == (2, True)
    assert teacher.served == 0
    assert {path.name for path in tmp_path.iterdir()} == {"messages.jsonl"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("--model", "other"), "another model"),
        (("--votes", "1"), "another prompt, votes"),
        (("--no-redact",), "another redaction"),
        (("--answer-tokens", "999"), "another answer-tokens"),
    ],
)
def test_a_changed_question_is_refused_on_resume(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, change: tuple[str, ...], problem: str
) -> None:
    shop, out = make_shop(2), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    assert call(*shop.command(teacher, out, "--budget", "1"))[0] == 0
    served = teacher.served
    code, _, error = call(*shop.command(teacher, out, "--budget", "1"), *change)
    assert code == 2
    assert problem in error
    assert teacher.served == served


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--out", "x.csv"], "JSON Lines"),
        (["--teacher", "ftp://h/v1"], "expected an address"),
        (["--teacher", "http://user:word@h/v1"], "leave the login out"),
        (["--key-env", "NO_SUCH_KEY", "--teacher", "http://host.invalid/v1"], "NO_SUCH_KEY is not"),
        (["--price-input", "free"], "--price-input free"),
        (["--message-column", "body"], "no column 'body'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, make_shop: MakeShop, serve: Serve, words: list[str], problem: str
) -> None:
    shop = make_shop(2)
    teacher = serve(shop)
    code, _, error = call(*shop.command(teacher, tmp_path / "o.jsonl", "--budget", "1"), *words)
    assert code == 2
    assert problem in error
    assert error.count("\n") == 1
    assert "user:word" not in error
    assert teacher.served == 0


def test_a_budget_is_needed_unless_the_prices_are_zero(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(2), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    code, _, error = call(*shop.command(teacher, out))
    assert code == 2
    assert "--budget is needed" in error
    free = ("--price-input", "0", "--price-output", "0", "--json")
    code, result, error = call(*shop.command(teacher, out), *free)
    assert code == 0, error
    assert (result["spent"], result["budget"]) == ("$0.0000", None)


def test_a_file_of_somebody_elses_is_not_overwritten(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(2), tmp_path / "labelled.jsonl"
    out.write_text("mine\n")
    teacher = serve(shop)
    code, _, error = call(*shop.command(teacher, out, "--budget", "1"))
    assert code == 2
    assert "give another --out" in error
    assert out.read_text() == "mine\n"
    assert teacher.served == 0


def test_an_interruption_ends_after_the_requests_in_flight(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """What they cost is known, so nothing is counted at its bound."""
    shop, out = make_shop(60), tmp_path / "labelled.jsonl"
    teacher = serve(shop, latency_s=0.05)

    def interrupt() -> None:
        until = time.monotonic() + 20
        while teacher.served < 10 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, result, _ = call(*shop.command(teacher, out, "--budget", "1", "--json"))
    thread.join()
    assert code == 130
    assert result["without_answer"] == 0
    assert spent(result["spent"]) - teacher.billed < DOLLAR // 10**4
    assert teacher.served < 40


def test_the_ledger_keeps_every_answer_with_what_it_cost(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(3), tmp_path / "labelled.jsonl"
    teacher = serve(shop)
    assert call(*shop.command(teacher, out, "--budget", "1"))[0] == 0
    ledger = sqlite3.connect(tmp_path / "labelled.ledger")
    rows = ledger.execute(
        "SELECT model, answered_by, length(prompt_sha256), answer, prompt_tokens, answer_tokens,"
        " cost, input_price, output_price FROM request"
    ).fetchall()
    ledger.close()
    assert len(rows) == teacher.served
    for model, by, digest, answer, tokens_in, tokens_out, cost, price_in, price_out in rows:
        assert (model, by, digest) == ("simulated", "simulated-1", 64)
        assert json.loads(answer).keys() == {"label"}
        assert cost == tokens_in * price_in + tokens_out * price_out


def test_copies_of_a_text_are_asked_about_once(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """And all get the label. Labels in the file are ignored."""
    shop, out = make_shop(1), tmp_path / "labelled.jsonl"
    message, _ = read_known()[0]
    rows = [{"id": each, "message": message, "label": "wrong"} for each in "abc"]
    shop.messages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = serve(shop, answer=lambda _text, _order: "refund")
    assert call(*shop.command(teacher, out, "--budget", "1"))[0] == 0
    assert teacher.served == 2
    assert [(each["id"], each["label"]) for each in read_rows(out)] == [
        (each, "refund") for each in "abc"
    ]


def test_a_listed_price_is_found_by_the_host_and_an_unknown_one_is_an_error(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """A model on this machine with a hosted one's name is not that one."""
    shop, out = make_shop(2), tmp_path / "labelled.jsonl"
    serve(shop)
    given = ["label", shop.messages, "--taxonomy", TAXONOMY, "--out", out, "--estimate"]
    given += ["--budget", "1", "--json", "--model", "gpt-4o-mini", "--teacher"]
    code, result, error = call(*given, "https://api.openai.com/v1")
    assert code == 0, error
    assert re.match(
        r"\$0\.15 per million tokens in, \$0\.6 out \(genai-prices [\d.]+, price of gpt-4o-mini on "
        r"\d{4}-\d\d-\d\d\)",
        result["price"],
    )
    for url, model in (
        ("http://127.0.0.1:8000/v1", "gpt-4o-mini"),
        ("https://api.openai.com/v1", "x"),
    ):
        code, _, error = call(*given, url, "--model", model)
        assert code == 2
        assert "no price is known" in error
        assert "--price-input" in error


def test_any_table_is_read_and_ids_that_occur_twice_are_numbered(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """A spreadsheet's export, with the columns that are there."""
    shop, out = make_shop(1), tmp_path / "labelled.jsonl"
    teacher = serve(shop, answer=lambda _text, _order: "refund")
    path = tmp_path / "tickets.csv"
    shop_of = replace(shop, messages=path)
    text = 'Ticket;Text;Tag\nT-1;wo ist denn nur mein Geld für die größere Lampe;x\nT-2;"; gut";y\n'
    path.write_bytes(text.encode("cp1252"))
    assert call(*shop_of.command(teacher, out, "--budget", "1", "--id-column", "Ticket"))[0] == 0
    assert [(row["id"], row["message"]) for row in read_rows(out)] == [
        ("T-1", "wo ist denn nur mein Geld für die größere Lampe"),
        ("T-2", "; gut"),
    ]
    path.write_text("id,message\na,one\na,two\nb,three\nb,four\n")
    other = tmp_path / "other.jsonl"
    assert call(*shop_of.command(teacher, other, "--budget", "1"))[0] == 0
    assert {row["id"] for row in read_rows(other)} == {"a", "a-2", "b", "b-2"}
