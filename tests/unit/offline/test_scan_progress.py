"""The bar while topics are read: on a terminal alone, and true at the end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import cast

import pytest

from worker.offline.scan_progress import ScanProgress
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_scan import TopicScanner

SOURCE, EMPTY = TopicPartition("support.messages", 0), TopicPartition("support.messages", 1)


class Scanner:
    """Stands in for a cluster whose topic has a record at every second offset."""

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Record]:
        for source, (start, stop) in ranges.items():
            for offset in range(start, stop, 2):
                yield Record(source, offset, None, b"planted text")


def read(capsys: pytest.CaptureFixture[str]) -> str:
    """Read 4000 offsets; return what is shown meanwhile, without colours."""
    ranges = {SOURCE: (1000, 5000), EMPTY: (7, 3)}
    with ScanProgress() as progress:
        scanner = cast("TopicScanner", Scanner())
        assert sum(1 for _ in progress.read(scanner, "support.messages", ranges)) == 2000
    shown = capsys.readouterr()
    assert shown.out == "", "standard output is for the result"
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.err)


def test_a_terminal_shows_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By topic, in records; where not every offset is a record it ends at 100 % all the same."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    last = read(capsys).splitlines()[-1]
    assert last.startswith("support.messages ")
    assert "100%" in last
    assert "2,000 records" in last


def test_elsewhere_nothing_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a job's errors is for errors."""
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert read(capsys).strip() == ""
