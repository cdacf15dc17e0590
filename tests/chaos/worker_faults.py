"""Faults of a worker's process, engine, disk and clock: each is carried out, and looked at."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from tests.chaos.journal import Effect
from tests.chaos.plan import Fault
from tests.chaos.site import Site
from tests.chaos.worker_slot import WorkerSlot

_MOVE_S = 12.0
_NOTICE_S = 15.0
_HANG_S = 90.0
"""Ten seconds once the engine has records; before that a broker may be away, and come back to a
transaction that a killed worker left open."""


def kill(site: Site, fault: Fault) -> Effect:
    """SIGKILL, and a new process at once."""
    slot = site.slot(fault.target)
    held, began = slot.held, time.monotonic()
    code = slot.kill()
    slot.start()
    recovery_s = site.recovery_s(held, began)
    seen = f"process gone ({code}), {len(held)} partitions taken over" if code == -9 else None
    return Effect(seen, held, recovery_s)


def terminate(site: Site, fault: Fault) -> Effect:
    """SIGTERM, and a new process once it has drained."""
    slot = site.slot(fault.target)
    held, began = slot.held, time.monotonic()
    code, drained = _stop(slot)
    stopped_s = time.monotonic() - began
    slot.start()
    recovery_s = site.recovery_s(held, began)
    seen = f"drained, exit 0 after {stopped_s:.1f} s" if code == 0 and drained else None
    return Effect(seen, held, recovery_s, {"code": code, "drain_s": round(stopped_s, 2)})


def freeze(site: Site, fault: Fault) -> Effect:
    """SIGSTOP for longer than the session, then SIGCONT: a zombie, that must write nothing."""
    slot = site.slot(fault.target)
    held, began = slot.held, time.monotonic()
    slot.send(signal.SIGSTOP)
    try:
        moved = False
        while time.monotonic() - began < (fault.lasts_s if moved else _MOVE_S):
            moved = moved or held <= site.held_by_others(slot)
            time.sleep(0.05)
        recovered = site.recovery_s(held, began, 20.0)
    finally:
        woken = time.monotonic()
        slot.send(signal.SIGCONT)
    told = _wait(lambda: slot.exit_code() is not None or _lost(slot, woken), _NOTICE_S)
    code = slot.exit_code()
    after = f"ended with {code}" if code is not None else "said that it had lost them"
    seen = None
    if held and moved:
        what = after if told else "said nothing"
        seen = f"{len(held)} partitions moved while it was stopped; woken, it {what}"
    return Effect(seen, held, recovered, {"stopped_s": round(woken - began, 2)})


def join(site: Site, fault: Fault) -> Effect:
    """One more worker."""
    slot = site.slot(fault.target)
    began = time.monotonic()
    slot.start()
    joined = slot.wait_working()
    held = slot.held
    recovery_s = site.recovery_s(held, time.monotonic())
    seen = f"joined and was given {len(held)} partitions" if joined and held else None
    return Effect(seen, held, recovery_s, {"joined_s": round(time.monotonic() - began, 2)})


def leave(site: Site, fault: Fault) -> Effect:
    """One worker fewer."""
    slot = site.slot(fault.target)
    held, began = slot.held, time.monotonic()
    code, drained = _stop(slot)
    recovery_s = site.recovery_s(held, began)
    seen = f"left with 0, {len(held)} partitions taken over" if code == 0 and drained else None
    return Effect(seen, held, recovery_s, {"code": code})


def engine_crash(site: Site, fault: Fault) -> Effect:
    """The engine dies: the worker must end with 5 and commit nothing it does not have."""
    return _engine_dies(site, fault, "crash", "the engine died")


def engine_hang(site: Site, fault: Fault) -> Effect:
    """The engine answers nothing any more: the worker must notice, and end with 5."""
    return _engine_dies(site, fault, "hang", "the hang was noticed")


def engine_slow(site: Site, fault: Fault) -> Effect:
    """Each answer takes longer for a while."""
    slot = site.slot(fault.target)
    held = slot.held
    slot.tell_engine(f"slow {fault.amount}")
    time.sleep(fault.lasts_s)
    slow = slot.engine_did()
    slot.tell_engine("")
    recovery_s = site.recovery_s(held, time.monotonic())
    seen = f"{slow} answers took {fault.amount} s longer" if slow else None
    return Effect(seen, held, recovery_s)


def worker_disk_full(site: Site, fault: Fault) -> Effect:
    """The disk with its log is full: it must work on without one."""
    slot = site.slot(fault.target)
    assert slot.disk is not None
    assert slot.log is not None
    held, began = slot.held, time.monotonic()
    slot.disk.fill()
    try:
        full = slot.disk.is_full()
        time.sleep(0.5)
        silent_from = time.monotonic()
        went_on = site.recovery_s(held, began, 20.0) is not None
        time.sleep(fault.lasts_s)
        lines = len([said for said in slot.log.said if said.at > silent_from])
    finally:
        slot.disk.free()
    ended = slot.exit_code()
    # Its log has a gap, and what it holds is read there: so it is replaced, in order.
    code = slot.stop()
    slot.start()
    recovery_s = site.recovery_s(held, time.monotonic())
    seen = None
    if full and ended is None:
        said = f"its log took {lines} lines"
        seen = f"no space left: {said}, results {'went on' if went_on else 'stood still'}"
    return Effect(seen, held, recovery_s, {"code": code})


def clock_step(site: Site, fault: Fault) -> Effect:
    """The clock is set forward or back under the running worker, and back again."""
    slot = site.slot(fault.target)
    assert slot.log is not None
    log, held, began = slot.log, slot.held, time.monotonic()
    slot.step_clock(fault.amount)
    try:
        _wait(lambda: _stepped(log.clock_offsets_s(began), fault.amount), 8.0)
        time.sleep(fault.lasts_s)
        stepped = _stepped(log.clock_offsets_s(began), fault.amount)
    finally:
        slot.step_clock(0.0)
    recovery_s = site.recovery_s(held, time.monotonic())
    seen = f"its log is dated {fault.amount:+.0f} s" if stepped else None
    return Effect(seen, held, recovery_s)


def _stepped(offsets_s: list[float], amount: float) -> bool:
    return any(abs(offset - amount) < 1.0 for offset in offsets_s)


def _engine_dies(site: Site, fault: Fault, words: str, what: str) -> Effect:
    slot = site.slot(fault.target)
    held, began = slot.held, time.monotonic()
    slot.tell_engine(words)
    code = slot.wait_for_end(_HANG_S)
    noticed_s = time.monotonic() - began
    if code is None:  # it goes on, so it is put right by force
        slot.kill()
    slot.tell_engine("")
    slot.start()
    recovery_s = site.recovery_s(held, began)
    seen = f"{what} after {noticed_s:.1f} s, exit {code}" if code == 5 else None
    return Effect(seen, held, recovery_s, {"code": code, "noticed_s": round(noticed_s, 2)})


def _stop(slot: WorkerSlot) -> tuple[int, bool]:
    log = slot.log
    assert log is not None
    code = slot.stop()
    log.read()
    return code, any(said.event == "worker.drained" for said in log.said)


def _lost(slot: WorkerSlot, moment: float) -> bool:
    assert slot.log is not None
    return bool(slot.log.since(moment, "partitions.lost", "partitions.revoked"))


def _wait(wanted: Callable[[], bool], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while not wanted():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
