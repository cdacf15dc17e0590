"""What is done to every message: always what serving does, and what was asked for besides.

Stripped on request: earlier messages that a mail program quoted below, or between, what the
customer wrote, and signatures and closing words at the end of a mail.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainer.dataset.folder import Row
from trainer.dataset.settings import OnBad, PrepareSettings
from trainer.errors import BadInput
from worker.contract.text import normalize

Redact = Callable[[str], tuple[str, dict[str, int]]]

# --- quotations ---
# From such a line on everything is the earlier message.
_BEGINS = re.compile(
    r"-{2,} ?(?:original message|forwarded message|original-nachricht|message d'origine) ?-{2,}"
    r"|-* ?begin forwarded message ?-*:?",
    re.IGNORECASE,
)
# "On Mon, 3 Jun 2024 at 10:12, Ann <ann@example.com> wrote:", folded over three lines at most.
# A date or an address must stand in it: "On Monday my landlord wrote:" is the customer's own.
_OPENS = re.compile(r"(?:On|Am|Le|El) ")
_WROTE = re.compile(r"\b(?:wrote|schrieb(?: [^:]{1,80})?|a écrit|escribió) ?:$")
_WHEN = re.compile(r"\d{1,2}:\d\d|\d{4}|@")
_INTRODUCTION_LINES = 3
_INTRODUCTION_CHARS = 300
# Outlook's block of headers: From, then two or more of the others.
_FROM = re.compile(r"\*?(?:From|Von|De):\*? ")
_HEADER = re.compile(r"\*?(?:Sent|Date|To|Cc|Subject|Gesendet|An|Betreff):")

# --- signatures ---
# RFC 3676 section 4.3: two dashes and a blank alone on a line; mail programs often drop the blank.
_DELIMITER = "--"
_DELIMITED_CHARS = 600
# Only what mail programs write by themselves: "Sent from my phone, but nothing came" is a message.
_MACHINE = (
    r"(?:apple |google |samsung )?(?:iphone|ipad|galaxy|samsung|android|huawei|xiaomi|pixel|mobile"
    r"|blackberry|smartphone|handy|phone|tablet|outlook|yahoo mail|proton mail|mail)"
    r"(?: (?:\w*\d\w*|plus|pro|max|mini|ultra|phone|smartphone|device|tablet"
    r"|(?:for|on) (?:ios|android|windows|iphone)))*"
)
_DEVICE = re.compile(
    rf"(?:sent from|envoyé de|envoyé depuis|enviado desde) (?:my |mon |mi )?{_MACHINE}"
    rf"|von (?:meinem )?{_MACHINE} gesendet|gesendet von (?:meinem )?{_MACHINE}"
    r"|get outlook for \w+",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:(?:kind(?:est)?|best|warm(?:est)?|with (?:kind|best)) (?:regards|wishes)|regards|best"
    r"|yours (?:sincerely|faithfully|truly)|sincerely(?: yours)?|cheers|all the best"
    r"|many thanks|thanks(?: in advance)?|thank you|cordialement|saludos"
    r"|mit freundlichen gr(?:ü|ue)(?:ß|ss)en) ?[,.!]?",
    re.IGNORECASE,
)
# What may follow closing words in a signature: name, position, company, telephone, address.
_LINES_AFTER = 6
_CHARS_A_LINE = 60
_WORDS_A_LINE = 8


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


def strip_quotes(text: str) -> str:
    """Return a message without quoted lines ("> ..."), and without everything from "On ...
    wrote:", "-----Original Message-----" or a block of mail headers on.

    Where quoted lines follow the introduction, only they go with it: what is not quoted is the
    customer's answer, line by line. ``text`` is normalized; so is the result, but for its blanks.
    """
    lines = [line.strip() for line in text.split("\n")]
    last_quoted = max((at for at, line in enumerate(lines) if line.startswith(">")), default=-1)
    kept = []
    at = 0
    while at < len(lines):
        if _BEGINS.fullmatch(lines[at]) or _is_header_block(lines[at : at + 3]):
            break
        size = _introduction(lines[at : at + _INTRODUCTION_LINES])
        if size and at > last_quoted:
            break
        if not size and not lines[at].startswith(">"):
            kept.append(lines[at])
        at += size or 1
    return "\n".join(kept).strip()


def _is_header_block(lines: list[str]) -> bool:
    return (
        len(lines) == 3
        and bool(_FROM.match(lines[0]))
        and all(_HEADER.match(line) for line in lines[1:])
    )


def _introduction(lines: list[str]) -> int:
    """Return how many of the lines, from the first, introduce a quotation: 0 when none do."""
    if not _OPENS.match(lines[0]):
        return 0
    for size in range(1, len(lines) + 1):
        joined = " ".join(lines[:size])
        if len(joined) > _INTRODUCTION_CHARS:
            return 0
        if _WROTE.search(joined):
            return size if _WHEN.search(joined) else 0
    return 0


def strip_signature(text: str) -> str:
    """Return a message without what stands below "-- ", "Sent from my ..." or closing words.

    Cut only at the end: after "-- " at most 600 characters may follow, and after closing words
    alone on their line at most six lines, each of eight words or fewer and no question.
    ``text`` is normalized.
    """
    lines = [line.strip() for line in text.strip().split("\n")]
    for cut in (_delimited, _device, _closing):
        lines = _trim(lines[: cut(lines)])
    return "\n".join(lines)


def _delimited(lines: list[str]) -> int:
    found, chars = len(lines), 0
    for at in reversed(range(len(lines))):
        if lines[at] == _DELIMITER:
            found = at
        chars += len(lines[at]) + 1
        if chars > _DELIMITED_CHARS:
            break
    return found


def _device(lines: list[str]) -> int:
    is_device = lines and len(lines[-1]) < 100 and _DEVICE.fullmatch(lines[-1].rstrip(" ."))
    return len(lines) - 1 if is_device else len(lines)


def _closing(lines: list[str]) -> int:
    found, after = len(lines), 0
    for at in reversed(range(len(lines))):
        line = lines[at]
        if not line:
            continue
        if len(line) <= _CHARS_A_LINE and _CLOSING.fullmatch(line):
            found = at
        after += 1
        if after > _LINES_AFTER or not _is_signature_line(line):
            break
    return found


def _is_signature_line(line: str) -> bool:
    return (
        len(line) <= _CHARS_A_LINE and not line.endswith("?") and len(line.split()) <= _WORDS_A_LINE
    )


def _trim(lines: list[str]) -> list[str]:
    """Return the lines without blank ones at the end."""
    end = len(lines)
    while end and not lines[end - 1]:
        end -= 1
    return lines[:end]
