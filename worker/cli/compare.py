"""``clerk-worker compare``: what was asked for on the command line, and the answer printed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from worker.errors import SettingsError
from worker.offline.compare.run import CompareRequest, run_compare
from worker.offline.compare.show import show, to_json, write_csv
from worker.offline.message_file import MessageFile
from worker.settings import Settings
from worker.stream.kafka_range import RecordRange

_OFFSETS = re.compile(r"(\d+):(\d+)-(\d*)")


def compare_adapters(
    settings: Settings, ask: CompareRequest, *, as_json: bool, out: Path | None
) -> None:
    """Compare and print; write the disagreements to ``out``. Raises WorkerStopped."""
    if out is not None and not out.parent.is_dir():
        # Told before the minutes that the engines take.
        raise SettingsError(f"--out {out}: {out.parent} is no directory")
    outcome = run_compare(settings, ask)
    if as_json:
        print(json.dumps(to_json(outcome), ensure_ascii=False, indent=1))
    else:
        show(outcome, Console(highlight=False))
    if out is not None:
        count = write_csv(out, outcome.pairs)
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"{count} disagreements: {out}")


def make_source(
    file: MessageFile | None,
    *,
    last: int | None,
    since: str | None,
    until: str | None,
    offsets: Sequence[str],
) -> RecordRange | None:
    """Return the stretch of a topic that was asked for, None for a file. Raises SettingsError
    unless it is exactly one of a file, the last so many, a time and offsets."""
    asked = {
        "--input": file is not None,
        "--last": last is not None,
        "--since": since is not None,
        "--offsets": bool(offsets),
    }
    given = [name for name, is_there in asked.items() if is_there]
    if len(given) != 1:
        told = f"{' and '.join(given)} are given" if given else "none is given"
        raise SettingsError(f"say which messages by one of {', '.join(asked)}: {told}")
    if until is not None and since is None:
        raise SettingsError("--until goes with --since")
    if file is not None:
        return None
    return RecordRange(
        last=last,
        since_ms=_time_ms("--since", since),
        until_ms=_time_ms("--until", until),
        offsets=_offsets(offsets) if offsets else None,
    )


def _time_ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text}: write it as 2026-03-02T06:00 (UTC) or 2026-03-02T06:00+01:00"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _offsets(given: Sequence[str]) -> dict[int, tuple[int, int | None]]:
    found: dict[int, tuple[int, int | None]] = {}
    for text in given:
        match = _OFFSETS.fullmatch(text)
        if match is None:
            raise SettingsError(
                f"--offsets {text}: write PARTITION:FIRST-LAST, or PARTITION:FIRST- to the end"
            )
        partition, first, last = int(match[1]), int(match[2]), match[3]
        if partition in found:
            raise SettingsError(f"--offsets {text}: partition {partition} is named twice")
        found[partition] = (first, int(last) if last else None)
    return found
