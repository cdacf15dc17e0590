"""Open the configured adapters, bind them to the record formats, and follow their store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog

from worker import __version__
from worker.common.bucket import url_of
from worker.common.cache import cache_folder
from worker.common.errors import describe_private
from worker.common.mirror import StoreMirror, bring_store
from worker.common.signatures import BadKey, check_signature, read_public_key
from worker.contract import AdapterRefused, Encoders, read_manifest
from worker.contract.manifest import MANIFEST_NAME, Manifest, stage_directory
from worker.contract.records import InputFormat
from worker.contract.scoring import Thresholds
from worker.contract.store import Found, find_adapter, read_pointer
from worker.core.arms import MAIN, SHADOW, AdapterRouter, TrafficSplit
from worker.core.labeller import Labeller, ServingAdapter
from worker.engine.open import KindLoader, OpenedEngine, open_engine
from worker.engine.port import Declined, Engine
from worker.engine.vllm_config import begin_to_import, vllm_is_installed
from worker.errors import SettingsError
from worker.lifecycle.arm_controller import (
    ArmController,
    ArmSource,
    Restart,
    adapter_before,
    canary_adapter,
    current_adapter,
    named_adapter,
)
from worker.lifecycle.events import AdapterEvent, AdapterEvents, Refusal
from worker.lifecycle.preflight import AdapterFactory, check_own_probes, compare_on_probes
from worker.lifecycle.watcher import AdapterWatcher
from worker.policies import admission_policy
from worker.records.encode import DeadLetterEncoder, OutputEncoder
from worker.settings import AdapterSettings, RecordSettings, ReviewSettings, Settings

Opener = Callable[[Settings], OpenedEngine]
"""Returns a warm engine: ``open_model``, or another way in tests."""

# On a network file system a directory may become visible this much later than its pointer.
_PATIENCE_S = 60.0

_log = structlog.get_logger("worker.adapters")


def make_adapter_router(
    settings: Settings, opened: OpenedEngine, count: Callable[[AdapterEvent], None]
) -> tuple[AdapterRouter, AdapterEvents]:
    """Return a router that sends all records to the opened adapter, and the events that log and
    ``count`` its changes."""
    adapter_events = AdapterEvents(count, lambda: datetime.now(UTC))
    adapter = make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine)
    router = AdapterRouter(TrafficSplit.all_to(adapter), adapter_events)
    adapter_events.started(router.split)
    return router, adapter_events


def make_watcher(
    settings: Settings,
    opened: OpenedEngine,
    router: AdapterRouter,
    adapter_events: AdapterEvents,
    restart: Restart | None = None,
    mirror: StoreMirror | None = None,
) -> AdapterWatcher | None:
    """Return a watcher of the adapters of all arms, which keeps ``mirror`` up to date; None if
    there is nothing to watch."""
    sources = arm_sources(settings)
    if opened.loader is None or opened.files is None or not sources:
        return None
    factory = AdapterFactory(
        opened.files,
        opened.loader,
        partial(make_serving_adapter, settings),
        answer_s=settings.loop.deadline_s,
        check_origin=partial(check_origin, settings.adapters),
    )
    controller = ArmController(
        router,
        adapter_events,
        factory,
        patience_s=_PATIENCE_S if mirror is None else 0.0,  # its pointers come last
        restart=restart,
        declined=opened.declined,
    )
    return AdapterWatcher(sources, controller, adapter_events, mirror=mirror)


def arm_sources(settings: Settings) -> list[ArmSource]:
    """Return the sources of current adapter, canary and shadow, as configured. Raises
    AdapterRefused."""
    adapters, store = settings.adapters, watched_store(settings)
    sources = [] if store is None else [current_adapter(store), canary_adapter(store)]
    if adapters.shadow is not None:
        sources.append(named_adapter(SHADOW, store, adapters.shadow, adapters.shadow_traffic_ratio))
    return sources


def watched_store(settings: Settings) -> Path | None:
    """Return the store to follow; None if model.adapter is a single adapter, or watching is off.
    Raises AdapterRefused."""
    adapter = settings.model.adapter
    # A directory with a manifest is an adapter, even if it is inside of a store: it stays fixed.
    if adapter is None or not settings.adapters.watch or (adapter / MANIFEST_NAME).exists():
        return None
    return adapter if read_pointer(adapter) is not None else None


def make_serving_adapter(
    settings: Settings, encoders: Encoders, manifest: Manifest, engine: Engine
) -> ServingAdapter:
    """Bind an adapter to its engine, the record formats and the review thresholds."""
    return ServingAdapter(
        labeller=Labeller(
            manifest=manifest,
            encode_plain=encoders.plain,
            thresholds=override_thresholds(settings.review, manifest.thresholds),
            layout=record_layout(settings.records),
            tombstones=settings.records.tombstones,
            stages=tuple(
                override_thresholds(settings.review, stage.thresholds) for stage in manifest.stages
            ),
        ),
        engine=engine,
        outputs=OutputEncoder(manifest, __version__, engine.precisions),
        dead_letters=DeadLetterEncoder(
            settings.kafka.dead_letter_topic, __version__, manifest.digest
        ),
    )


def begin_to_open_model(settings: Settings) -> None:
    """Start importing vLLM in another process, if the adapter will need it, while this one checks
    settings and topics; return at once. Problems with it are reported when it is opened."""
    model = settings.model
    if model.adapter is None:
        return
    with suppress(AdapterRefused):
        manifest = read_manifest(find_adapter(model.adapter).directory)
        if "vllm" in KindLoader.engines_of(manifest) and vllm_is_installed():
            begin_to_import(model.engine_args)


def require_adapter(settings: Settings) -> Path:
    """Return model.adapter; a bucket's store is brought to its copy first. Raises SettingsError if
    it is not set, and AdapterRefused if the bucket does not answer."""
    if settings.model.adapter is None:
        raise SettingsError(
            "model.adapter is not set: name the directory of a published adapter or of a store, "
            "and with model.base that of its base model (or try: clerk-worker demo)"
        )
    bring_store(settings.model.adapter)
    return settings.model.adapter


def check_origin(adapters: AdapterSettings, directory: Path) -> None:
    """Check an adapter's signature, if one is required. Raises AdapterRefused, SettingsError."""
    if not adapters.require_signature:
        return
    try:
        keys = [read_public_key(path) for path in adapters.public_keys]
    except BadKey as error:
        raise SettingsError(f"adapters.public_keys: {error}") from error
    digest = read_manifest(directory).digest
    statement = check_signature(directory, digest, keys)
    _log.info(
        "adapter.signed",
        adapter_digest=digest[:12],
        by=statement.get("by"),
        gate=statement.get("gate"),
        dataset=statement.get("dataset"),
        code=statement.get("code"),
    )


