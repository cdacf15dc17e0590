"""``clerk-desk label`` as a process: served, killed, resumed, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.support.desk_browser import Browser, field
from tests.support.processes import PATIENCE_S, environment, wait_until
from worker.common.review_files import read_answers
from worker.contract.exchange import Purpose, Task, task_id, write_tasks
from worker.contract.text import message_sha256

ROOT = Path(__file__).parents[3]
TEXTS = tuple(f"{number}: where is my parcel?" for number in range(12))

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "m.jsonl").write_text(rows)
    for name, labels in (("t", ("refund", "delivery")), ("other", ("refund", "payment"))):
        listed = "".join(f'[[labels]]\nname = "{label}"\n' for label in labels)
        (tmp_path / f"{name}.toml").write_text(f'name = "shop"\nversion = "1"\n{listed}')
    return tmp_path


def command(
    folder: Path, *options: str, taxonomy: str = "t.toml", file: str = "m.jsonl"
) -> list[str]:
    given = (str(folder / file), "--taxonomy", str(folder / taxonomy), "--port", "0")
    return [sys.executable, "-m", "desk", "label", *given, *options]


def run(
    folder: Path, *options: str, taxonomy: str = "t.toml", file: str = "m.jsonl"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *options, taxonomy=taxonomy, file=file),
        capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=120, check=False,
    )  # fmt: skip


@contextmanager
def serving(
    folder: Path, file: str = "m.jsonl"
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The process, its address, and what it has said by then."""
    with subprocess.Popen(
        command(folder, file=file), stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line)
                if found := re.match(r"Label them at (http://127\.0\.0\.1:\d+)/review", line):
                    yield process, found[1], said
                    break
        finally:
            process.kill()


@contextmanager
def visit(address: str) -> Iterator[Browser]:
    with httpx2.Client(base_url=address, trust_env=False) as client:
        yield Browser(client, None)


def decide(address: str, label: str, count: int, pages: list[str] | None = None) -> list[str]:
    """Give messages a label in a browser without script; return their ids. ``pages`` gets what it
    saw."""
    decided = []
    with visit(address) as visitor:
        for _ in range(count):
            page = visitor.open("/review").text
            if pages is not None:
                pages.append(page)
            given = {name: field(page, name) for name in ("csrf", "batch", "item", "request")}
            done = visitor.client.post("/review", data={**given, "action": f"label:{label}"})
            assert done.status_code == 303
            decided.append(given["item"])
    return decided


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_killed_and_resumed_no_decision_is_lost_and_none_is_asked_again(folder: Path) -> None:
    decided: list[str] = []
    for number in range(3):
        with serving(folder) as (process, address, said):
            assert (f"{3 * number} are decided" in "".join(said)) == bool(number)
            decided += decide(address, "delivery", 3)
            process.send_signal(signal.SIGKILL if number < 2 else signal.SIGINT)
            rest = process.communicate(timeout=60)[0]
            assert process.returncode == (-9 if number < 2 else 0)
    assert len(set(decided)) == 9
    out = folder / "m.labelled.jsonl"
    assert f"{out}: 9 labelled messages, 9 of them drawn at random." in rest
    rows = rows_of(out)
    assert len({row["message"] for row in rows}) == len({row["id"] for row in rows}) == 9
    assert {row["message"] for row in rows} < set(TEXTS)


def test_killed_it_leaves_no_process_behind(folder: Path) -> None:
    """The process that suggests ends too, although no handler of the desk has run."""
    program = folder / "fake" / "trainer" / "__main__.py"
    program.parent.mkdir(parents=True)
    program.with_name("__init__.py").touch()
    program.write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('begun').write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    begun = folder / "begun"
    # The folder before the source tree, so that the process is this program.
    given = environment() | {"PYTHONPATH": f"{folder / 'fake'}:{ROOT}"}
    with subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, cwd=folder, env=given
    ) as process:
        try:
            wait_until(begun.exists, PATIENCE_S)
            wait_until(begun.read_text)
        finally:
            process.kill()
    # Its new parent may be one that never asks how it ended.
    number = int(begun.read_text())
    wait_until(
        lambda: not psutil.pid_exists(number) or psutil.Process(number).status() == "zombie", 30
    )


