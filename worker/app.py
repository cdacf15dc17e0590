"""Assemble the worker from its settings and run it: the only module that knows every part."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import structlog

from worker import __version__
from worker.common.bucket import url_of
from worker.common.process import start_up_frozen
from worker.common.schema_registry import SchemaRegistry
from worker.config_check import Problem, adapter_problems, refuse, settings_problems
from worker.core.arms import AdapterRouter
from worker.core.events import Listener, send_to_all
from worker.core.loop import Loop
from worker.core.pipeline import Pipeline
from worker.core.publisher import LoopPolicy, TopicRouter
from worker.core.schema_waits import SchemaWaits
from worker.engine.open import OpenedEngine
from worker.lifecycle.arm_controller import Restart
from worker.lifecycle.canary_judge import CanaryJudge
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.watcher import close_all
from worker.observe.observer import Observer
from worker.observe.progress import LogListener
from worker.policies import (
    admission_policy,
    isolation_policy,
    kafka_config,
    loop_policy,
    max_iteration_s,
    retry_policy,
    shadow_topic,
)
from worker.serving import (
    Opener,
    begin_store,
    begin_to_open_model,
    make_adapter_router,
    make_watcher,
    open_model,
    previous_adapter,
)
from worker.settings import Settings
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_topics import prepare_topics
from worker.stream.output_schemas import make_serializers
from worker.stream.port import Stream
from worker.stream.topics import Topics

# The most records in flight for a shadow: an eighth of a full engine, so that customers' records
# are hardly slower. Further ones are skipped and counted.
_MAX_SHADOWS = 32

_log = structlog.get_logger("worker.app")


def run_worker(settings: Settings, opener: Opener | None = None) -> None:
    """Work until SIGTERM or SIGINT, then drain and return.

    ``opener`` returns a warm engine; None means ``open_model``. Checks that fail fast come first:
    settings, topics, adapter. The worker joins the group only when the model is warm, so that it
    never holds partitions without labelling. Raises WorkerStopped or AdapterRefused; a second
    signal raises KeyboardInterrupt.
    """
    in_bucket = settings.model.adapter is not None and url_of(settings.model.adapter) is not None
    _check(settings, with_adapter=opener is None and not in_bucket)
    config = kafka_config(settings.kafka, shadow_topic(settings))
    policy = loop_policy(settings)
    iteration_s = max_iteration_s(config, policy)
    if opener is None:
        begin_to_open_model(settings)
        opener = partial(open_model, metrics=True, watch=True)
    with ExitStack() as stack:  # closes in reverse order
        interrupt = stack.enter_context(_interruptible())
        observer = stack.enter_context(closing(Observer(settings, iteration_s)))
        if (mirror := begin_store(settings)) is not None:  # probes answer while it waits
            _check(settings, with_adapter=True)
        config = prepare_topics(config, rights=True)
        serializers = make_serializers(config)
        opened = opener(settings)
        router, adapter_events = make_adapter_router(settings, opened, observer.adapters)
        stack.callback(close_all, router, adapter_events)
        restart = Restart(enabled=settings.adapters.when_too_large == "restart")
        watcher = make_watcher(settings, opened, router, adapter_events, restart, mirror)
        if watcher is not None:
            stack.callback(watcher.close)
        observer.model_ready(opened, router, adapter_events)
        stream = KafkaStream(config)
        stack.callback(stream.close)
        # Registered last, so it runs first: probes report the end while everything closes.
        stack.push(lambda _, error, __: observer.closing(error))
        loop = make_loop(
            settings,
            stream,
            router,
            config.topics,
            policy,
            registry=config.registry,
            serializers=serializers,
            observer=observer,
            adapter_events=adapter_events,
        )
        observer.runs(loop, stream, config.retention_s)
        restart.drain = loop.stop
        interrupt.stop_gently(loop)
        _log_ready(settings, config, opened)
        if watcher is not None:
            watcher.start()
        with start_up_frozen():
            loop.run()
        _log.info("worker.drained")
        restart.check()


def _check(settings: Settings, *, with_adapter: bool) -> None:
    """Raise SettingsError or AdapterRefused for everything that shows without Kafka or a model."""
    problems: list[Problem] = [*settings_problems(settings)]
    if with_adapter:
        wrong = adapter_problems(settings, digests=False)  # open_model compares them later
        # A bad current adapter alone is not fatal if open_model can serve the previous one.
        if problems or (wrong and previous_adapter(settings) is None):
            problems += wrong
    refuse(problems)


def _log_ready(settings: Settings, config: KafkaConfig, opened: OpenedEngine) -> None:
    _log.info(
        "worker.ready",
        version=__version__,
        input=", ".join(config.topics.inputs),
        group=settings.kafka.group_id,
        delivery=config.delivery,
        adapter=opened.manifest.name,
        adapter_digest=opened.manifest.digest[:12],
        serving=opened.serving,
    )


def make_loop(
    settings: Settings,
    stream: Stream,
    router: AdapterRouter,
    topics: Topics,
    policy: LoopPolicy,
    *,
    registry: SchemaRegistry | None = None,
    serializers: Mapping[str, Callable[[bytes], bytes]] | None = None,
    observer: Observer | None = None,
    adapter_events: AdapterEvents | None = None,
) -> Loop:
    """Connect a loop to a stream and adapters, with the real clock."""
    listeners: list[Listener] = [LogListener(time.monotonic)]
    if observer is not None:
        listeners += observer.listeners
    if adapter_events is not None:
        listeners.append(CanaryJudge(router, adapter_events))
    retry, schemas = retry_policy(settings), None
    if registry is not None:
        schemas = SchemaWaits(registry, settings.kafka.registry_wait_s, time.monotonic)
    pipeline = Pipeline(
        router,
        admission=admission_policy(settings),
        clock=time.monotonic,
        max_shadows=_MAX_SHADOWS,
        retry=retry,
        rest_share=policy.urgency.rest_share,
        schemas=schemas,
    )
    topic_router = TopicRouter(
        output_topic=topics.output,
        review_topic=topics.review,
        shadow_topic=topics.shadow,
        propagate_headers=observer.propagate_headers if observer else None,
        retry=retry,
        serializers=serializers or {},
    )
    return Loop(
        stream,
        pipeline=pipeline,
        topic_router=topic_router,
        listener=send_to_all(listeners),
        policy=policy,
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        wait=time.sleep,
        isolation=isolation_policy(settings),
        retry_topic=topics.retry,
    )


class _Interrupt:
    """The first signal drains the loop, if it runs; any other interrupts at once."""

    def __init__(self) -> None:
        self._loop: Loop | None = None

    def stop_gently(self, loop: Loop) -> None:
        """Let the next signal drain this loop."""
        self._loop = loop

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        loop, self._loop = self._loop, None
        if loop is None:
            raise KeyboardInterrupt
        _log.info("worker.stopping", signal=signal.Signals(number).name)
        loop.stop()


@contextmanager
def _interruptible() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
