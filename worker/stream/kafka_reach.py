"""Finding the cluster at start-up: within a bound, or with what keeps us from it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from worker.common.kafka import require_token
from worker.errors import StreamFailed
from worker.stream.connection_hints import explain, is_refusal
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_types import client_log

# A login or a certificate that is refused is given so long: one broker of several may be at fault
# alone, and a user that was just made needs a moment to be known to all.
_REFUSED_S = 5.0


def reach(config: KafkaConfig) -> tuple[AdminClient, Iterable[str]]:
    """Return a client that has reached the cluster, and the topics that it may see.

    Raises StreamFailed in one line: where, what is wrong, how to mend it. What passes by itself is
    waited for as long as the settings say, a refusal for 5 s.
    """
    errors: list[KafkaError] = []
    require_token(config.common, StreamFailed)
    admin = AdminClient(
        # Its log would repeat, a line for each attempt, what the error below says once.
        {"log_level": 2, **config.common},
        error_cb=errors.append,
        logger=client_log,
    )
    begin = time.monotonic()
    attempt_s = _REFUSED_S
    while True:
        left_s = begin + config.start_timeout_s - time.monotonic()
        try:
            return admin, admin.list_topics(timeout=max(0.1, min(attempt_s, left_s))).topics
        except KafkaException as error:
            admin.poll(0)
            last: KafkaError = error.args[0]
        waited_s = time.monotonic() - begin
        refusal = next((each for each in reversed(errors) if _refuses(each)), None)
        if (refusal and waited_s >= min(_REFUSED_S, config.start_timeout_s)) or (
            waited_s >= config.start_timeout_s - 0.1
        ):
            raise _unreached(config, refusal or _telling(errors) or last, waited_s)
        # Also ends at once, without having waited, when every broker hangs up.
        time.sleep(0.2)
        attempt_s = max(attempt_s, waited_s)  # a large cluster may take longer to answer


def _refuses(error: KafkaError) -> bool:
    return is_refusal(error.name(), error.str())


def _telling(errors: list[KafkaError]) -> KafkaError | None:
    """Return the last error that says more than that there is nobody left to ask."""
    general = KafkaError._ALL_BROKERS_DOWN
    return next((each for each in reversed(errors) if each.code() != general), None) or (
        errors[-1] if errors else None
    )


def _unreached(config: KafkaConfig, error: KafkaError, waited_s: float) -> StreamFailed:
    said = " ".join(error.str().split())
    where = config.bootstrap_servers
    hint = explain(error.name(), said, where, config.common)
    return StreamFailed(
        f"no access to Kafka at {where} within {waited_s:.0f} s: {hint} ({error.name()}: {said})"
    )
