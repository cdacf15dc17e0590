"""What came of a run: figures, a table for people, and what is wrong with it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.journal import Entry
from tests.chaos.plan import KINDS
from tests.chaos.progress import Disturbance, longest_undisturbed_s
from tests.chaos.site import Site

# After a fault has been recovered from, the group may still be dealing partitions out again.
_SETTLING_S = 5.0


@dataclass
class Outcome:
    """What a run came to. ``verification`` and ``checkpoints`` are what ``verify`` said."""

    published: int
    behind: int
    took_s: float
    checkpoints: list[dict[str, Any]]
    verification: dict[str, Any]
    exit_codes: dict[str, int]
    restarts: int
    failures: list[str]


def problems_of(outcome: Outcome, site: Site, faults: int, *, clean_letters: bool) -> list[str]:
    """Return what contradicts the guarantees, or the run's own purpose."""
    found, problems = outcome.verification, []
    problems += [f"{count} {name}" for name, count in found["faults"].items() if count]
    if found["inputs"] != outcome.published:
        problems.append(f"{found['inputs']} inputs judged of {outcome.published} published")
    if found["pending"]:
        problems.append(f"{found['pending']} offsets are pending")
    if found["waiting"]:
        problems.append(f"{found['waiting']} records still wait for another attempt")
    if site.options.retry and not found["retries"]:
        problems.append("nothing was tried again later")
    if site.options.delivery == "exactly_once" and found["results"] != outcome.published:
        problems.append(f"{found['results']} results for {outcome.published} records")
    dead = found["by_topic"].get(site.topics["dead"], 0)
    if clean_letters and dead:
        problems.append(f"{dead} good messages are dead letters")
    if back := site.progress.watch.steps_back:
        problems.append(f"committed offsets went back {len(back)} times, first {back[0]}")
    counted = site.journal.counted
    if counted < faults:
        problems.append(f"{counted} faults had an effect, of {faults} wanted")
    problems += [
        f"{name} ended with {code}" for name, code in outcome.exit_codes.items() if code != 0
    ]
    return problems


def summarise(outcome: Outcome, site: Site) -> dict[str, Any]:
    """Return everything as plain JSON."""
    entries = site.journal.entries
    return {
        "schema": "chaos/1",
        "proven": not outcome.failures,
        "problems": outcome.failures,
        "delivery": site.options.delivery,
        "protocol": site.options.protocol,
        "engine": "real" if site.options.real_engine else "fixed",
        "took_s": round(outcome.took_s, 1),
        "published": outcome.published,
        "inputs": outcome.verification["inputs"],
        "results": outcome.verification["results"],
        "by_topic": {
            name: outcome.verification["by_topic"].get(topic, 0)
            for name, topic in site.topics.items()
            if name not in {"in", "retry"}
        },
        "repeated": outcome.verification["repeated"],
        "retries": outcome.verification["retries"],
        "faults_found": outcome.verification["faults"],
        "offenders": outcome.verification["offenders"],
        "checkpoints": [check["inputs"] for check in outcome.checkpoints],
        "faults_counted": site.journal.counted,
        "kinds": {
            kind: _figures([entry for entry in entries if entry.fault.kind == kind])
            for kind in KINDS
            if any(entry.fault.kind == kind for entry in entries)
        },
        "workers_ended_unasked": outcome.restarts,
        "broker_was_stuck": sum(note["event"] == "broker.stuck" for note in site.journal.notes),
        "broker_loads_mixed_up": _loads_mixed_up(site),
        "longest_stall_s": _longest_stalls(site),
    }


def table(summary: dict[str, Any]) -> str:
    """Return it for people."""
    lines = [
        f"{'fault':<18}{'done':>6}{'seen':>6}{'recovery: median':>19}{'longest':>10}",
    ]
    for kind, figures in summary["kinds"].items():
        median, longest = figures["recovery_median_s"], figures["recovery_longest_s"]
        times = f"{_seconds(median):>19}{_seconds(longest):>10}"
        lines.append(f"{kind:<18}{figures['done']:>6}{figures['seen']:>6}{times}")
    stalls = summary["longest_stall_s"]
    lines += [
        "",
        (
            f"{summary['faults_counted']} faults with an effect in {summary['took_s']:.0f} s; "
            f"{summary['workers_ended_unasked']} workers ended by themselves and were started again"
        ),
        (
            f"longest stall of a partition: {stalls['any']:.1f} s; of one that no fault touched: "
            f"{stalls['healthy']:.1f} s"
        ),
        (
            f"published {summary['published']}, judged {summary['inputs']}, results "
            f"{summary['results']} {summary['by_topic']}, repeated {summary['repeated']}, "
            f"tried again later {summary['retries']}"
        ),
        (
            f"brokers that came back stuck and were started again: {summary['broker_was_stuck']}; "
            f"that took one load of offsets for another: {summary['broker_loads_mixed_up']}"
        ),
        "faults found: "
        + ", ".join(f"{name} {count}" for name, count in summary["faults_found"].items()),
        "PROVEN" if summary["proven"] else "NOT PROVEN: " + "; ".join(summary["problems"]),
    ]
    return "\n".join(lines)


def disturbances(entries: Sequence[Entry], start: float) -> list[Disturbance]:
    """When partitions could not be expected to move: ``start`` is the load's (monotonic)."""
    return [
        Disturbance(
            entry.effect.partitions,
            start + entry.began_s,
            start + entry.ended_s + _SETTLING_S,
        )
        for entry in entries
    ]


def _longest_stalls(site: Site) -> dict[str, float]:
    stalls = site.progress.watch.stalls
    longest = max((stall.ended - stall.began for stall in stalls), default=0.0)
    explained = disturbances(site.journal.entries, site.journal.start)
    return {
        "any": round(longest, 2),
        "healthy": round(longest_undisturbed_s(stalls, explained), 2),
    }


def _loads_mixed_up(site: Site) -> int:
    """How often the broker was told of a load's end when it had taken another's for it: it may have
    served the group's offsets of long ago (``worker/demo/kafka_files.py``)."""
    said = (site.folder / "broker.log").read_text(encoding="utf-8", errors="replace")
    return said.count("Ignored load completion from __consumer_offsets")


def _figures(entries: Sequence[Entry]) -> dict[str, Any]:
    times = [
        entry.effect.recovery_s
        for entry in entries
        if entry.counts and entry.effect.recovery_s is not None
    ]
    return {
        "done": len(entries),
        "seen": sum(entry.counts for entry in entries),
        "recovery_median_s": round(statistics.median(times), 2) if times else None,
        "recovery_longest_s": round(max(times), 2) if times else None,
    }


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
