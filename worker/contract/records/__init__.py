"""The records that the programs exchange over topics and files: shapes, names and how to read them.

- input: ``decode_value`` finds the message in a record, in any of the formats of ``DECODERS``;
- output: ``OutputRecord``, also on the review topic, and ``ShadowRecord`` on the shadow's;
- dead letters: ``DeadLetter``, which is in the headers;
- messages that wait for another attempt: ``Retry``, likewise;
- corrections: ``Correction``, a label that a reviewer decided on; ``Retraction``, which takes it
  back.

How they are written fast, and their JSON Schemas, are ``worker.records``.
"""

from worker.contract.records.correction import (
    Correction,
    MachineLabel,
    Retraction,
    correct,
    read_correction,
)
from worker.contract.records.decode import (
    DECODERS,
    Decoder,
    FormatName,
    InputFormat,
    SupportMessage,
    decode_value,
)
from worker.contract.records.headers import (
    DeadLetter,
    Retry,
    RetryReason,
    Stage,
    read_dead_letter,
    read_retry,
    without_worker_headers,
)
from worker.contract.records.identity import (
    Headers,
    Replay,
    read_replay,
    record_id,
    supersedes,
    to_json,
)
from worker.contract.records.output import (
    OutputRecord,
    ShadowRecord,
    read_output,
    read_shadow,
    shadow_headers,
)

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
    "Retraction",
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