def begin_store(settings: Settings) -> StoreMirror | None:
    """Bring the copy of a store in a bucket up to date, if model.adapter is one; wait for the
    bucket if the copy is too old. Raises AdapterRefused without the bucket's client."""
    adapter, adapters = settings.model.adapter, settings.adapters
    if adapter is None or url_of(adapter) is None:
        return None
    mirror = StoreMirror(adapter, adapters.cache_gb * 1e9)
    mirror.begin(adapters.start_from_cache_s)
    # A start from the copy must not fail for it; a shadow that is not there is refused and logged.
    if adapters.shadow and mirror.away_since is None:
        mirror.bring(adapters.shadow)
    return mirror


def previous_adapter(settings: Settings) -> Path | None:
    """Return the store's previous adapter, the fallback at start; None if there is none or the
    store is not followed."""
    try:
        store = watched_store(settings)
        pointer = read_pointer(store) if store is not None else None
    except AdapterRefused:
        return None
    if store is None or pointer is None or pointer.previous is None:
        return None
    return store / pointer.previous


def open_model(settings: Settings, *, metrics: bool = False, watch: bool = False) -> OpenedEngine:
    """Verify the adapter, start the engine, warm it up and try it on its probes.

    ``metrics``: the engine records its own metrics, unless ``model.engine_args`` override it.
    ``watch``: it can load later adapters of the store. The current adapter is then checked as by a
    running worker: it is compared with the previous one, and if it cannot be served, the previous
    one is served instead (``OpenedEngine.declined``). Raises SettingsError, AdapterRefused,
    EngineDied.
    """
    adapter = require_adapter(settings)
    try:
        return _open(settings, find_adapter(adapter), metrics=metrics, watch=watch)
    except Exception as error:  # running workers decline the adapter for any error, too
        # A worker that is running would keep its adapter and decline this one. If a starting worker
        # refused to start instead, each drained node would cost a worker.
        previous = previous_adapter(settings) if watch else None
        pointer = read_pointer(adapter) if previous is not None else None
        if previous is None or pointer is None:
            raise
        declined = Declined(pointer.digest, describe_private(error))
        _log_declined(declined, "the adapter before it is tried")
        before = _open_before(settings, previous, metrics=metrics)
        if before is None:
            raise
        return replace(before, declined=declined)


