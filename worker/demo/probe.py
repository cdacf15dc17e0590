"""Whether the local broker serves, asked with a real client."""

import socket
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from worker.demo.broker_config import HOST, NODE_ID

_TIMEOUT_S = 2.0


class BrokerProbe:
    """Asks one broker; the client is made when its port opens and used again."""

    def __init__(self, port: int, cluster_id: str, host: str = HOST) -> None:
        """Name the port, of loopback or of ``host``, and the cluster expected to answer there."""
        self._host = host
        self._port = port
        self._cluster_id = cluster_id
        self._admin: AdminClient | None = None

    def is_serving(self) -> bool:
        """Say whether our broker answers, is in its cluster, and leads all partitions.

        Blocks for at most 2 s. A broker that comes back after a crash answers while it is still
        fenced: it is then not listed, its partitions have no leader and records are refused.
        """
        if self._admin is None:
            # Not made earlier: a client that is refused waits longer and longer to try again.
            if not self._is_listening():
                return False
            config: dict[str, Any] = {
                "bootstrap.servers": f"{self._host}:{self._port}",
                "log_level": 0,
                "error_cb": lambda _error: None,  # being refused is what is asked about
            }
            self._admin = AdminClient(config)
        try:
            metadata = self._admin.list_topics(timeout=_TIMEOUT_S)
        except KafkaException:
            return False
        leaders = {
            partition.leader
            for topic in metadata.topics.values()
            for partition in topic.partitions.values()
        }
        ours = metadata.cluster_id == self._cluster_id
        return ours and NODE_ID in metadata.brokers and leaders <= {NODE_ID}

    def _is_listening(self) -> bool:
        try:
            socket.create_connection((self._host, self._port), timeout=_TIMEOUT_S).close()
        except OSError:
            return False
        return True
