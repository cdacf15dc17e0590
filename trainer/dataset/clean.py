"""What is done to every message: always what serving does, and what was asked for besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from trainer.dataset.folder import Row
from trainer.dataset.mails import OWN, Phrases, strip_quotes, strip_signature
from trainer.dataset.settings import OnBad, PrepareSettings
from trainer.errors import BadInput
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
    phrases: Phrases = OWN,
    redact: Redact | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> Cleaned:
    """Normalize every message as serving does; strip, by ``phrases``, and redact what was asked
    for.

    Redaction comes last, on the normalized text, as in serving.
    """
    steps: list[tuple[str, Callable[[str], str]]] = []
    if quotes:
        steps.append(("quotes stripped", partial(strip_quotes, phrases=phrases)))
    if signatures:
        steps.append(("signature stripped", partial(strip_signature, phrases=phrases)))
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
        # Most messages are clean: a second copy of an export is not made.
        after.append(row if text == row.message else replace(row, message=text))
        tick(1)
    return Cleaned(tuple(after), dict(changed), dict(redacted), left_whole)


def refuse_bad(
    cleaned: Sequence[Row], raw: Sequence[Row], settings: PrepareSettings
) -> tuple[list[Row], dict[str, int]]:
    """Drop the rows whose message is empty when clean, or over ``max_message_bytes`` of UTF-8 as
    it came. Return the rest and the counts; raise BadInput with the first row where the settings
    say that such a row is an error."""
    usable = []
    empty = too_long = 0
    for row, before in zip(cleaned, raw, strict=True):
        size = len(before.message.encode("utf-8", "surrogatepass"))
        if size > settings.max_message_bytes:
            if settings.too_long is OnBad.ERROR:
                raise BadInput(
                    f"{row.where}: the message of {row.id!r} has {size} bytes, more than "
                    f"{settings.max_message_bytes}: raise --max-message-bytes or choose "
                    "--too-long drop"
                )
            too_long += 1
        elif not row.message:
            if settings.empty is OnBad.ERROR:
                raise BadInput(
                    f"{row.where}: the message of {row.id!r} is empty: mend it or choose "
                    "--empty drop"
                )
            empty += 1
        else:
            usable.append(row)
    return usable, {"empty_dropped": empty, "too_long_dropped": too_long}