def _open_before(settings: Settings, directory: Path, *, metrics: bool) -> OpenedEngine | None:
    """Open the previous adapter; None if it cannot be served either."""
    try:
        return _open(settings, Found(directory, None), metrics=metrics, watch=True)
    except Exception as error:  # noqa: BLE001 - the caller raises the current adapter's error
        _log_declined(Declined(directory.name, describe_private(error)), "the worker ends")
        return None


def _log_declined(declined: Declined, effect: str) -> None:
    _log.error(
        "adapter.declined_at_start",
        adapter_digest=declined.digest[:12],
        problem=declined.problem,
        effect=effect,
    )


def _open(settings: Settings, found: Found, *, metrics: bool, watch: bool) -> OpenedEngine:
    model = settings.model
    if found.pointer is not None:
        _log.info(
            "adapter.current",
            store=str(settings.model.adapter),
            adapter=found.pointer.name,
            adapter_digest=found.pointer.digest[:12],
            since=found.pointer.since,
        )
    check_origin(settings.adapters, found.directory)
    started = time.monotonic()
    sources = arm_sources(settings) if watch else []
    opened = open_engine(
        base=model.base,
        bases=model.bases,
        adapter=found.directory,
        serving=model.serving,
        cache_dir=cache_folder() / "merged",
        engine_args={"disable_log_stats": not metrics, **model.engine_args},
        encoder_precision=model.encoder_precision,
        encoder_threads=model.encoder_threads,
        policy=admission_policy(settings),
        max_adapters=_max_adapters(sources),
        others=_named_now(sources),
        priorities=any(not source.role.labels for source in sources),
    )
    try:
        opened.engine.warm_up([golden.ids for golden in opened.manifest.golden])
        tried = _try(settings, opened, found, watch=watch)
    except BaseException:
        opened.engine.close()
        raise
    _log.info(
        "engine.ready",
        seconds=round(time.monotonic() - started, 1),
        serving=opened.serving,
        precision="+".join(opened.engine.precisions),
        kind=opened.manifest.kind,
        decoding=opened.manifest.answers_with,
        probes=tried,
    )
    return opened


def _try(settings: Settings, opened: OpenedEngine, found: Found, *, watch: bool) -> int:
    """Try the adapter on its own probes, and with ``watch`` on those of the previous one. Return
    the number of its own. Raises AdapterRefused."""
    try:
        tried = check_own_probes(
            make_labeller(settings, opened), opened.engine, settings.loop.deadline_s
        )
        if watch:
            _compare_with_before(settings, opened, found)
    except Refusal as error:
        raise AdapterRefused(found.directory, error.problem) from error
    return tried


def _compare_with_before(settings: Settings, opened: OpenedEngine, found: Found) -> None:
    """Compare the current adapter with the previous one, as running workers do. Raises Refusal."""
    store, pointer = settings.model.adapter, found.pointer
    if store is None or pointer is None:
        return
    try:
        before = adapter_before(store, pointer)
    except AdapterRefused as error:  # it may have been deleted: there is nothing to compare with
        _log.warning("adapter.not_compared", why=error.problem, before=pointer.previous)
        return
    if before is not None:
        compare_on_probes(
            make_labeller(settings, opened),
            opened.engine,
            before,
            settings.loop.deadline_s,
        )


def make_labeller(settings: Settings, opened: OpenedEngine) -> Labeller:
    """Return the labeller of the opened adapter."""
    return make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine).labeller


def record_layout(records: RecordSettings) -> InputFormat:
    """Return the layout of input records."""
    return InputFormat(records.format, records.text_fields, records.id_field)


def _max_adapters(sources: Sequence[ArmSource]) -> int:
    """Return the most adapters loaded at a time: one for each arm, and one during a change. A
    cascade counts as one."""
    roles = {MAIN, *(source.role for source in sources)}
    return len(roles) + any(not source.fixed for source in sources)


def _named_now(sources: Sequence[ArmSource]) -> list[Manifest]:
    """Return the manifests of the arms' adapters and of their stages. Unreadable ones are left out:
    they are refused and logged when they are loaded."""
    found = []
    for source in sources:
        with suppress(AdapterRefused):
            target = source.read()
            if target is not None:
                manifest = read_manifest(target.directory)
                found.append(manifest)
                places = (stage_directory(target.directory, stage) for stage in manifest.stages)
                found.extend(map(read_manifest, places))
    return found


def override_thresholds(review: ReviewSettings, found: Thresholds) -> Thresholds:
    """Return thresholds, overridden by the settings."""
    given = {f"review_{name}": value for name, value in review if value is not None}
    return replace(found, **given)
