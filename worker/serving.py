"""From the settings to adapters in service: opened, bound to the record formats, followed."""

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
from worker.cache import cache_folder
from worker.common.errors import describe_private
from worker.contract import AdapterRefused, Encoders, read_manifest
from worker.contract.manifest import MANIFEST_NAME, Manifest, stage_directory
from worker.contract.records import InputFormat
from worker.contract.scoring import Thresholds
from worker.contract.store import Found, find_adapter, read_pointer
from worker.core.arms import MAIN, SHADOW, AdapterRouter, TrafficSplit
from worker.core.labeller import Labeller, ServingAdapter
from worker.engine.open import OpenedEngine, begin_to_open, open_engine
from worker.engine.port import Declined, Engine
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
from worker.settings import RecordSettings, ReviewSettings, Settings

_PATIENCE_S = 60.0
"""On a network file system a directory may be seen so much later than the pointer to it."""

_log = structlog.get_logger("worker.adapters")


def make_adapter_router(
    settings: Settings, opened: OpenedEngine, count: Callable[[AdapterEvent], None]
) -> tuple[AdapterRouter, AdapterEvents]:
    """Have the adapter that was opened serve alone; return also what logs and counts changes."""
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
) -> AdapterWatcher | None:
    """Return what follows the sources of all arms; None where there is nothing to follow."""
    sources = arm_sources(settings)
    if opened.loader is None or not sources:
        return None
    factory = AdapterFactory(
        opened.model_files,
        opened.loader,
        partial(make_serving_adapter, settings),
        answer_s=settings.loop.deadline_s,
    )
    controller = ArmController(
        router,
        adapter_events,
        factory,
        patience_s=_PATIENCE_S,
        restart=restart,
        declined=opened.declined,
    )
    return AdapterWatcher(sources, controller, adapter_events)


def arm_sources(settings: Settings) -> list[ArmSource]:
    """Return what names the adapters of the arms, next to the one that the worker starts with.

    Raises AdapterRefused.
    """
    adapters, store = settings.adapters, watched_store(settings)
    sources = [] if store is None else [current_adapter(store), canary_adapter(store)]
    if adapters.shadow is not None:
        sources.append(named_adapter(SHADOW, store, adapters.shadow, adapters.shadow_traffic_ratio))
    return sources


def watched_store(settings: Settings) -> Path | None:
    """Return the store that is followed; None where one adapter is named, or none to be followed.

    Raises AdapterRefused.
    """
    adapter = settings.model.adapter
    if adapter is None or not settings.adapters.watch or (adapter / MANIFEST_NAME).exists():
        return None
    return adapter if read_pointer(adapter) is not None else None


def make_serving_adapter(
    settings: Settings, encoders: Encoders, manifest: Manifest, engine: Engine
) -> ServingAdapter:
    """Bind an adapter to its engine and to the record formats and review thresholds in force."""
    return ServingAdapter(
        labeller=Labeller(
            manifest=manifest,
            encode_plain=encoders.plain,
            thresholds=review_thresholds(settings.review, manifest),
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
    """Begin what the engine will need and what needs nothing else; returns at once.

    What is wrong with the adapter is told when it is opened.
    """
    if settings.model.adapter is None:
        return
    with suppress(AdapterRefused):
        begin_to_open(find_adapter(settings.model.adapter).directory, settings.model.engine_args)


def require_adapter(settings: Settings) -> Path:
    """Return what the settings name as adapter or store. Raises SettingsError where nothing is."""
    if settings.model.adapter is None:
        raise SettingsError(
            "model.adapter must name the directory of a published adapter or of a store, and "
            "model.base that of its base model, where it needs one (or try: clerk-worker demo)"
        )
    return settings.model.adapter


def previous_adapter(settings: Settings) -> Path | None:
    """Return the store's adapter before the current one, on which a start falls back; None where
    the store has none or is not followed."""
    try:
        store = watched_store(settings)
        pointer = read_pointer(store) if store is not None else None
    except AdapterRefused:
        return None
    if store is None or pointer is None or pointer.previous is None:
        return None
    return store / pointer.previous


def open_model(settings: Settings, *, metrics: bool = False, watch: bool = False) -> OpenedEngine:
    """Verify the adapter, start the engine, warm it up and try it on its own probes.

    With ``metrics`` the engine keeps its own, unless ``model.engine_args`` say otherwise. With
    ``watch`` it can load what the store names later, and the store's current adapter is held to
    what running workers hold it to: it is compared with the one before it, and where it cannot be
    served that one is, as running workers go on with it (``OpenedEngine.declined``). Raises
    SettingsError, AdapterRefused, EngineDied.
    """
    adapter = require_adapter(settings)
    try:
        return _open(settings, find_adapter(adapter), metrics=metrics, watch=watch)
    except Exception as error:  # whatever it is: running workers decline the adapter for it
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
    """Open the adapter that was current before; None where it cannot be served either."""
    try:
        return _open(settings, Found(directory, None), metrics=metrics, watch=True)
    except Exception as error:  # noqa: BLE001 - the current adapter's own problem is raised
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
    """Have the adapter classify its own probes, and those of the one before it; return the number
    of the former. Raises AdapterRefused."""
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
    """Hold the current adapter to what running workers hold it to. Raises Refusal."""
    store, pointer = settings.model.adapter, found.pointer
    if store is None or pointer is None:
        return
    try:
        before = adapter_before(store, pointer)
    except AdapterRefused as error:  # it may have been deleted since: nothing to compare with
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
    """Bind the adapter's contract to the record format and the review thresholds in force."""
    return make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine).labeller


def record_layout(records: RecordSettings) -> InputFormat:
    """Return how the value of a record is read."""
    return InputFormat(records.format, records.text_fields, records.id_field)


def _max_adapters(sources: Sequence[ArmSource]) -> int:
    """How many adapters are loaded at a time: one an arm, and one that comes or goes. A cascade is
    one."""
    roles = {MAIN, *(source.role for source in sources)}
    return len(roles) + any(not source.fixed for source in sources)


def _named_now(sources: Sequence[ArmSource]) -> list[Manifest]:
    """Return the contracts of what the arms are about to be served by, and of a cascade's stages.
    One that cannot be read is left out: it is refused, and told, when it is brought up."""
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


def review_thresholds(review: ReviewSettings, manifest: Manifest) -> Thresholds:
    """Return the manifest's thresholds, with those that the settings override."""
    return override_thresholds(review, manifest.thresholds)


def override_thresholds(review: ReviewSettings, found: Thresholds) -> Thresholds:
    """Return thresholds with those that the settings override."""
    if review.confidence is not None:
        found = replace(found, review_confidence=review.confidence)
    if review.off_label_mass is not None:
        found = replace(found, review_off_label_mass=review.off_label_mass)
    if review.out_of_scope is not None:
        found = replace(found, review_out_of_scope=review.out_of_scope)
    if review.disagreement is not None:
        found = replace(found, review_disagreement=review.disagreement)
    return found
