"""A steady load for a long time: whether memory, descriptors and threads stay constant."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.load import plain_values
from tests.chaos.run import Goal, carry_out
from tests.chaos.site import Site, SiteOptions

SAMPLE_S = 10.0
_WARM_UP = 0.25
"""Share of the samples at the beginning that is not judged: caches and pools fill up."""

LIMITS = {"rss_mb": (8.0, 0.05), "descriptors": (2.0, 0.0), "threads": (1.0, 0.0)}
"""How much may be added during the judged time: an amount, and a share of what there was."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A process at one time: resident memory, open descriptors, threads."""

    at_s: float
    rss_mb: float
    descriptors: float
    threads: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through one figure: growth per hour and in total, and whether that is
    within its limit."""

    name: str
    first: float
    per_hour: float
    added: float
    is_flat: bool


def read_usage(pid: int, at_s: float) -> Usage:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    )
    return Usage(
        at_s,
        int(status["VmRSS"].split()[0]) / 1024,
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(status["Threads"]),
    )


def trends(samples: Sequence[Usage]) -> list[Trend]:
    """Judge the samples of one process, without the first quarter. Least squares."""
    judged = samples[int(len(samples) * _WARM_UP) :]
    times = [sample.at_s for sample in judged]
    lasted_s = times[-1] - times[0]
    found = []
    for name, (amount, share) in LIMITS.items():
        values = [float(getattr(sample, name)) for sample in judged]
        line = statistics.linear_regression(times, values)
        added = line.slope * lasted_s
        first = line.intercept + line.slope * times[0]
        found.append(Trend(name, first, line.slope * 3600, added, added <= amount + share * first))
    return found


def soak(options: SiteOptions, folder: Path, lasts_s: float) -> int:
    """Run two workers under a steady load, verify, judge; return the exit code."""
    samples: dict[str, list[Usage]] = {}
    with Site(options, folder, plain_values()) as site:
        began = time.monotonic()

        def sample(_: str = "") -> None:
            for slot in site.slots:
                if slot.held:
                    usage = read_usage(slot.pid, time.monotonic() - began)
                    samples.setdefault(slot.name, []).append(usage)

        goal = Goal(0, 0, lasts_s, least_workers=2, lasts_s=lasts_s, say=sample, say_s=SAMPLE_S)
        outcome = carry_out(site, (), goal)
    judged = {name: trends(usages) for name, usages in samples.items()}
    for name, lines in judged.items():
        for line in lines:
            print(
                f"{name}: {line.name} {line.first:.1f}, {line.per_hour:+.2f} an hour "
                f"({line.added:+.2f} in all): {'flat' if line.is_flat else 'GROWS'}"
            )
    proven = not outcome.failures and all(line.is_flat for each in judged.values() for line in each)
    print(f"{outcome.published} records, {lasts_s:.0f} s: {'PROVEN' if proven else 'NOT PROVEN'}")
    for problem in outcome.failures:
        print(problem)
    return 0 if proven else 1
