"""``clerk-trainer label`` killed by SIGKILL in the middle, again and again.

The server's own account of what it served, answered or not, stays within the budget, and every
message ends with one label or one question.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.simulated_teacher import ALL_FAULTS, SimulatedTeacher
from tests.unit.trainer.teacher.conftest import ROOT, MakeShop, Serve, Shop, read_rows
from trainer.teacher.prices import DOLLAR
from worker.contract.exchange import read_tasks

pytestmark = pytest.mark.slow

CONCURRENCY = 8


@contextmanager
def forking_trainer(log: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking_trainer"],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.stdin, process.stdout
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()


def note_end(told: IO[str], codes: list[int], ended: threading.Event) -> None:
    codes.append(int(told.readline()))
    ended.set()


def kill_and_resume(
    shop: Shop, teacher: SimulatedTeacher, out: Path, budget: str, kills: int
) -> tuple[int, list[int]]:
    """Kill the command ``kills`` times after a random number of requests, then let it end. Returns
    the last exit code, and how many requests were open at each kill."""
    draw = random.Random(7)
    command = shop.command(teacher, out, "--budget", budget, "--concurrency", CONCURRENCY)
    opened: list[int] = []
    codes: list[int] = []
    with forking_trainer(out.with_suffix(".log")) as (given, told):
        for left in reversed(range(kills + 1)):
            goal = teacher.served + draw.randint(3, 3 * CONCURRENCY)
            given.write(json.dumps(command) + "\n")
            given.flush()
            child = int(told.readline())
            ended = threading.Event()
            waiting = threading.Thread(target=note_end, args=(told, codes, ended))
            waiting.start()
            while left and teacher.served < goal and not ended.is_set():
                time.sleep(0.001)
            if left and not ended.is_set():
                opened.append(teacher.open)
                os.kill(child, signal.SIGKILL)
            waiting.join()
            code = codes.pop()
            # A spent budget ends the command by itself.
            assert code in ({-signal.SIGKILL, 3} if left else {0, 3}), code
    while teacher.open:
        time.sleep(0.01)
    return code, opened


def check_books(teacher: SimulatedTeacher, out: Path, budget: int, kills: int) -> None:
    """Hold the ledger against the server's account."""
    ledger = sqlite3.connect(out.with_suffix(".ledger"))
    lost, requests, known, bounds = ledger.execute(
        "SELECT count(*) FILTER (WHERE outcome IS NULL), count(*), sum(cost),"
        " sum(bound) FILTER (WHERE cost IS NULL) FROM request"
    ).fetchone()
    twice = ledger.execute(
        "SELECT count(*) FROM (SELECT 1 FROM request WHERE outcome IN ('label', 'none')"
        " GROUP BY question, vote HAVING count(*) > 1)"
    ).fetchone()
    ledger.close()
    assert teacher.billed <= budget
    assert teacher.billed <= known + bounds * 6  # the server charges up to six times a bound
    assert twice == (0,)
    # Only what was in flight is repeated, and a request that left is in the ledger.
    assert 0 < lost <= kills * CONCURRENCY
    assert teacher.served <= requests
    assert teacher.most_open <= CONCURRENCY


def check_labels(shop: Shop, out: Path) -> None:
    rows, tasks = read_rows(out), read_tasks(out.with_suffix(".tasks.jsonl"))
    ids = [row["id"] for row in rows]
    open_ = [task.message_id for task in tasks if task.purpose == "learn"]
    assert len(set(ids + open_)) == len(ids) + len(open_)
    assert set(ids + open_) == set(shop.truth)


def test_killed_three_times_it_keeps_the_budget_and_labels_each_message_once(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(70), tmp_path / "labelled.jsonl"
    teacher = serve(shop, faults=ALL_FAULTS, latency_s=0.02)
    code, opened = kill_and_resume(shop, teacher, out, "1.00", 3)
    assert code == 0
    assert max(opened) > 1
    check_books(teacher, out, DOLLAR, 3)
    check_labels(shop, out)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_twenty_times_it_labels_each_message_once(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    shop, out = make_shop(400), tmp_path / "labelled.jsonl"
    teacher = serve(shop, faults=ALL_FAULTS, latency_s=0.02, seed=1)
    code, opened = kill_and_resume(shop, teacher, out, "2.00", 20)
    assert code == 0
    assert sum(opened) > 20
    check_books(teacher, out, 2 * DOLLAR, 20)
    check_labels(shop, out)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_twenty_times_a_budget_that_does_not_suffice_is_not_exceeded(
    tmp_path: Path, make_shop: MakeShop, serve: Serve
) -> None:
    """The last run ends by itself, because the budget has no room."""
    shop, out = make_shop(400), tmp_path / "labelled.jsonl"
    teacher = serve(shop, faults=ALL_FAULTS, latency_s=0.02, seed=3)
    budget = DOLLAR * 9 // 100
    code, _ = kill_and_resume(shop, teacher, out, "0.09", 20)
    assert code == 3
    check_books(teacher, out, budget, 20)
    assert teacher.billed > budget // 4
    assert read_rows(out)
