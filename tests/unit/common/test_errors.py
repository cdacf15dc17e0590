"""Tracebacks show where something failed, and no values."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from pydantic import BaseModel

from worker.common.errors import WITHHELD, describe_private, format_private, show_private
from worker.contract.errors import AdapterRefused

SECRET = "my card is 4111 and my name is Zoë"


class _Model(BaseModel):
    number: int


def _chained() -> None:
    try:
        dict[str, int]()[SECRET]
    except KeyError as error:
        raise RuntimeError("CUDA out of memory") from error


def _grouped() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET), OSError(28, "No space left on device")])


def _noted() -> None:
    error = RuntimeError("CUDA out of memory")
    error.add_note(SECRET)
    raise error


FAILURES: list[Callable[[], object]] = [
    lambda: dict[str, int]()[SECRET],
    lambda: int(SECRET),
    lambda: _Model.model_validate({"number": SECRET}),
    lambda: SECRET.encode("ascii"),
    lambda: json.loads(SECRET),
    lambda: sys.exit(SECRET),
    _chained,
    _grouped,
    _noted,
]


@pytest.mark.parametrize("fail", FAILURES)
def test_no_word_of_a_value_is_shown(fail: Callable[[], object]) -> None:
    """Whichever library's exception quotes it, anywhere in the chain."""
    text = SECRET
    try:
        fail()
    except BaseException as error:  # noqa: BLE001 - any is to be shown
        shown = format_private(error)
    assert "4111" not in shown
    assert "Zo" not in shown
    assert text not in shown
    assert Path(__file__).name in shown


def test_files_functions_and_types_are_still_shown() -> None:
    with pytest.raises(RuntimeError) as caught:
        _chained()
    shown = format_private(caught.value)
    assert "in _chained" in shown
    assert f"KeyError {WITHHELD}" in shown
    assert shown.endswith("RuntimeError: CUDA out of memory")


def test_the_projects_own_errors_show_their_text() -> None:
    shown = describe_private(AdapterRefused("x/manifest.json", "is altered"))
    assert shown == "worker.contract.errors.AdapterRefused: x/manifest.json: is altered"


def test_a_circular_chain_of_errors_ends() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert format_private(first).count("RuntimeError: first") == 1


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show as the programs do, and as before afterwards."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    show_private()


@pytest.mark.usefixtures("hooks")
def test_a_thread_s_error_is_shown_without_values(capsys: pytest.CaptureFixture[str]) -> None:
    thread = threading.Thread(target=lambda: int(SECRET), name="adapters")
    thread.start()
    thread.join()
    _, err = capsys.readouterr()
    assert err.startswith("thread adapters failed\nTraceback")
    assert f"ValueError {WITHHELD}" in err
    assert "4111" not in err


def test_a_future_s_callback_is_logged_without_values(caplog: pytest.LogCaptureFixture) -> None:
    future: Future[int] = Future()
    future.add_done_callback(lambda _: int(SECRET) and None)
    future.set_result(1)
    (record,) = caplog.records
    assert "4111" not in record.getMessage()
    assert record.exc_info is not None
    assert "4111" not in format_private(record.exc_info[1] or Exception())
