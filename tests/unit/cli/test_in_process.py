"""Commands in this process: errors, exit codes, terminal output."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.logging_state import logging_restored
from tests.support.mock_kafka import MockKafka
from worker.cli.main import app, main
from worker.common.errors import EXIT_INTERRUPTED, EXIT_SETTINGS, EXIT_UNEXPECTED
from worker.common.logs import configure_logging
from worker.errors import EXIT_ADAPTER, EXIT_STREAM, SettingsError, StreamFailed


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours, 200 columns, no log yet; the hooks of ``main`` are removed afterwards."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name, value in {"NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make both outputs one terminal."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setattr(sys, "stderr", made)
    return made


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the program in this process; return what it exits with."""
    monkeypatch.setattr(sys, "argv", ["clerk-worker", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let any command end with this error."""

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["worker.cli.main"], "app", fail)


def test_an_error_that_nobody_expected_is_an_event_where_logs_are_events(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the traceback, without text that may quote a message."""
    with logging_restored():
        configure_logging("json")
        fails(monkeypatch, KeyError("a customer's words"))
        assert exit_code(monkeypatch, "run") == EXIT_UNEXPECTED
    (line,) = capsys.readouterr().err.splitlines()
    failure = json.loads(line)
    assert (failure["event"], failure["level"], failure["exit_code"]) == (
        "worker.failed",
        "error",
        1,
    )
    assert failure["error"].startswith("KeyError (text withheld")
    assert "Traceback (most recent call last)" in failure["exception"]
    assert "customer" not in line


def test_a_thread_that_fails_is_an_event_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log collector would split a traceback into twenty records."""
    for place, hook in ((threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(place, hook, getattr(place, hook))

    words = "a customer's words"

    def watch() -> None:
        raise LookupError(words)

    def run(**_: object) -> None:
        thread = threading.Thread(target=watch, name="watcher")
        thread.start()
        thread.join()

    monkeypatch.setattr(sys.modules["worker.cli.main"], "app", run)
    with logging_restored():
        configure_logging("json")
        assert exit_code(monkeypatch, "run") == 0
    (line,) = capsys.readouterr().err.splitlines()
    failure = json.loads(line)
    assert (failure["event"], failure["level"]) == ("worker.unhandled", "error")
    assert failure["error"].startswith("thread watcher failed: LookupError (text withheld")
    assert "in watch" in failure["exception"]
    assert "customer" not in line


def test_expected_errors_are_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, code, said in (
        (("check-config", "-s", "kafka.grop_id=x"), EXIT_SETTINGS, "did you mean 'kafka.group_id'"),
        (("adapters",), EXIT_SETTINGS, "give --store DIR, --worker URL or both"),
        (("classify",), EXIT_SETTINGS, "give either TEXT or --input FILE"),
        (("adapters", "--store", str(tmp_path / "x")), EXIT_ADAPTER, "there is no such store"),
    ):
        assert exit_code(monkeypatch, *arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert said in line


def test_ctrl_c_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(monkeypatch, KeyboardInterrupt())
    assert exit_code(monkeypatch, "run") == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize(
    "words",
    [
        "in the checkout, pip install -e '.[gpu]'",
        "set it in [kafka.client]",
        "no such folder: /x[/y]/z",
    ],
)
def test_brackets_in_an_error_are_shown(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    fails(monkeypatch, SettingsError(words))
    terminal = on_terminal(monkeypatch)
    assert exit_code(monkeypatch, "run") == EXIT_SETTINGS
    assert terminal.getvalue() == f"error {words}\n"


def test_topics_that_are_there_are_named(broker: MockKafka) -> None:
    names = ("in", "out", "review", "dead", "shadow")
    for name in names:
        broker.create_topic(name)
    flags = [
        f"kafka.bootstrap_servers={broker.servers}",
        "kafka.input_topics=in",
        "kafka.output_topic=out",
        "kafka.review_topic=review",
        "kafka.dead_letter_topic=dead",
        "kafka.start_timeout_s=2",
    ]
    given = [part for flag in flags for part in ("-s", flag)]
    done = CliRunner().invoke(app, ["topics", *given])
    assert done.exit_code == 0, done.exception
    assert done.stdout.splitlines()[-1] == f"{broker.servers} has in, out, review, dead"
    shadow = ["-s", "adapters.shadow=/adapters/next", "-s", "adapters.shadow_topic=shadow"]
    done = CliRunner().invoke(app, ["topics", *given, *shadow])
    assert done.stdout.splitlines()[-1].endswith("dead, shadow")
    done = CliRunner().invoke(app, ["topics", *given, "-s", "kafka.output_topic=missing"])
    assert isinstance(done.exception, StreamFailed)
    assert done.exception.exit_code == EXIT_STREAM
    assert str(done.exception).startswith("cannot create the topic missing: ")
