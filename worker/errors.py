"""The worker's errors, named for what the caller does about them.

    MessageRejected           give this message up: write a dead letter with the reason
    WorkerError
    ├── PublishAborted        nothing was published: try the same batch again
    │   ├── OutputRefused     ... after replacing the records to blame, or in smaller batches
    │   │   └── RecordTooLarge
    │   └── OutcomeUnknown    ... after ``Stream.resolve_unknown_commit``
    └── WorkerStopped         exit with ``exit_code``; nothing is half done
        ├── SettingsError     2  fix the settings
        ├── StreamFailed      4  Kafka cannot be used: topics, permissions, fenced
        ├── EngineDied        5  the engine cannot answer any more
        └── RestartNeeded     7  restart: a new adapter needs this one's memory

MessageRejected is in ``worker.contract.errors``, because decoders raise it too.
``contract.AdapterRefused`` exits with 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.common.errors import EXIT_SETTINGS, EXIT_UNEXPECTED
from worker.contract.errors import RejectReason

EXIT_ADAPTER = 3
EXIT_STREAM = 4
EXIT_ENGINE = 5
EXIT_RESTART = 7


class WorkerError(Exception):
    """Base of every error the worker raises on purpose."""


class PublishAborted(WorkerError):
    """A batch was not published and its offsets were not committed; it can be tried again.

    ``unreachable``: no broker answered, which is temporary, rather than one refusing the batch.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        self.unreachable = unreachable
        super().__init__(message)


class OutputRefused(PublishAborted):
    """The broker refused a batch because of records in it.

    ``indexes`` are positions in the batch's outputs. If ``certain``, each of these records is to
    blame; otherwise at least one of them is, or, if there are none, at least one of the batch.
    ``reason`` is for their dead letters.
    """

    reason: RejectReason = "output_refused"

    def __init__(self, message: str, indexes: Sequence[int] = (), *, certain: bool = False) -> None:
        self.indexes = tuple(indexes)
        self.certain = certain
        super().__init__(message)


class RecordTooLarge(OutputRefused):
    """Records are too large for their topic."""

    reason: RejectReason = "output_too_large"


class OutcomeUnknown(PublishAborted):
    """Whether a batch was published is unknown: the committed offsets decide."""


class WorkerStopped(WorkerError):
    """The worker must exit."""

    exit_code = EXIT_UNEXPECTED


class SettingsError(WorkerStopped):
    """Settings are wrong; each of ``problems`` names the setting, its origin and the fix."""

    exit_code = EXIT_SETTINGS

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class StreamFailed(WorkerStopped):
    """Kafka cannot be used as configured, or has fenced this worker."""

    exit_code = EXIT_STREAM


class EngineDied(WorkerStopped):
    """The whole engine has failed, rather than on a single message."""

    exit_code = EXIT_ENGINE


class RestartNeeded(WorkerStopped):
    """This worker must restart to serve the adapter that is now current."""

    exit_code = EXIT_RESTART
