"""What is done to every message: always what serving does, and what was asked for besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainer.dataset.quotes import strip_quotes
from trainer.dataset.row import Row
from trainer.dataset.signatures import strip_signature
from worker.contract.text import normalize

Redact = Callable[[str], tuple[str, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The rows with clean messages. ``changed`` counts the messages that each step changed,
    ``redacted`` the pieces of personal data by kind, ``left_whole`` the messages that stripping
    would have emptied, which stay as they were."""

    rows: tuple[Row, ...]
    changed: dict[str, int]
    redacted: dict[str, int]
    left_whole: int


def clean(
    rows: Sequence[Row],
    *,
    quotes: bool = False,
    signatures: bool = False,
    redact: Redact | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> Cleaned:
    """Normalize every message as serving does; strip and redact what was asked for.

    Redaction comes last, on the normalized text, as in serving.
    """
    steps: list[tuple[str, Callable[[str], str]]] = []
    if quotes:
        steps.append(("quotes stripped", strip_quotes))
    if signatures:
        steps.append(("signature stripped", strip_signature))
    changed: Counter[str] = Counter()
    redacted: Counter[str] = Counter()
    left_whole = 0
    after = []
    for row in rows:
        text = normalize(row.message)
        changed["normalized"] += text != row.message
        for name, step in steps:
            shorter = normalize(step(text))
            if text and not shorter:
                left_whole += 1
            elif shorter != text:
                changed[name] += 1
                text = shorter
        if redact is not None:
            text, found = redact(text)
            changed["redacted"] += bool(found)
            redacted.update(found)
        after.append(replace(row, message=text))
        tick(1)
    return Cleaned(tuple(after), dict(changed), dict(redacted), left_whole)
