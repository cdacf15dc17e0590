"""Ranges of records, as options give them."""

from __future__ import annotations

from typing import Any

import pytest

from worker.cli.options import input_range
from worker.errors import SettingsError
from worker.stream.topics import RecordRange


def test_options_for_a_range_exclude_each_other() -> None:

    def source(**given: Any) -> RecordRange | None:
        every: dict[str, Any] = {"last": None, "since": None, "until": None, "offsets": []}
        return input_range(**{**every, **given})

    assert source() is None
    assert source(last=10) == RecordRange(last=10)
    day = 1_772_431_200_000
    assert source(since="2026-03-02T06:00") == RecordRange(since_ms=day)
    found = source(since="2026-03-02T07:00+01:00", until="2026-03-02T06:00:01Z")
    assert found == RecordRange(since_ms=day, until_ms=day + 1000)
    assert source(offsets=["0:5-9", "3:7-"]) == RecordRange(offsets={0: (5, 9), 3: (7, None)})
    for wrong, said in (
        ({"last": 1, "since": "2026-03-02"}, "--last and --since exclude each other"),
        ({"until": "2026-03-02", "last": 1}, "--until needs --since"),
        ({"since": "yesterday"}, "not a time"),
        ({"offsets": ["5-9"]}, "PARTITION:FIRST-LAST"),
        ({"offsets": ["0:1-2", "0:3-4"]}, "twice"),
    ):
        with pytest.raises(SettingsError, match=said):
            source(**wrong)
