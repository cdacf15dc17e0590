"""``duel --contender`` and ``--questions``: an endpoint that errs, breaks, and keeps accounts."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.known_messages import as_sent
from tests.support.simulated_teacher import (
    ALL_FAULTS,
    Faults,
    SimulatedTeacher,
    answer_like_a_model,
)
from tests.support.trainer_world import World, call, run_cli
from trainer.artifacts.duel import DUEL
from trainer.dataset.folder import count_openings, list_openings
from trainer.teacher.prices import DOLLAR

pytestmark = pytest.mark.slow

Serve = Callable[..., SimulatedTeacher]


@pytest.fixture
def serve(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A function that starts a teacher who knows the hold-out; keywords are its fields."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-a-test")
    held = map(json.loads, world.lines("holdout.jsonl"))
    known = as_sent((row["instruction"], row["response"]) for row in held)
    truth = {text: label for text, (_, label) in known.items()}
    with ExitStack() as stack:

        def start(**fields: Any) -> SimulatedTeacher:
            fields.setdefault("answer", answer_like_a_model(truth, world.dataset.taxonomy.names))
            teacher = SimulatedTeacher(input_price=150_000, output_price=600_000, **fields)
            return stack.enter_context(teacher.running())

        yield start


def words(world: World, out: Path, url: str, *more: object) -> list[object]:
    return [
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", out, "--embeddings", "none", "--no-base-prompted"),
        *("--contender", url, "--model", "simulated", "--price-input", "0.15"),
        *("--price-output", "0.60", "--yes", *more),
    ]


def named(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in record["candidates"] if each["name"] == name)


def test_a_prompted_model_is_measured_on_the_same_messages(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    """Accuracy, seconds, tokens, and money agree with the endpoint's own account."""
    teacher, out = serve(latency_s=0.02), tmp_path / "duel"
    code, record, error = call(*words(world, out, teacher.url, "--budget", "1.00", "--json"))
    assert code == 0, error
    assert "36 held-out messages, each asked about once." in error
    assert "the SEALED HOLD-OUT: the text of 36 messages" in error
    assert "in all, of which $0.0000 are spent" in error
    assert "sk-secret" not in error
    assert "are masked first" in error
    sent = [json.loads(body["messages"][1]["content"]) for body in teacher.bodies]
    assert {tuple(each) for each in sent} == {("message",)}, "no label leaves"
    found = named(record, "simulated")
    with (out / "duel_predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["simulated"] == row["label"] for row in rows]
    assert found["accuracy"] == pytest.approx(sum(right) / 36)
    assert 0.7 < found["accuracy"] <= 1
    assert found["cost_per_message"] == pytest.approx(teacher.billed / DOLLAR / 36)
    took = found["elsewhere"]
    assert 0.02 <= took["seconds_p50"] <= took["seconds_p99"] < 5
    assert took["prompt_tokens"] > 100
    assert took["answer_tokens"] == 9
    assert "JSON schema" in took["constrained"]
    assert (found["outside_labels"], took["no_label"]) == (0, 0)
    (verdict,) = record["replacements"]
    assert verdict["candidate"] == "simulated"
    # The adapter has random weights.
    assert (verdict["conclusion"], found["served_as"]) == ("worse", None)
    assert teacher.served == 36


def test_what_was_answered_is_read_back_as_recorded_answers(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    """With the same figures, and without asking again."""
    teacher = serve()
    code, first, error = call(
        *words(world, tmp_path / "first", teacher.url, "--budget", "1", "--json")
    )
    assert code == 0, error
    code, second, error = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", tmp_path / "second", "--embeddings", "none", "--no-base-prompted", "--json"),
        *("--candidate", f"simulated={tmp_path / 'first' / 'contender.csv'}"),
    )
    assert code == 0, error
    assert teacher.served == 36
    one, other = named(first, "simulated"), named(second, "simulated")
    one["elsewhere"]["constrained"] = None  # the file does not say it
    assert json.dumps(one) == json.dumps(other)
    assert first["replacements"] == second["replacements"]


def test_faults_cost_no_answer_and_invented_labels_are_counted(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    """The first answer counts: an invented label is not asked for again."""
    faults = Faults(
        limited=0.1, broken=0.05, dropped_before=0.05, dropped_after=0.05, malformed=0.05,
        invented=0.15, slow=0.1,
    )  # fmt: skip
    teacher, out = serve(faults=faults, seed=4), tmp_path / "duel"
    code, record, error = call(*words(world, out, teacher.url, "--budget", "1.00", "--json"))
    assert code == 0, error
    assert {"limited", "broken", "malformed", "invented"} <= set(teacher.outcomes)
    found = named(record, "simulated")
    assert found["outside_labels"] == teacher.outcomes["invented"] >= 3
    assert "_and_more" not in (out / "duel_predictions.csv").read_text()


def test_without_a_yes_nothing_is_sent_and_the_holdout_stays_sealed(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    teacher = serve()
    before = count_openings(world.dataset)
    given = words(world, tmp_path / "duel", teacher.url, "--budget", "1.00")
    given.remove("--yes")
    code, _, error = call(*given)
    assert code == 2
    assert "nothing was sent: there is no terminal to ask at: add --yes" in error
    code, facts, error = call(*given, "--estimate", "--json")
    assert code == 0
    assert facts["open"] == facts["messages"] > 0
    assert teacher.served == 0
    assert count_openings(world.dataset) == before
    assert list(tmp_path.iterdir()) == []


def test_a_remote_host_is_named_before_and_in_the_openings(
    world: World, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a later reader knows who may have learnt from this hold-out."""
    given = words(world, tmp_path / "duel", "https://models.example.org/v1", "--budget", "1")
    done = run_cli(*given, "--estimate")
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    assert "models.example.org then has these messages" in text
    assert "with the key in OPENAI_API_KEY" in text
    monkeypatch.delenv("OPENAI_API_KEY")
    code, _, error = call(*given, "--estimate")
    assert code == 2
    assert "OPENAI_API_KEY is not set" in error
    teacher = serve()
    code, _, error = call(*words(world, tmp_path / "duel", teacher.url, "--budget", "1", "--json"))
    assert code == 0, error
    host = teacher.url.removeprefix("http://").removesuffix("/v1")
    assert list_openings(world.dataset)[-1]["purpose"] == f"duel, sent to simulated at {host}"


def test_a_budget_that_ends_too_early_judges_nothing_and_a_larger_one_goes_on(
    world: World, serve: Serve, tmp_path: Path
) -> None:
    """Nothing is asked twice."""
    teacher, out = serve(), tmp_path / "duel"
    code, record, error = call(*words(world, out, teacher.url, "--budget", "0.001", "--json"))
    assert (code, record) == (3, {})
    assert "nothing was judged" in error
    assert not out.exists()
    assert 0 < teacher.served < 36
    assert teacher.billed <= DOLLAR // 1000
    code, record, error = call(*words(world, out, teacher.url, "--budget", "1", "--json"))
    assert code == 0, error
    assert "were before)" in error
    asked = [body["messages"][1]["content"] for body in teacher.bodies]
    assert len(asked) == len(set(asked)) == 36
    assert stat.S_IMODE((tmp_path / "duel.ledger").stat().st_mode) == 0o640
    assert DUEL.read(out).to_json() == record


@pytest.mark.long  # the ledger's other kills are in teacher/test_label_killed.py
def test_the_budget_holds_through_kills(world: World, serve: Serve, tmp_path: Path) -> None:
    """Each time in the middle, with requests in flight; the server's account stays within it."""
    teacher = serve(faults=ALL_FAULTS, latency_s=0.15, seed=2)
    out, budget = tmp_path / "duel", "0.02"
    line = [str(word) for word in words(world, out, teacher.url, "--budget", budget, "--json")]
    kills = 0
    for _ in range(2):
        served = teacher.served
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *line],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while process.poll() is None and teacher.served < served + 9:
                time.sleep(0.02)  # pytest's own limit ends a test that hangs
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
    assert kills
    code, record, error = call(*line)
    assert code == 0, error
    assert teacher.billed <= 2 * DOLLAR // 100
    assert named(record, "simulated")["accuracy"] > 0.6


def test_questions_are_written_to_be_answered_elsewhere_and_read_back(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    before = count_openings(world.dataset)
    start = ("duel", world.adapter, "--dataset", world.dataset.directory)
    code, result, error = call(*start, "--questions", path, "--json")
    assert code == 0, error
    assert (result["messages"], result["holdout_openings"]) == (36, before + 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    held = [json.loads(line) for line in world.lines("holdout.jsonl")]
    assert [row["id"] for row in rows] == [row["id"] for row in held]
    assert {row["label"] for row in rows} == {""}
    for row, one in zip(rows, held, strict=True):
        row["label"] = one["response"]
        row["seconds"], row["cost"] = 0.25, 0.0001
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, record, error = call(
        *(*start, "--base", world.base, "--out", tmp_path / "duel", "--embeddings", "none"),
        *("--no-base-prompted", "--candidate", f"ours={path}", "--json"),
    )
    assert code == 0, error
    found = named(record, "ours")
    assert found["accuracy"] == 1
    assert found["elsewhere"]["seconds_p99"] == 0.25
    assert found["cost_per_message"] == pytest.approx(0.0001)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--contender", "http://127.0.0.1:1/v1"], "--contender needs --model"),
        (["--estimate"], "--estimate belongs to --contender"),
        (["--contender", "http://127.0.0.1:1/v1", "--model", "x"], "no price is known for 'x'"),
        (
            ["--contender", "http://127.0.0.1:1/v1", "--model", "tfidf", "--price-input", "0",
             "--price-output", "0", "--yes"],
            "the name is taken",
        ),
        (["--questions", "q.csv"], "give a name that ends with .jsonl"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_line_and_opens_nothing(
    world: World, tmp_path: Path, given: list[str], problem: str
) -> None:
    before = count_openings(world.dataset)
    code, _, error = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", tmp_path / "duel", *given, "--json"),
    )
    assert code == 2
    assert problem in error
    assert count_openings(world.dataset) == before
