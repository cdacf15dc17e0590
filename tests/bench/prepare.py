"""``prepare`` on a made-up export of any size: time, CPU time and peak memory.

    python -m tests.bench.prepare --rows 10000 100000 1000000 --out DIR
    python -m tests.bench.prepare --rows 10000 100000 --footer 0.6 --out DIR

The export resembles real ones: forms that differ in numbers, exact copies, near-copies, stock
phrases that every customer uses, and unique messages; with ``--footer``, that share of messages
ends with one footer of 40 words. DIR holds the exports (0.4 GB for a million
rows) and, while one runs, its dataset. Each size runs in its own process, for its own peak.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LABELS = tuple(f"label_{number:02}" for number in range(20))
_FORMS, _COPIES, _NEAR = 0.15, 0.1, 0.1
_SYLLABLES = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "en", "er")]


class Writer:
    """Makes messages from a seed."""

    def __init__(self, seed: int, footer: float = 0.0) -> None:
        self._random, self._footed = random.Random(seed), footer
        words = {"".join(self._random.choices(_SYLLABLES, k=1 + n % 4)) for n in range(40_000)}
        self._words = sorted(words)
        self._random.shuffle(self._words)
        # Zipf's law: the n-th word comes 1/n times as often as the first.
        total, self._weights = 0.0, []
        for place in range(1, len(self._words) + 1):
            total += 1 / place
            self._weights.append(total)
        self._phrases = [self._some_words(7) for _ in range(300)]
        self._forms = [self._some_words(40) for _ in range(60)]

    def rows(self, count: int) -> Iterator[tuple[str, str, str]]:
        random_ = self._random
        recent: list[tuple[str, str]] = []
        for number in range(count):
            drawn = random_.random()
            if drawn < _FORMS:
                form = random_.randrange(len(self._forms))
                message, label = self._form(form), LABELS[form % len(LABELS)]
            elif drawn < _FORMS + _COPIES and recent:
                message, label = random_.choice(recent)
            elif drawn < _FORMS + _COPIES + _NEAR and recent:
                message, label = random_.choice(recent)
                message = self._reworded(message)
            else:
                message, label = self._own(), random_.choice(LABELS)
            recent.append((message, label))
            if number % 100 < 100 * self._footed:
                message = f"{message}\n\n{self._forms[0]}"
            if len(recent) > 5000:
                recent[random_.randrange(5000)] = recent.pop()
            yield f"t{number:07}", message, label

    def _own(self) -> str:
        random_ = self._random
        parts = [self._some_words(random_.randint(10, 44))]
        parts += random_.choices(self._phrases, k=random_.randint(1, 3))
        random_.shuffle(parts)
        return ". ".join(parts).capitalize()

    def _form(self, form: int) -> str:
        random_ = self._random
        name = f"{random_.choice(self._words)} {random_.choice(self._words)}"
        number = random_.randrange(10**6)
        day, words = random_.randint(1, 28), self._forms[form]
        text = f"Form {form}, ticket {number} of {day}.05.2026 [name]: {words}"
        return f"{text}, says {name}" if form % 4 == 0 else text

    def _reworded(self, message: str) -> str:
        words = message.split(" ")
        for _ in range(max(1, len(words) // 25)):
            words[self._random.randrange(len(words))] = self._random.choice(self._words)
        return " ".join(words)

    def _some_words(self, count: int) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=count))


def write_export(path: Path, rows: int, *, seed: int = 1, footer: float = 0.0) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "message", "label"))
        writer.writerows(Writer(seed, footer).rows(rows))


def write_taxonomy(path: Path) -> None:
    labels = "".join(f'[[labels]]\nname = "{name}"\n' for name in LABELS)
    path.write_text(f'name = "made-up"\nversion = "1"\n{labels}', encoding="utf-8")


def measure(export: Path, taxonomy: Path, out: Path) -> dict[str, float]:
    """Run ``prepare`` in a separate process; return seconds, CPU seconds and peak MB."""
    command = [sys.executable, "-m", "trainer", "prepare", "--input", str(export)]
    command += ["--taxonomy", str(taxonomy), "--out", str(out)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # wait4 has already collected it
    if process.returncode:
        raise SystemExit(f"prepare failed: exit code {process.returncode}")
    return {
        "seconds": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mb": usage.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--footer", type=float, default=0.0, help="share of messages with one")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    taxonomy = arguments.out / "taxonomy.toml"
    write_taxonomy(taxonomy)
    print("| rows | export, MB | seconds | CPU seconds | peak, MB |")
    print("|---:|---:|---:|---:|---:|")
    for rows in arguments.rows:
        export = arguments.out / f"export-{rows}-{arguments.footer:g}.csv"
        if not export.exists():
            write_export(export, rows, footer=arguments.footer)
        out = arguments.out / f"dataset-{rows}"
        shutil.rmtree(out, ignore_errors=True)
        found = measure(export, taxonomy, out)
        size = export.stat().st_size / 1e6
        print(
            f"| {rows:,} | {size:.0f} | {found['seconds']:.0f} | {found['cpu']:.0f} | "
            f"{found['mb']:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
