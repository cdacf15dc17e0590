"""``clerk-worker compare``: its options parsed, its result printed."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from worker.errors import SettingsError
from worker.offline.compare.run import CompareRequest, run_compare
from worker.offline.compare.show import show, to_json, write_csv
from worker.settings import Settings


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
