"""The records that the programs exchange over topics, and how to read them.

- input: ``decode_value`` finds the message in a record, in any of the formats of ``DECODERS``;
- output and review topics: ``OutputRecord``; shadow topic: ``ShadowRecord``;
- dead letters: the input record with the headers of ``DeadLetter``;
- retry topic: the input record with the headers of ``Retry``;
- corrections: ``Correction``, a reviewer's label, and ``Retraction``, which takes it back.

``worker.records`` has fast writers and the JSON Schemas.
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
