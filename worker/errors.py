"""The worker's errors, named for what the caller does about them.

    MessageRejected           give this message up: write a dead letter with the reason
    WorkerError
    ├── PublishAborted        nothing was published: try the same batch again
    │   ├── OutputRefused     ... in smaller batches, until the refused record is alone
    │   │   └── RecordTooLarge    ... after replacing the records in ``indexes``
    │   └── OutcomeUnknown    ... after ``Stream.resolve_unknown_commit``
    └── WorkerStopped         exit with ``exit_code``; nothing is half done
        ├── SettingsError     2  fix the settings
        ├── StreamFailed      4  Kafka cannot be used: topics, permissions, fenced
        ├── EngineDied        5  the engine cannot answer any more
        ├── FeedBroken        6  too many messages become dead letters
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
EXIT_FEED = 6
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
    """The broker refused a batch because of one record, without saying which: Kafka answers for all
    records of a partition at once. ``reason`` is for that record's dead letter."""

    reason: RejectReason = "output_refused"


class RecordTooLarge(OutputRefused):
    """Records are too large for their topic. ``indexes`` are positions in the batch's outputs."""

    reason: RejectReason = "output_too_large"

    def __init__(self, indexes: Sequence[int]) -> None:
        self.indexes = tuple(indexes)
        super().__init__(f"{len(self.indexes)} records are larger than their topic allows")


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


class FeedBroken(WorkerStopped):
    """Too many messages become dead letters: something is wrong with the input."""

    exit_code = EXIT_FEED


class RestartNeeded(WorkerStopped):
    """This worker must restart to serve the adapter that is now current."""

    exit_code = EXIT_RESTART