def test_after_a_kill_export_writes_the_file(folder: Path) -> None:
    done = run(folder, "--export")
    assert done.returncode == 2
    assert "has no labels yet: run the command without --export" in done.stderr
    with serving(folder) as (process, address, _):
        decide(address, "refund", 1)
        process.kill()
        process.wait()
    done = run(folder, "--export")
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in rows_of(folder / "m.labelled.jsonl")] == ["refund"]
    # Another taxonomy is another question.
    done = run(folder, "--export", taxonomy="other.toml")
    assert done.returncode == 2
    assert "is not the taxonomy that" in done.stderr
    assert "clerk-desk taxonomy -s project.taxonomy=" in done.stderr


def test_labels_whose_database_is_gone_are_not_overwritten(folder: Path) -> None:
    (folder / "m.labelled.jsonl").write_text("{}\n")
    done = run(folder)
    assert done.returncode == 2
    assert "does not come from" in done.stderr
    assert (folder / "m.labelled.jsonl").read_text() == "{}\n"
    # Nor is another file, once there is a database.
    (folder / "m.labelled.jsonl").unlink()
    with serving(folder):
        pass
    before = (folder / "m.jsonl").read_text()
    done = run(folder, "--export", "--out", str(folder / "m.jsonl"))
    assert done.returncode == 2
    assert "give another --out" in done.stderr
    assert (folder / "m.jsonl").read_text() == before


def write_questions(path: Path, *purposes: Purpose) -> None:
    """Tasks as clerk-trainer writes them: a blind sample, or messages that a teacher doubts."""
    texts = [(purpose, f"{purpose} {text}") for purpose in purposes for text in TEXTS]
    write_tasks(
        path,
        [
            Task(
                schema="tasks/1",
                id=task_id(None, purpose, message_sha256(text)),
                message_id=f"own-{number}",
                message_sha256=message_sha256(text),
                text=text,
                purpose=purpose,
                dataset=None,
                batch=path.stem,
                label="delivery" if purpose == "check" else None,
                suggested=None if purpose == "audit" else "refund",
                confidence=None if purpose == "audit" else 0.5,
            )
            for number, (purpose, text) in enumerate(texts)
        ],
    )


def test_a_blind_sample_for_a_teacher_is_decided_without_kafka(folder: Path) -> None:
    """Every message counts as drawn at random, none has a suggestion, and the decisions come out
    as ``label --decisions`` and ``prepare --decisions`` read them."""
    write_questions(folder / "sample.jsonl", "audit")
    out = folder / "sample.decisions.csv"
    for number in range(2):
        with serving(folder, "sample.jsonl") as (process, address, said):
            assert "sample.jsonl: 12 tasks (audit)" in "".join(said)
            assert ("; 3 are decided." in "".join(said)) == bool(number)
            pages: list[str] = []
            decide(address, "delivery", 3, pages)
            assert all("refund" in page and "The model is" not in page for page in pages)
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=60)[0]
            assert process.returncode == 0
    assert f"{out}: 6 of 12 tasks are decided." in rest
    assert f"Next: give {out} to clerk-trainer with --decisions" in rest
    found = read_answers(out)
    assert {(each.decision, each.new_label) for each in found} == {("relabel", "delivery")}
    assert {(each.purpose, each.role) for each in found} == {("audit", "outcome")}
    assert len({each.id for each in found}) == 6
    assert not (folder / "sample.labelled.jsonl").exists()
    out.unlink()
    assert run(folder, "--export", file="sample.jsonl").returncode == 0
    assert read_answers(out) == found
    # A file of somebody else is not overwritten.
    out.write_text("id,label\n")
    done = run(folder, "--export", file="sample.jsonl")
    assert done.returncode == 2
    assert "give another --out" in done.stderr


def test_messages_that_a_teacher_doubts_are_decided_with_its_suggestion(folder: Path) -> None:
    """Of both purposes, one after the other: no label, and one that not all votes gave."""
    write_questions(folder / "labelled.tasks.jsonl", "learn", "check")
    with serving(folder, "labelled.tasks.jsonl") as (process, address, said):
        assert "24 tasks (check, learn)" in "".join(said)
        pages: list[str] = []
        decide(address, "refund", len(TEXTS), pages)
        assert "Suggested" in pages[0]
        with visit(address) as visitor:
            assert "/review?batch=" in visitor.open("/").text
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert "12 of 24 tasks are decided" in rest
    found = read_answers(folder / "labelled.tasks.decisions.csv")
    assert {(each.purpose, each.new_label) for each in found} == {("learn", "refund")}
