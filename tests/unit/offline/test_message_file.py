"""Messages in a file: a line that cannot be read is one message that cannot be, not the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.contract.records import InputFormat, SupportMessage
from worker.errors import MessageRejected
from worker.offline.message_file import MessageFile, read_rows


@pytest.mark.parametrize("line", ["[" * 100_000, '{"message":' * 100_000, "{", "9" * 5_000])
def test_a_line_that_is_no_json_is_one_message_that_is_rejected(line: str, tmp_path: Path) -> None:
    """However deep it is: what comes after it is read."""
    path = tmp_path / "messages.jsonl"
    path.write_text(f'{line}\n{{"message": "hi"}}\n', encoding="utf-8")
    first, second = (row.message for row in read_rows(MessageFile(str(path)), InputFormat()))
    assert isinstance(first, MessageRejected)
    assert second == SupportMessage("hi", None)
