"""Logging: JSON lines for machines, a console for people, all of it on standard error."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from tests.support.logging_state import logging_restored
from worker.common.logs import configure_logging


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Leave the process as it was found."""
    with logging_restored():
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_events_are_json_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    structlog.get_logger("worker.test").info("transaction.committed", records=512, topic="ü\n")
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "transaction.committed",
        "level": "info",
        "records": 512,
        "topic": "ü\n",
    }


def test_the_console_has_no_colour_codes_in_files(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    structlog.get_logger("worker.test").info("x.y", records=3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "x.y" in err
    assert "records=3" in err
    assert "\x1b" not in err
    assert not err.startswith("{")


def test_the_level_holds_for_the_worker_and_others_only_warn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json", "info")
    log = structlog.get_logger("worker.test")
    log.debug("too.quiet")
    log.info("heard")
    logging.getLogger("somebody.else").info("too quiet")
    logging.getLogger("somebody.else").warning("heard %s", "too")
    assert [(line["event"], line["level"]) for line in lines(capsys)] == [
        ("heard", "info"),
        ("heard too", "warning"),
    ]


@pytest.mark.parametrize("foreign", [False, True])
def test_a_traceback_stays_within_its_line(
    capsys: pytest.CaptureFixture[str], foreign: bool
) -> None:
    """One event is one line."""
    configure_logging("json")
    log: Any = logging.getLogger("other") if foreign else structlog.get_logger("worker.test")
    try:
        dict[str, str]()["boom"]
    except KeyError:
        log.exception("it.failed")
    (line,) = lines(capsys)
    assert line["event"] == "it.failed"
    assert "KeyError (text withheld" in line["exception"]


SECRET = "Zanzibar-4111"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_traceback_holds_no_message_text(
    capsys: pytest.CaptureFixture[str], form: Literal["json", "console"], foreign: bool
) -> None:
    configure_logging(form)
    log: Any = logging.getLogger("other") if foreign else structlog.get_logger("worker.test")
    message = f"where is my order? {SECRET}"
    try:
        int(message)
    except ValueError:
        log.exception("it.failed")
    _, err = capsys.readouterr()
    assert "it.failed" in err
    assert "test_a_traceback_holds_no_message_text" in err
    assert SECRET not in err


STALLED = """
import os, sys, time
from worker.common import logs
logs.LINES, logs.FLUSH_S = 100, 0.5
logs.configure_logging("json")
import structlog
for number in range(20_000):
    structlog.get_logger("worker.test").info("line", number=number)
print(logs.dropped_lines(), flush=True)
"""


def test_a_reader_that_stalls_does_not_stop_the_program() -> None:
    """Lines are dropped and counted, and the program ends in time."""
    with subprocess.Popen(
        [sys.executable, "-c", STALLED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert int(program.stdout.read()) > 10_000
        assert program.wait(30) == 0
        read = [json.loads(line)["number"] for line in program.stderr.readlines()[:-1]]
    assert read == sorted(read)
    assert len(read) < 10_000


def test_all_lines_are_written_before_the_program_ends() -> None:
    program = STALLED.replace("20_000", "90").replace("0.5", "20")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert len(done.stderr.splitlines()) == 90
    assert done.stdout == "0\n"


def test_a_fork_logs_its_own_lines_only() -> None:
    program = (
        STALLED.replace("20_000", "50").replace("0.5", "20")
        + """
if not os.fork():
    structlog.get_logger("worker.test").info("child")
    sys.exit()
os.wait()
"""
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert (events.count("line"), events.count("child")) == (50, 1)
