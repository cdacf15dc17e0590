"""Watches a store and brings up what it names, on a thread of its own.

The loop never waits for it: an adapter is handed over when it is verified, loaded and tried, and
until then the one in service goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from worker.contract import AdapterRefused, Encoders, Manifest
from worker.contract.store import CanaryPointer, Pointer, find_stored, read_canary, read_pointer
from worker.core.adapter_router import AdapterRouter
from worker.core.serving_adapter import ServingAdapter, TrafficSplit
from worker.engine.port import AdapterLoader, Engine
from worker.errors import EngineDied, SettingsError
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.preflight import check_own_probes, compare_on_probes, verify
from worker.lifecycle.refusal import Refusal, Role

_log = structlog.get_logger("worker.adapters")

_JOIN_S = 5.0


class _NotYet(Exception):
    """An adapter's files are not all there: on a network file system they may come later than
    the pointer that names them."""


@dataclass(frozen=True, slots=True)
class WatcherPolicy:
    """Times in seconds; ``max_probe_error_rate`` is the share of the serving adapter's probes
    that a new one may misclassify; files that are missing or wrong are looked at again for
    ``patience_s`` before that is a refusal; ``shadow`` names an adapter's directory, or a stored
    one by the beginning of its digest."""

    poll_interval_s: float = 5.0
    max_probe_error_rate: float = 0.1
    answer_s: float = 60.0
    patience_s: float = 0.0
    shadow: str | None = None
    shadow_share: float = 0.0


@dataclass(frozen=True, slots=True)
class AdapterFactory:
    """What an adapter is made ready with: the base's tokenizer, the engine, the record formats."""

    encoders: Encoders
    loader: AdapterLoader
    serve: Callable[[Manifest, Engine], ServingAdapter]


