"""``clerk-worker compare``: its options parsed, its result printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from worker.cli.ranges import parse_offsets, parse_time
from worker.errors import SettingsError
from worker.offline.compare.run import CompareRequest, run_compare
from worker.offline.compare.show import show, to_json, write_csv
from worker.offline.message_file import MessageFile
from worker.settings import Settings
from worker.stream.record_range import RecordRange


def compare_adapters(
    settings: Settings, request: CompareRequest, *, as_json: bool, out: Path | None
) -> None:
    """Compare and print; write the disagreements to ``out``. Raises WorkerStopped."""
    if out is not None and not out.parent.is_dir():
        # Checked first: the engines take minutes.
        raise SettingsError(f"--out {out}: {out.parent} is not a directory")
    result = run_compare(settings, request)
    if as_json:
        print(json.dumps(to_json(result), ensure_ascii=False, indent=1))
    else:
        show(result, Console(highlight=False))
    if out is not None:
        count = write_csv(out, result.pairs)
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        console.print(f"{count} disagreements: {out}")


def parse_range(
    file: MessageFile | None,
    *,
    last: int | None,
    since: str | None,
    until: str | None,
    offsets: Sequence[str],
) -> RecordRange | None:
    """Return the range of records that the options give, None for a file.

    Raises SettingsError unless exactly one of --input, --last, --since and --offsets is given.
    """
    options = {
        "--input": file is not None,
        "--last": last is not None,
        "--since": since is not None,
        "--offsets": bool(offsets),
    }
    given = [name for name, is_given in options.items() if is_given]
    if len(given) != 1:
        problem = f"{' and '.join(given)} are given" if given else "none is given"
        raise SettingsError(f"choose messages with one of {', '.join(options)}: {problem}")
    if until is not None and since is None:
        raise SettingsError("--until needs --since")
    if file is not None:
        return None
    return RecordRange(
        last=last,
        since_ms=parse_time("--since", since),
        until_ms=parse_time("--until", until),
        offsets=parse_offsets(offsets) if offsets else None,
    )
