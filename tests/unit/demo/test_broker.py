"""Errors of the data folder's formatter, replaced by a shell script."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.demo import broker
from worker.demo.kafka_files import BrokerError


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("sleep 60", "was not formatted within 0.3 s.*less busy"),
        ("echo no room; exit 3", r"cannot be formatted \(exit code 3\)(.|\n)*no room"),
    ],
)
def test_a_folder_that_is_not_formatted_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, problem: str
) -> None:
    """A time-out is not reported as an exit code."""
    monkeypatch.setattr(broker, "_java", lambda *_: ["/bin/sh", "-c", does])
    monkeypatch.setattr(broker, "_FORMAT_TIMEOUT_S", 0.3 if "sleep" in does else 20.0)
    log = tmp_path / "broker.log"
    with pytest.raises(BrokerError, match=problem):
        broker.ensure_formatted(tmp_path, tmp_path, tmp_path / "settings", log)
