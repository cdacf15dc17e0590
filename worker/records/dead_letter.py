"""From a rejected record to the record that the dead-letter topic gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from worker.contract.records import DeadLetter, Headers, without_worker_headers
from worker.contract.records.dead_letter import OMITTED_BYTES
from worker.contract.records.retry import RETRY_HEADERS
from worker.records.types import Outgoing, Record, Rejected


@dataclass(frozen=True, slots=True)
class DeadLetterEncoder:
    """Turns a rejected record into a record for the dead-letter topic."""

    topic: str
    worker_version: str
    adapter_digest: str

    def encode(self, record: Record, rejected: Rejected) -> Outgoing:
        """Keep the raw key, value and headers, and add the reason as headers.

        Where the record was a dead letter before, these replace what was said then. Where it was
        tried again later, they say how often; headers of the retry topic that could not be read
        stay, for whoever looks for the message.
        """
        topic, partition, offset = record.origin
        letter = DeadLetter(
            reason=rejected.reason,
            stage=rejected.stage,
            error=rejected.detail,
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp_ms=record.timestamp_ms,
            attempts=rejected.attempts,
            worker_version=self.worker_version,
            adapter_digest=self.adapter_digest,
            cluster=record.origin_cluster,
        )
        headers: Headers = without_worker_headers(record.headers) + letter.headers()
        if record.retry is not None:
            headers += record.retry.history()
        elif record.damage is not None:
            headers += tuple(header for header in record.headers if header[0] in RETRY_HEADERS)
        return Outgoing(self.topic, record.key, record.value, headers)

    def without_payload(self, record: Record, rejected: Rejected) -> Outgoing:
        """Return the dead letter of a record that is too large for the dead-letter topic.

        It has no value, no key and no headers of the record's own: the record stays in the
        source topic, at the offset that the headers name.
        """
        emptied = replace(record, key=None, value=None, headers=())
        letter = self.encode(emptied, rejected)
        omitted: Headers = ((OMITTED_BYTES, str(record.size_bytes).encode()),)
        return replace(letter, headers=letter.headers + omitted)
