"""Why an adapter is refused. The worker goes on with the adapters it has."""

from __future__ import annotations

from typing import Literal

RefusalReason = Literal[
    "pointer",
    "files",
    "base",
    "tokenizer",
    "memory",
    "engine",
    "hung",
    "unexpected",
    "probes",
    "worse",
]
"""All there are: the store's pointer cannot be read; a file is not what the manifest says; the
adapter is of another base; the base tokenizes its prompts otherwise; its engine has no place in the
memory next to the one that serves; the engine cannot load it or does not answer; loading and trying
it took longer than ``LOAD_TIMEOUT_S``; something that nobody expected; it misclassifies probes of
its own manifest; it misclassifies more than ``MAX_ERROR_RATE`` of the serving adapter's probes."""


class Refusal(Exception):
    """An adapter must not serve here. ``problem`` says what and how to mend it, without text of
    any message."""

    def __init__(self, reason: RefusalReason, problem: str) -> None:
        self.reason = reason
        self.problem = problem
        super().__init__(f"{reason}: {problem}")
