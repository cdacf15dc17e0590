"""Errors of the contract, named for what the caller does about them.

ContractError
├── TaxonomyError     correct the taxonomy file
├── AdapterRefused    do not serve this adapter
├── InvalidScores     reject this message: the engine's answer cannot be read as a label
├── MessageRejected   give this message up: write a dead letter with the reason
└── RecordRefused     skip or report this record: unreadable, foreign, or of another version
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

RejectReason = Literal[
    "tombstone",
    "not_utf8",
    "not_json",
    "field_missing",
    "field_not_text",
    "empty_message",
    "deadline_exceeded",
    "engine_rejected",
    "invalid_answer",
    "output_too_large",
    "output_refused",
    "killed_engine",
    "retry_damaged",
    "unknown_schema",
    "schema_mismatch",
]
"""Every reason why a record has no label, explained in docs/records.md."""


class ContractError(Exception):
    """Base of every error the contract raises on purpose."""


class TaxonomyError(ContractError):
    """A taxonomy is malformed; the message says which entry and how to correct it."""


class InvalidScores(ContractError):
    """An engine answered with scores that cannot be turned into one known label."""


class MessageRejected(ContractError):
    """One message cannot be labelled. ``detail`` holds no message text."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class RecordRefused(ContractError):
    """A record or file does not have its documented form. ``problem`` names the field at fault."""

    def __init__(self, what: str, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{what}: {problem}")


class AdapterRefused(ContractError):
    """An adapter directory must not be served. ``path`` is the file at fault."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}")
