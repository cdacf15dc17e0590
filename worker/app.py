"""The worker, put together from its settings: the one place where every part is known."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import structlog

from worker import __version__
from worker.core.backpressure import Bounds
from worker.core.batch import Router
from worker.core.events import Listener, Listeners
from worker.core.loop import MAX_BACKOFF_S, Loop, LoopPolicy
from worker.core.pipeline import Pipeline
from worker.core.roster import AdapterRouter
from worker.engine.open import OpenedEngine, begin_to_open
from worker.errors import SettingsError
from worker.lifecycle.canary_watch import CanaryWatch, WatchPolicy
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.watcher import close_all
from worker.observe.observer import Observer, observing
from worker.observe.progress import LogListener
from worker.serving import make_adapter_router, make_watcher, open_model
from worker.settings import KafkaSettings, LoopSettings, Settings
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig, Topics, build_config, check_bounds
from worker.stream.kafka_topics import prepare_topics
from worker.stream.port import Stream

_log = structlog.get_logger("worker.app")


def run_worker(
    settings: Settings, opener: Callable[[Settings], OpenedEngine] | None = None
) -> None:
    """Work until SIGTERM or SIGINT, then drain and return.

    ``opener`` gives a warm engine and its contract: ``open_model``, unless a test has another.

    What fails fast is tried first: the settings, the topics, the adapter; the group is joined
    only when the model is warm. Raises WorkerStopped or AdapterRefused; a second signal raises
    KeyboardInterrupt.
    """
    config = kafka_config(settings.kafka, shadow_topic(settings))
    policy = loop_policy(settings.loop)
    turn_s = longest_turn_s(config, policy)
    check_bounds(config, turn_s)
    if opener is None:
        begin_to_open(settings.model.engine_args)
        opener = partial(open_model, metrics=settings.http.enabled, watch=True)
    with _interruptible() as interrupt, observing(settings, turn_s) as observer:
        config = prepare_topics(config)
        opened = opener(settings)
        roster, service = make_adapter_router(settings, opened, observer.adapters)
        keeper = None
        try:
            keeper = make_watcher(settings, opened, roster, service)
            observer.model_ready(opened, roster, service)
            stream = KafkaStream(config)
            try:
                loop = make_loop(
                    settings,
                    stream,
                    roster,
                    config.topics,
                    policy,
                    observer=observer,
                    service=service,
                )
                observer.runs(loop, stream)
                interrupt.stop_gently(loop)
                _log.info(
                    "worker.ready",
                    version=__version__,
                    input=config.topics.input,
                    group=settings.kafka.group_id,
                    delivery=config.delivery,
                    adapter=opened.manifest.name,
                    adapter_digest=opened.manifest.digest[:12],
                    serving=opened.serving,
                )
                if keeper is not None:
                    keeper.start()
                loop.run()
                observer.closing()
                _log.info("worker.drained")
            except BaseException as error:
                observer.closing(error)
                raise
            finally:
                stream.close()
        finally:
            if keeper is not None:
                keeper.close()
            close_all(roster, service)


def make_loop(
    settings: Settings,
    stream: Stream,
    roster: AdapterRouter,
    topics: Topics,
    policy: LoopPolicy,
    *,
    observer: Observer | None = None,
    service: AdapterEvents | None = None,
) -> Loop:
    """Wire a loop to a stream and adapters; the real clock is all that is taken for granted."""
    listeners: list[Listener] = [LogListener(settings.log.progress_interval_s, time.monotonic)]
    if observer is not None:
        listeners += observer.listeners
    if service is not None:
        adapters = settings.adapters
        watch = WatchPolicy(adapters.canary_min_messages, adapters.canary_false_stops)
        listeners.append(CanaryWatch(roster, service, watch))
    pipeline = Pipeline(
        roster,
        deadline_s=settings.loop.deadline_s,
        max_attempts=settings.loop.max_attempts,
        clock=time.monotonic,
        max_shadows=settings.adapters.shadow_max_in_flight,
    )
    router = Router(
        output_topic=topics.output,
        review_topic=topics.review,
        shadow_topic=topics.shadow,
        carry=observer.carry if observer else None,
    )
    return Loop(
        stream,
        pipeline=pipeline,
        router=router,
        listener=Listeners(*listeners),
        policy=policy,
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        wait=time.sleep,
    )


def loop_policy(loop: LoopSettings) -> LoopPolicy:
    """Return the loop's policy as the settings have it."""
    return LoopPolicy(
        bounds=Bounds(loop.max_in_flight, loop.max_in_flight_bytes, loop.resume_ratio),
        publish_interval_s=loop.publish_interval_s,
        publish_max_records=loop.publish_max_records,
        publish_attempts=loop.publish_attempts,
        publish_backoff_s=loop.publish_backoff_s,
        revoke_drain_s=loop.revoke_drain_s,
        drain_s=loop.drain_s,
    )


