"""Options that several commands share, and the parsing of record ranges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from worker.errors import SettingsError
from worker.stream.topics import RecordRange

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file with settings (see config/worker.toml); default: $CLERK_CONFIG.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override one setting, by its path: kafka.group_id=clerks, model.adapter=/adapters, "
        "kafka.consumer.fetch.min.bytes=1. Repeatable.",
    ),
]
InputFormat = Annotated[
    Literal["csv", "tsv", "xlsx", "parquet", "jsonl", "text"] | None,
    typer.Option("--format", "-f", help="Format of the input; default: by the file name's ending."),
]
MessageField = Annotated[
    str | None,
    typer.Option("--field", help="Column or JSON path of the message text.", show_default=False),
]
UseDemo = Annotated[
    bool, typer.Option("--demo", help="Use the demo's small base model and its adapter.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_DIGITS = re.compile(r"[0-9a-f]{4,64}")


InputTopic = Annotated[
    str | None, typer.Option("--topic", help="Topic to read; default: the input topic.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Records since this time: 2026-03-02T06:00 (UTC)."),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Records before this time; needs --since.")
]
Offsets = Annotated[
    list[str] | None,
    typer.Option(metavar="P:FIRST-LAST", help="Records of a partition by offset. Repeatable."),
]
_OFFSETS = re.compile(r"(\d+):(\d+)-(\d*)")


def check_digest(option: str, digits: str) -> None:
    """Raise SettingsError unless ``digits`` can be the first digits of an adapter's digest."""
    if not _DIGITS.fullmatch(digits):
        raise SettingsError(f"{option} {digits}: give at least 4 hexadecimal digits")


def input_range(
    since: str | None, until: str | None, offsets: Sequence[str] | None, last: int | None = None
) -> RecordRange | None:
    """Return the range in these options; None if none is given. Raises SettingsError."""
    if until is not None and since is None:
        raise SettingsError("--until needs --since")
    options = {"--last": last, "--since": since, "--offsets": offsets}
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} exclude each other: choose one")
    if not given:
        return None
    return RecordRange(
        last=last,
        since_ms=parse_time("--since", since),
        until_ms=parse_time("--until", until),
        offsets=parse_offsets(offsets) if offsets else None,
    )


def parse_time(option: str, text: str | None) -> int | None:
    """Convert a time to Unix milliseconds; without a zone it is UTC. Raises SettingsError."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text}: not a time; write 2026-03-02T06:00 (UTC) or 2026-03-02T06:00+01:00"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def parse_offsets(given: Sequence[str]) -> dict[int, tuple[int, int | None]]:
    """Return the first and the last offset (None: to the end) by partition. Raises
    SettingsError."""
    found: dict[int, tuple[int, int | None]] = {}
    for text in given:
        match = _OFFSETS.fullmatch(text)
        if match is None:
            raise SettingsError(
                f"--offsets {text}: write PARTITION:FIRST-LAST, or PARTITION:FIRST- for the rest"
            )
        partition, first, last = int(match[1]), int(match[2]), match[3]
        if partition in found:
            raise SettingsError(f"--offsets {text}: partition {partition} is given twice")
        found[partition] = (first, int(last) if last else None)
    return found