class AdapterWatcher:
    """One look at a time; ``start`` has a thread look every ``poll_interval_s``.

    ``store`` is None where one adapter was named and is served to the end. What was refused is
    tried again only when the store's pointer is another.
    """

    def __init__(
        self,
        store: Path | None,
        router: AdapterRouter,
        service: AdapterEvents,
        factory: AdapterFactory,
        policy: WatcherPolicy,
    ) -> None:
        self._store = store
        self._router = router
        self._service = service
        self._factory = factory
        self._policy = policy
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._current: Pointer | None = None
        self._canary: CanaryPointer | None = None
        self._shadow_tried = policy.shadow is None
        self._unreadable: dict[Role, str] = {}
        self._incomplete: dict[Role, tuple[str, float]] = {}

    def start(self) -> None:
        """Begin to look."""
        self._service.when_idle(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking. An engine that is just being started is left to end with the process."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def look(self) -> None:
        """Close who is idle, read the store and bring up what is new. Blocks while it loads."""
        close_idle(self._service)
        # A store that is away for a moment names nothing new, and ends no trial.
        if self._store is not None and self._look_at_current(self._store):
            self._look_at_canary(self._store)
        if not self._shadow_tried:
            self._shadow_tried = True
            self._bring_shadow()

    def _run(self) -> None:
        while not self._ending:
            self._wake.clear()
            try:
                self.look()
            except Exception:  # noqa: BLE001 - the worker labels on; the log says what is wrong here
                _log.exception("adapter.look_failed")
            self._wake.wait(self._policy.poll_interval_s)

    def _look_at_current(self, store: Path) -> bool:
        """Follow the pointer; tell whether there was one to be read."""
        try:
            pointer = read_pointer(store)
        except AdapterRefused as error:
            self._cannot_read("main", error)
            return False
        if self._unreadable.pop("main", None):
            self._service.accepts("main")
        if pointer is None:
            return False
        if pointer != self._current:
            before, self._current = self._current, pointer
            try:
                self._follow_current(store, pointer)
            except _NotYet:
                self._current = before
        return True

    def _follow_current(self, store: Path, pointer: Pointer) -> None:
        self._service.accepts("main")
        latest = self._router.latest
        if pointer.digest == latest.main.digest:
            return
        if latest.canary is not None and _is_good(latest.canary, pointer.digest):
            self._router.schedule(_promote(latest.canary))
            if self._router.latest.main.digest == pointer.digest:
                return
        meant = pointer.event in {"force", "rollback"}
        served = self._bring_up(
            "main", store / pointer.digest, pointer.digest, pointer.name, compare=not meant
        )
        if served is not None:
            self._router.schedule(lambda split: replace(split, main=served))

    def _look_at_canary(self, store: Path) -> None:
        try:
            canary = read_canary(store)
        except AdapterRefused as error:
            self._cannot_read("canary", error)
            return
        if self._unreadable.pop("canary", None):
            self._service.accepts("canary")
        if canary == self._canary:
            return
        before, self._canary = self._canary, canary
        try:
            self._follow_canary(store, canary, before)
        except _NotYet:
            self._canary = before

    def _follow_canary(
        self, store: Path, canary: CanaryPointer | None, before: CanaryPointer | None
    ) -> None:
        self._service.accepts("canary")
        self._service.canary_changed()
        latest = self._router.latest
        if canary is None or canary.digest == latest.main.digest:
            self._router.schedule(lambda split: replace(split, canary=None, canary_share=0.0))
            return
        share = canary.share
        serving = latest.canary
        if serving is not None and serving.digest == canary.digest:
            self._router.schedule(_set_share(serving, share))
            if self._router.latest.canary is serving:
                return
        if before is not None:  # another one is on trial, until this one is ready or refused
            self._router.schedule(lambda split: replace(split, canary=None, canary_share=0.0))
        served = self._bring_up(
            "canary",
            store / canary.digest,
            canary.digest,
            canary.name,
            compare=not canary.forced,
        )
        if served is not None:
            self._router.schedule(lambda split: replace(split, canary=served, canary_share=share))

    def _bring_shadow(self) -> None:
        assert self._policy.shadow is not None
        try:
            directory, digest, name = find_stored(self._store, self._policy.shadow)
        except AdapterRefused as error:
            self._service.refuses("shadow", None, None, "files", str(error))
            return
        try:
            served = self._bring_up("shadow", directory, digest, name, compare=False)
        except _NotYet:
            self._shadow_tried = False
            return
        if served is not None:
            share = self._policy.shadow_share
            self._router.schedule(lambda split: replace(split, shadow=served, shadow_share=share))

    def _bring_up(
        self, role: Role, directory: Path, digest: str, name: str, *, compare: bool
    ) -> ServingAdapter | None:
        """Verify, load and try an adapter; None when it is refused. Blocks. Raises _NotYet."""
        started = time.monotonic()
        self._service.loads(role, name, digest)
        main = self._router.latest.main
        try:
            manifest = verify(directory, digest, main.manifest, self._factory.encoders)
            served = self._load(role, directory, manifest, main if compare else None)
        except Refusal as error:
            if error.reason == "files" and self._may_come(role, digest):
                _log.info("adapter.incomplete", role=role, problem=error.problem)
                raise _NotYet from error
            if not self._ending:  # then the engine was closed under it
                self._service.refuses(role, digest, name, error.reason, error.problem)
            return None
        self._incomplete.pop(role, None)
        self._service.loaded(role, served, time.monotonic() - started)
        return served

    def _load(
        self, role: Role, directory: Path, manifest: Manifest, compared_with: ServingAdapter | None
    ) -> ServingAdapter:
        try:
            engine = self._factory.loader.load(directory, manifest, background=role == "shadow")
        except (AdapterRefused, SettingsError, EngineDied, TimeoutError) as error:
            raise Refusal("engine", str(error) or type(error).__name__) from error
        try:
            served = self._factory.serve(manifest, engine)
            answer_s = self._policy.answer_s
            try:
                engine.warm_up([golden.ids for golden in manifest.golden])
            except EngineDied as error:
                raise Refusal("engine", str(error)) from error
            check_own_probes(served.labeller, engine, answer_s)
            if compared_with is not None:
                compare_on_probes(
                    served.labeller,
                    engine,
                    compared_with.manifest,
                    self._policy.max_probe_error_rate,
                    answer_s,
                )
        except BaseException:
            engine.close()
            raise
        return served

    def _may_come(self, role: Role, digest: str) -> bool:
        """Whether missing files of this adapter are waited for: a while from the first look on."""
        known, since = self._incomplete.get(role, (None, 0.0))
        if known != digest:
            since = time.monotonic()
            self._incomplete[role] = (digest, since)
        return time.monotonic() - since < self._policy.patience_s

    def _cannot_read(self, role: Role, error: AdapterRefused) -> None:
        """Tell of a pointer that cannot be read once, not at every look."""
        if self._unreadable.get(role) != str(error):
            self._unreadable[role] = str(error)
            self._service.refuses(role, None, None, "pointer", str(error))


def close_idle(service: AdapterEvents) -> None:
    """Unload every adapter that has nothing left to do. Blocks."""
    while not service.idle_adapters.empty():
        idle = service.idle_adapters.get()
        idle.engine.close()
        _log.info("adapter.unloaded", adapter=idle.manifest.name, adapter_digest=idle.digest[:12])


def close_all(router: AdapterRouter, service: AdapterEvents) -> None:
    """Unload every adapter, and so end every engine. No record is in flight any more."""
    close_idle(service)
    for one in {*router.latest.members, *router.split.members, *router.retired}:
        one.engine.close()


def _is_good(served: ServingAdapter, digest: str) -> bool:
    """Whether this is the adapter, and its engine alive: the loop may not have noticed yet."""
    try:
        served.engine.check_health()
    except EngineDied:
        return False
    return served.digest == digest


def _promote(canary: ServingAdapter) -> Callable[[TrafficSplit], TrafficSplit]:
    def change(split: TrafficSplit) -> TrafficSplit:
        if split.canary is not canary:  # it was stopped meanwhile
            return split
        return replace(split, main=canary, canary=None, canary_share=0.0)

    return change


def _set_share(canary: ServingAdapter, share: float) -> Callable[[TrafficSplit], TrafficSplit]:
    def change(split: TrafficSplit) -> TrafficSplit:
        return replace(split, canary_share=share) if split.canary is canary else split

    return change