def longest_turn_s(config: KafkaConfig, policy: LoopPolicy) -> float:
    """Longest time between two polls: settle, publish, the longest backoff, or a revoke."""
    publish = 3 * config.publish_timeout_s
    return publish + max(MAX_BACKOFF_S, policy.revoke_drain_s + publish)


def kafka_config(kafka: KafkaSettings, shadow_topic: str | None = None) -> KafkaConfig:
    """Return what the Kafka edge needs. Raises SettingsError."""
    topics = Topics(
        kafka.input_topic,
        kafka.output_topic,
        kafka.review_topic or None,
        kafka.dead_letter_topic,
        shadow_topic,
    )
    if topics.shadow and topics.shadow in (topics.output, topics.review, topics.dead_letter):
        raise SettingsError(f"{topics.shadow!r} is for real results: a shadow needs its own topic")
    if topics.dead_letter in (topics.output, topics.review):
        raise SettingsError(f"{topics.dead_letter!r} is for labels: dead letters need their own")
    if topics.input in topics.sinks:
        raise SettingsError(f"{topics.input!r} is read and written: the worker would feed itself")
    return build_config(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group_id,
        transactional_id=transactional_id(kafka),
        topics=topics,
        delivery=kafka.delivery,
        security=_security(kafka),
        client=kafka.client,
        consumer=kafka.consumer,
        producer=kafka.producer,
        create_topics=kafka.create_topics,
        topic_partitions=kafka.topic_partitions,
        topic_replication_factor=kafka.topic_replication_factor,
        publish_timeout_s=kafka.publish_timeout_s,
        start_timeout_s=kafka.start_timeout_s,
    )


def shadow_topic(settings: Settings) -> str | None:
    """Return where a shadow's labels go, None where there is no shadow."""
    return settings.adapters.shadow_topic if settings.adapters.shadow else None


def transactional_id(kafka: KafkaSettings) -> str:
    """Name the producer: stable where the platform gives a stable name, else one a process.

    A stable name lets a restarted worker end its dead self's transaction at once. Two processes
    under one name fence each other, so nothing is guessed from the host's name.
    """
    if kafka.transactional_id:
        return kafka.transactional_id
    if kafka.instance_id:
        return f"{kafka.group_id}.{kafka.instance_id}"
    return f"{kafka.group_id}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def _security(kafka: KafkaSettings) -> dict[str, str]:
    given = {
        "security.protocol": kafka.security_protocol,
        "ssl.ca.location": kafka.ssl_ca_location,
        "ssl.certificate.location": kafka.ssl_certificate_location,
        "ssl.key.location": kafka.ssl_key_location,
        "ssl.key.password": kafka.ssl_key_password and kafka.ssl_key_password.get_secret_value(),
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password and kafka.sasl_password.get_secret_value(),
    }
    return {name: value for name, value in given.items() if value}


class _Interrupt:
    """The first signal stops gently once there is a loop to stop; any other stops at once."""

    def __init__(self) -> None:
        self._loop: Loop | None = None

    def stop_gently(self, loop: Loop) -> None:
        """From now on the first signal drains this loop."""
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
    before = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interrupt
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
