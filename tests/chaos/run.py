"""One run: the load, the plan carried out under it, and the verdict at the end."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import (
    adapter_swap,
    broker_disk_full,
    broker_kill,
    clock_step,
    cut_link,
    engine_crash,
    engine_hang,
    engine_slow,
    freeze,
    half_open_link,
    join,
    kill,
    leave,
    lost_answer,
    slow_link,
    terminate,
    worker_disk_full,
)
from tests.chaos.journal import Effect, Entry
from tests.chaos.plan import BROKER, KINDS, STORE, Fault, Kind
from tests.chaos.site import Site
from tests.chaos.worker_slot import WorkerSlot

# The outcome of a run: figures, a table for people, and what is wrong with it.


@dataclass
class Outcome:
    """The result of a run. ``verification`` and ``checkpoints`` are the output of ``verify``."""

    published: int
    behind: int
    took_s: float
    checkpoints: list[dict[str, Any]]
    verification: dict[str, Any]
    exit_codes: dict[str, int]
    restarts: int
    failures: list[str]


def problems_of(outcome: Outcome, site: Site, faults: int, *, clean_letters: bool) -> list[str]:
    """What contradicts the guarantees or the run's purpose."""
    found, problems = outcome.verification, []
    problems += [f"{count} {name}" for name, count in found["faults"].items() if count]
    if found["inputs"] != outcome.published:
        problems.append(f"{found['inputs']} inputs judged of {outcome.published} published")
    if found["pending"]:
        problems.append(f"{found['pending']} offsets are pending")
    if found["waiting"]:
        problems.append(f"{found['waiting']} records still wait for another attempt")
    if site.options.retry and not found["retries"]:
        problems.append("nothing was retried later")
    if site.options.delivery == "exactly_once" and found["results"] != outcome.published:
        problems.append(f"{found['results']} results for {outcome.published} records")
    dead = found["by_topic"].get(site.topics["dead"], 0)
    if clean_letters and dead:
        problems.append(f"{dead} good messages are dead letters")
    if back := site.progress.steps_back:
        problems.append(f"committed offsets went back {len(back)} times, first {back[0]}")
    counted = site.journal.counted
    if counted < faults:
        problems.append(f"{counted} faults had an effect, of {faults} wanted")
    problems += [
        f"{name} ended with {code}" for name, code in outcome.exit_codes.items() if code != 0
    ]
    return problems


