"""A broker inside the test's process: librdkafka's own mock cluster, through its C interface.

Clients talk to it over TCP in Kafka's protocol. It knows topics, producing, fetching, offsets,
groups and transactions, and rejects the rest (creating topics, reading configurations, describing
groups). It fails on demand. It does not keep the times of records, so no offset is found by time,
nor the offsets that a transaction commits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import cimpl

_PRODUCER, _SIZE = 0, 512

# Keys of requests in Kafka's protocol.
PRODUCE, FETCH, LIST_OFFSETS, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 8, 9, 10
HEARTBEAT = 12
INIT_PRODUCER_ID = 22


class MockKafka:
    """One broker on a free loopback port; made by ``mock_kafka``."""

    def __init__(self) -> None:
        self._library = _library()
        error = ctypes.create_string_buffer(_SIZE)
        conf = self._library.rd_kafka_conf_new()
        for name, value in ((b"log_level", b"0"), (b"test.mock.num.brokers", b"1")):
            assert self._library.rd_kafka_conf_set(conf, name, value, error, _SIZE) == 0
        self._client = self._library.rd_kafka_new(_PRODUCER, conf, error, _SIZE)
        assert self._client, error.value
        self._cluster = self._library.rd_kafka_handle_mock_cluster(self._client)
        # Without a controller, clients would search for one in vain.
        assert self._library.rd_kafka_mock_set_controller_id(self._cluster, 1) == 0
        # It waits for members of the classic group as long as a cluster does, 3 s.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 10)
        self.servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic. A topic that a client asks for is also created, with four partitions."""
        self._succeed("topic_create", name.encode(), ctypes.c_int(partitions), ctypes.c_int(1))

    def fail_topic(self, name: str, error: int) -> None:
        """Answer every request about a topic with this error (a code of KafkaError)."""
        self._library.rd_kafka_mock_topic_set_error(
            ctypes.c_void_p(self._cluster), name.encode(), ctypes.c_int(error)
        )

    def fail_next(self, request: int, *errors: int) -> None:
        """Answer the next requests of this kind with these errors, one each."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            ctypes.c_void_p(self._cluster), ctypes.c_int16(request),
            ctypes.c_size_t(len(errors)), codes,
        )  # fmt: skip

    def go_away(self) -> None:
        """Close all connections and stop listening."""
        self._succeed("broker_set_down", ctypes.c_int32(1))

    def close(self) -> None:
        self._library.rd_kafka_destroy(ctypes.c_void_p(self._client))

    def _succeed(self, name: str, *arguments: Any) -> None:
        call = getattr(self._library, f"rd_kafka_mock_{name}")
        assert call(ctypes.c_void_p(self._cluster), *arguments) == 0


@contextmanager
def mock_kafka() -> Iterator[MockKafka]:
    broker = MockKafka()
    try:
        yield broker
    finally:
        broker.close()


def _library() -> Any:
    """The librdkafka that the Python client is linked with."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("conf_new", pointer, []),
        ("conf_set", ctypes.c_int, [pointer, *[ctypes.c_char_p] * 3, ctypes.c_size_t]),
        ("new", pointer, [ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_size_t]),
        ("handle_mock_cluster", pointer, [pointer]),
        ("mock_cluster_bootstraps", ctypes.c_char_p, [pointer]),
        ("mock_set_controller_id", ctypes.c_int, [pointer, ctypes.c_int32]),
        ("mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
    ):
        function = getattr(library, f"rd_kafka_{name}")
        function.restype, function.argtypes = result, arguments
    return library
