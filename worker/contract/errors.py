"""What can be wrong with a contract, named for what the caller does about it.

ContractError
├── TaxonomyError     mend the taxonomy file
├── AdapterRefused    do not serve this adapter
└── InvalidScores     reject this message: the engine's answer cannot be read as a label
"""

from __future__ import annotations

from pathlib import Path


class ContractError(Exception):
    """Base of every error the contract raises on purpose."""


class TaxonomyError(ContractError):
    """A taxonomy is malformed; the message says which entry and how to mend it."""


class InvalidScores(ContractError):
    """An engine answered with scores that cannot be turned into one known label."""


class AdapterRefused(ContractError):
    """An adapter directory must not be served.

    ``path`` is the file at fault and ``problem`` the difference found in it; the text of the
    error holds both.
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}")
