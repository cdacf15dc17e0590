"""The records that the programs exchange over topics and files: shapes, names and how to read them.

- input: ``decode_value`` finds the message in a record, in any of the formats of ``DECODERS``;
- output: ``OutputRecord``, also on the review topic, and ``ShadowRecord`` on the shadow's;
- dead letters: ``DeadLetter``, which is in the headers;
- messages that wait for another attempt: ``Retry``, likewise;
- corrections: ``Correction``, a label that a person decided.

How they are written fast, and their JSON Schemas, are ``worker.records``.
"""

from worker.contract.records.correction import Correction, MachineLabel, correct, read_correction
from worker.contract.records.dead_letter import DeadLetter, Stage, read_dead_letter
from worker.contract.records.decode import DECODERS, Decoder, decode_value
from worker.contract.records.identity import Headers, record_id
from worker.contract.records.message import FormatName, InputFormat, SupportMessage
from worker.contract.records.output import OutputRecord, read_output
from worker.contract.records.own_headers import without_worker_headers
from worker.contract.records.replay import Replay, read_replay, supersedes
from worker.contract.records.retry import Retry, RetryReason, read_retry
from worker.contract.records.shadow import ShadowRecord, read_shadow, shadow_headers
from worker.contract.records.wire import to_json

__all__ = [
    "DECODERS",
    "Correction",
    "DeadLetter",
    "Decoder",
    "FormatName",
    "Headers",
    "InputFormat",
    "MachineLabel",
    "OutputRecord",
    "Replay",
    "Retry",
    "RetryReason",
    "ShadowRecord",
    "Stage",
    "SupportMessage",
    "correct",
    "decode_value",
    "read_correction",
    "read_dead_letter",
    "read_output",
    "read_replay",
    "read_retry",
    "read_shadow",
    "record_id",
    "shadow_headers",
    "supersedes",
    "to_json",
    "without_worker_headers",
]
