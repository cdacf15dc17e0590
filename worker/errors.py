"""What can go wrong in the worker, named for what the caller does about it.

    MessageRejected           give this one message up, with a reason: a dead letter
    WorkerError
    ├── PublishAborted        nothing was published: try the same batch again
    │   ├── OutputRefused     ... in smaller batches, until the record at fault is alone
    │   │   └── RecordTooLarge    ... after replacing the records it names
    │   └── OutcomeUnknown    ... after ``Stream.resolve_unknown_commit``
    └── WorkerStopped         leave the process with ``exit_code``; nothing is half done
        ├── SettingsError     2  fix the settings
        ├── StreamFailed      4  Kafka refuses to go on: topics, rights, fenced
        ├── EngineDied        5  the engine cannot answer any more
        ├── FeedBroken        6  too many messages end as dead letters
        └── RestartNeeded     7  start it again: another adapter needs the memory of this one

MessageRejected is the contract's, because decoders raise it too; engines and the labeller raise it
here. ``contract.AdapterRefused`` leaves with 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.common.errors import EXIT_INTERRUPTED, EXIT_SETTINGS, EXIT_UNEXPECTED
from worker.contract.errors import MessageRejected, RejectReason

__all__ = [
    "EXIT_ADAPTER",
    "EXIT_ENGINE",
    "EXIT_FEED",
    "EXIT_INTERRUPTED",
    "EXIT_RESTART",
    "EXIT_SETTINGS",
    "EXIT_STREAM",
    "EXIT_UNEXPECTED",
    "EngineDied",
    "FeedBroken",
    "MessageRejected",
    "OutcomeUnknown",
    "OutputRefused",
    "PublishAborted",
    "RecordTooLarge",
    "RestartNeeded",
    "SettingsError",
    "StreamFailed",
    "WorkerError",
    "WorkerStopped",
]

EXIT_ADAPTER = 3
EXIT_STREAM = 4
EXIT_ENGINE = 5
EXIT_FEED = 6
EXIT_RESTART = 7


class WorkerError(Exception):
    """Base of every error the worker raises on purpose."""


class PublishAborted(WorkerError):
    """A batch was not published and its offsets were not committed; it can be tried again.

    ``unreachable``: because nobody answered, which passes by itself; no answer was a refusal.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        self.unreachable = unreachable
        super().__init__(message)


class OutputRefused(PublishAborted):
    """The broker refused a batch for the sake of a record in it, and does not say which.

    Kafka answers for all records of a partition at once. ``reason`` is for the dead letter that the
    record at fault becomes.
    """

    reason: RejectReason = "output_refused"


class RecordTooLarge(OutputRefused):
    """The topic takes no record of this size. ``indexes`` are places in the batch's outputs."""

    reason: RejectReason = "output_too_large"

    def __init__(self, indexes: Sequence[int]) -> None:
        self.indexes = tuple(indexes)
        super().__init__(f"{len(self.indexes)} records are larger than their topic allows")


class OutcomeUnknown(PublishAborted):
    """A batch was published or was not: only the committed offsets can tell."""


class WorkerStopped(WorkerError):
    """The worker must end."""

    exit_code = EXIT_UNEXPECTED


class SettingsError(WorkerStopped):
    """Settings are wrong; each of ``problems`` says which one, where it came from and how to fix
    it."""

    exit_code = EXIT_SETTINGS

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class StreamFailed(WorkerStopped):
    """Kafka cannot be used as configured, or has replaced this worker by another."""

    exit_code = EXIT_STREAM


class EngineDied(WorkerStopped):
    """The engine as a whole has failed; no message is to blame."""

    exit_code = EXIT_ENGINE


class FeedBroken(WorkerStopped):
    """Too many messages end as dead letters: something is wrong with all of them."""

    exit_code = EXIT_FEED


class RestartNeeded(WorkerStopped):
    """The adapter that is current now can be served by this worker after a restart alone."""

    exit_code = EXIT_RESTART
