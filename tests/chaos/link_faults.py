"""Faults of a worker's link to its broker, by its proxy: each is carried out, and looked at."""

from __future__ import annotations

import time

from tests.chaos.frames import END_TXN, INIT_PRODUCER_ID, OFFSET_COMMIT
from tests.chaos.journal import Effect
from tests.chaos.plan import Fault
from tests.chaos.site import Site

_NOTICE_S = 3.0
_DROP_S = 15.0
_ASK_AGAIN_S = 30.0


def cut_link(site: Site, fault: Fault) -> Effect:
    """Every connection is cut and none accepted for a while."""
    slot = site.slot(fault.target)
    held, began, before = slot.held, time.monotonic(), slot.proxy.counts.cut
    slot.proxy.set_link("cut")
    time.sleep(fault.lasts_s)
    slot.proxy.set_link("whole")
    ended, cut = time.monotonic(), slot.proxy.counts.cut - before
    recovery_s = site.recovery_s(held, ended)
    noticed = _noticed(site, fault, began)
    seen = f"{cut} connections cut; the worker: {noticed}" if cut and noticed else None
    return Effect(seen, held, recovery_s)


def half_open_link(site: Site, fault: Fault) -> Effect:
    """Connections are accepted and what is sent is taken, and nothing is ever answered."""
    slot = site.slot(fault.target)
    held, began, before = slot.held, time.monotonic(), slot.proxy.counts.swallowed_bytes
    slot.proxy.set_link("half_open")
    time.sleep(fault.lasts_s)
    moved = held <= site.held_by_others(slot) if held else False
    slot.proxy.set_link("whole")
    ended, swallowed = time.monotonic(), slot.proxy.counts.swallowed_bytes - before
    recovery_s = site.recovery_s(held, ended)
    noticed = _noticed(site, fault, began)
    seen = None
    if swallowed and (noticed or moved):
        what = "its partitions moved" if moved else "its partitions stayed"
        seen = f"{swallowed} bytes without an answer, {what}; the worker: {noticed or 'nothing'}"
    return Effect(seen, held, recovery_s)


def slow_link(site: Site, fault: Fault) -> Effect:
    """Each chunk takes longer, both ways."""
    slot = site.slot(fault.target)
    assert slot.log is not None
    held, began = slot.held, time.monotonic()
    slot.proxy.set_link("slow", fault.amount)
    time.sleep(fault.lasts_s)
    slot.proxy.set_link("whole")
    ended = time.monotonic()
    recovery_s = site.recovery_s(held, ended)
    until = time.monotonic() + _NOTICE_S
    slowest_s = 0.0
    while slowest_s <= fault.amount and time.monotonic() < until:
        time.sleep(0.1)  # the line comes after the offsets are committed
        said = slot.log.since(began, "batch.published")
        slowest_s = max((float(line.fields["seconds"]) for line in said), default=0.0)
    seen = f"the slowest publish took {slowest_s:.1f} s" if slowest_s > fault.amount else None
    return Effect(seen, held, recovery_s, {"delay_s": fault.amount})


def lost_answer(site: Site, fault: Fault) -> Effect:
    """The answer to the end of a transaction is withheld and the connection cut, so that the
    worker does not know the outcome. (At least once: the answer to a commit of offsets.)"""
    slot = site.slot(fault.target)
    held, proxy = slot.held, slot.proxy
    exactly = site.options.delivery == "exactly_once"
    kind = END_TXN if exactly else OFFSET_COMMIT
    again = (END_TXN, INIT_PRODUCER_ID) if exactly else (OFFSET_COMMIT,)
    before = proxy.counts.dropped
    proxy.drop_answer(kind)
    until = time.monotonic() + _DROP_S
    while proxy.counts.dropped == before and time.monotonic() < until:
        time.sleep(0.005)
    if proxy.counts.dropped == before:
        proxy.drop_answer(-1)
        return Effect(None, held)
    dropped = proxy.dropped_at or time.monotonic()
    asked = {each: proxy.requests[each] for each in again}
    until = dropped + _ASK_AGAIN_S
    while all(proxy.requests[each] == asked[each] for each in again):
        if time.monotonic() > until:
            return Effect(None, held)
        time.sleep(0.005)
    asked_s = time.monotonic() - dropped
    recovery_s = site.recovery_s(held, dropped)
    seen = f"the answer never came; asked again after {asked_s:.2f} s"
    return Effect(seen, held, recovery_s, {"said": _noticed(site, fault, dropped)})


def _noticed(site: Site, fault: Fault, began: float) -> str:
    slot = site.slot(fault.target)
    until = time.monotonic() + _NOTICE_S
    while not (said := slot.trouble_since(began)) and time.monotonic() < until:
        time.sleep(0.05)
    return ", ".join(sorted(set(said)))
