"""One run: the load, the plan carried out beside it, and the judgement at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.journal import Effect
from tests.chaos.link_faults import cut_link, half_open_link, lost_answer, slow_link
from tests.chaos.plan import BROKER, STORE, Fault, Kind
from tests.chaos.report import Outcome, problems_of
from tests.chaos.site import Site
from tests.chaos.site_faults import adapter_swap, broker_disk_full, broker_kill
from tests.chaos.worker_faults import (
    clock_step,
    engine_crash,
    engine_hang,
    engine_slow,
    freeze,
    join,
    kill,
    leave,
    terminate,
    worker_disk_full,
)
from tests.chaos.worker_slot import WorkerSlot

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
    """What a run has to come to: so many faults with an effect, so many records, and by when.

    ``checkpoints`` is how often the results are verified while everything runs. ``least_workers``
    take part from the beginning."""

    faults: int
    records: int
    limit_s: float
    checkpoints: int = 0
    least_workers: int = 2
    clean_letters: bool = True
    """Nothing is wrong with the messages, so none may end as a dead letter."""
    lasts_s: float = 0.0
    """How long the load goes on at least, whatever the faults."""
    say: Callable[[str], None] = field(default=lambda _: None)
    say_s: float = 15.0
    """How often it is said how it goes."""


class Lanes:
    """A thread for each target, which has its faults one after the other."""

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
        """Start all of them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no further fault, and wait for those under way."""
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
        except Exception as error:  # noqa: BLE001 - told, and the run ends
            self.failures.append(f"{target}: {type(error).__name__}: {error}")
            self._stopped.set()

    def _wait_until(self, moment: float, slot: WorkerSlot | None) -> bool:
        """Wait for a fault's time, its worker kept alive; say whether it is to be."""
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
    """Run the plan on a site under load, and judge what came of it."""
    for slot in site.slots[: goal.least_workers]:
        slot.start()
    for slot in site.slots[: goal.least_workers]:
        if not slot.wait_working() and site.options.partitions >= goal.least_workers:
            raise RuntimeError(f"{slot.name} does not come up:\n{slot.log and slot.log.tail()}")
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
        outcome.failures.append(f"{outcome.behind} records had not been done at the end")
    outcome.failures += problems_of(outcome, site, goal.faults, clean_letters=goal.clean_letters)
    return outcome


def _await_retries(site: Site) -> None:
    """Wait until nothing waits for another attempt any more."""
    until = time.monotonic() + _FINISH_S
    while site.verify()["waiting"] and time.monotonic() < until:
        time.sleep(1.0)


def _look_on(site: Site, lanes: Lanes, goal: Goal, began: float) -> list[dict[str, Any]]:
    """Wait until the faults are done, say how it goes, and verify in between."""
    checks: list[dict[str, Any]] = []
    said = time.monotonic()
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
        if time.monotonic() - said > goal.say_s:
            said = time.monotonic()
            behind = site.progress.behind(site.load.ends())
            goal.say(
                f"{site.journal.now_s():5.0f} s: {counted} faults, {site.load.published} records "
                f"published, {behind} to do"
            )
        time.sleep(0.2)
    return checks