def summarise(outcome: Outcome, site: Site) -> dict[str, Any]:
    """Everything as plain JSON."""
    entries = site.journal.entries
    return {
        "proven": not outcome.failures,
        "problems": outcome.failures,
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
        "faults_counted": site.journal.counted,
        "kinds": {
            kind: _figures([entry for entry in entries if entry.fault.kind == kind])
            for kind in KINDS
            if any(entry.fault.kind == kind for entry in entries)
        },
        "workers_ended_unasked": outcome.restarts,
        "broker_was_stuck": sum(note["event"] == "broker.stuck" for note in site.journal.notes),
        "broker_loads_mixed_up": _loads_mixed_up(site),
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as text."""
    lines = [
        f"{'fault':<18}{'done':>6}{'seen':>6}{'recovery: median':>19}{'longest':>10}",
    ]
    for kind, figures in summary["kinds"].items():
        median, longest = figures["recovery_median_s"], figures["recovery_longest_s"]
        times = f"{_seconds(median):>19}{_seconds(longest):>10}"
        lines.append(f"{kind:<18}{figures['done']:>6}{figures['seen']:>6}{times}")
    lines += [
        "",
        (
            f"{summary['faults_counted']} faults with an effect in {summary['took_s']:.0f} s; "
            f"{summary['workers_ended_unasked']} workers ended by themselves and were restarted"
        ),
        (
            f"published {summary['published']}, judged {summary['inputs']}, results "
            f"{summary['results']} {summary['by_topic']}, repeated {summary['repeated']}, "
            f"retried later {summary['retries']}"
        ),
        (
            f"brokers that came back stuck and were restarted: {summary['broker_was_stuck']}; "
            f"that took one load of offsets for another: {summary['broker_loads_mixed_up']}"
        ),
        "faults found: "
        + ", ".join(f"{name} {count}" for name, count in summary["faults_found"].items()),
        "PROVEN" if summary["proven"] else "NOT PROVEN: " + "; ".join(summary["problems"]),
    ]
    return "\n".join(lines)


def _loads_mixed_up(site: Site) -> int:
    """How often the broker mistook one load of offsets for another. It may then have served old
    offsets (``worker/demo/kafka_files.py``)."""
    log = (site.folder / "broker.log").read_text(encoding="utf-8", errors="replace")
    return log.count("Ignored load completion from __consumer_offsets")


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


CARRY_OUT: Mapping[Kind, Callable[[Site, Fault], Effect]] = {
    "kill": kill,
    "terminate": terminate,
    "freeze": freeze,
    "join": join,
    "leave": leave,
    "cut_link": cut_link,
    "half_open_link": half_open_link,
    "slow_link": slow_link,
    "lost_answer": lost_answer,
    "engine_crash": engine_crash,
    "engine_hang": engine_hang,
    "engine_slow": engine_slow,
    "worker_disk_full": worker_disk_full,
    "clock_step": clock_step,
    "adapter_swap": adapter_swap,
    "broker_kill": broker_kill,
    "broker_disk_full": broker_disk_full,
}

_FINISH_S = 240.0


@dataclass(frozen=True)
class Goal:
    """When a run is done: faults with an effect, records, and a time limit. The results are
    verified ``checkpoints`` times while everything runs. ``least_workers`` run from the
    beginning."""

    faults: int
    records: int
    limit_s: float
    checkpoints: int = 0
    least_workers: int = 2
    clean_letters: bool = True
    """Nothing is wrong with the messages, so none may end as a dead letter."""
    lasts_s: float = 0.0
    """How long the load lasts at least, whatever the faults."""
    say: Callable[[str], None] = field(default=lambda _: None)
    say_s: float = 15.0
    """How often progress is printed."""


class Lanes:
    """A thread for each target, which carries out its faults one after the other."""

    def __init__(self, site: Site, plan: tuple[Fault, ...], goal: Goal) -> None:
        self._site = site
        self._goal = goal
        self._began = time.monotonic()
        self._stopped = threading.Event()
        self.failures: list[str] = []
        self.planned = len(plan)
        targets = [*(slot.name for slot in site.slots), BROKER, STORE]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(target, [fault for fault in plan if fault.target == target]),
                name=target,
            )
            for target in targets
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more faults, and wait for those under way."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, target: str, faults: list[Fault]) -> None:
        slot = None if target in {BROKER, STORE} else self._site.slot(target)
        try:
            for fault in faults:
                if not self._wait_until(self._began + fault.at_s, slot):
                    break
                if slot is not None and slot.is_up and not slot.wait_working():
                    self._site.journal.note("worker.idle", worker=slot.name)
                began_s = self._site.journal.now_s()
                effect = CARRY_OUT[fault.kind](self._site, fault)
                self._site.journal.add(fault, began_s, effect)
                self._judge(fault, effect)
            while slot is not None and not self._stopped.wait(0.2):
                slot.watch()
        except Exception as error:  # noqa: BLE001 - printed, and the run ends
            self.failures.append(f"{target}: {type(error).__name__}: {error}")
            self._stopped.set()

    def _wait_until(self, moment: float, slot: WorkerSlot | None) -> bool:
        """Wait for a fault's time while keeping its worker alive; return whether to carry it
        out."""
        while True:
            if self._stopped.is_set() or self._site.journal.counted >= self._goal.faults:
                return False
            if slot is not None:
                slot.watch()
            left = moment - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(0.2, left))

    def _judge(self, fault: Fault, effect: Effect) -> None:
        if fault.kind == "engine_hang" and effect.seen is None:
            self.failures.append(f"{fault.target}: an engine that hung was not noticed")


def carry_out(site: Site, plan: tuple[Fault, ...], goal: Goal) -> Outcome:
    """Run the plan on a site under load, and judge the result."""
    for slot in site.slots[: goal.least_workers]:
        slot.start()
    for slot in site.slots[: goal.least_workers]:
        if not slot.wait_working() and site.options.partitions >= goal.least_workers:
            raise RuntimeError(f"{slot.name} does not start:\n{slot.log and slot.log.tail()}")
    site.journal.begin()
    began = time.monotonic()
    site.load.begin()
    lanes = Lanes(site, plan, goal)
    lanes.begin()
    try:
        checks = _look_on(site, lanes, goal, began)
        site.load.finish(goal.records if not lanes.failures else 0)
        caught_up = site.progress.await_beyond(site.load.ends(), _FINISH_S)
        if site.options.retry:
            _await_retries(site)
    finally:
        lanes.stop()
    took_s = time.monotonic() - began
    codes = {slot.name: slot.stop() for slot in site.slots if slot.is_up}
    outcome = Outcome(
        published=site.load.published,
        behind=site.progress.behind(site.load.ends()),
        took_s=took_s,
        checkpoints=checks,
        verification=site.verify(),
        exit_codes=codes,
        restarts=sum(slot.restarts for slot in site.slots),
        failures=[*lanes.failures, *(line for slot in site.slots for line in slot.failures)],
    )
    if not caught_up:
        outcome.failures.append(f"{outcome.behind} records were not done at the end")
    outcome.failures += problems_of(outcome, site, goal.faults, clean_letters=goal.clean_letters)
    return outcome


def _await_retries(site: Site) -> None:
    """Wait until no record waits for another attempt."""
    until = time.monotonic() + _FINISH_S
    while site.verify()["waiting"] and time.monotonic() < until:
        time.sleep(1.0)


def _look_on(site: Site, lanes: Lanes, goal: Goal, began: float) -> list[dict[str, Any]]:
    """Wait until the faults are done; report progress, and verify in between."""
    checks: list[dict[str, Any]] = []
    printed = time.monotonic()
    while not lanes.failures:
        counted = site.journal.counted
        lasted_s = time.monotonic() - began
        done = counted >= goal.faults or len(site.journal.entries) >= lanes.planned
        if done and lasted_s >= goal.lasts_s:
            break
        if not done and lasted_s > goal.limit_s:
            lanes.failures.append(f"{counted} faults had an effect within {goal.limit_s:.0f} s")
            break
        due = goal.faults * (len(checks) + 1) / (goal.checkpoints + 1)
        if len(checks) < goal.checkpoints and counted >= due:
            checks.append(site.verify())
            if not checks[-1]["proven"]:
                lanes.failures.append(f"checkpoint: {checks[-1]['faults']}")
        if time.monotonic() - printed > goal.say_s:
            printed = time.monotonic()
            behind = site.progress.behind(site.load.ends())
            goal.say(
                f"{site.journal.now_s():5.0f} s: {counted} faults, {site.load.published} records "
                f"published, {behind} to do"
            )
        time.sleep(0.2)
    return checks
