"""Mails: what a program quoted below, or between, what the customer wrote, and signatures.

A rule is strict about what it takes for either, since what is cut from a message is lost: a date
or an address stands in the line that introduces a quotation, and few, short lines follow closing
words.
Phrases of further languages can be given; the rules are the same for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
_INTRODUCTION_CHARS = 300
_MOST_TRIES = 100
_COLONS = (":", "：")
_HEADER_COLON = re.compile(r"[^:：]{1,30}[:：]")
# Outlook's block of headers: From, then two or more of the others.
_FROM = re.compile(r"\*?(?:From|Von|De):\*? ")
_HEADER = re.compile(r"\*?(?:Sent|Date|To|Cc|Subject|Gesendet|An|Betreff):")

# --- signatures ---
# RFC 3676 section 4.3: two dashes and a blank alone on a line; mail programs often drop the blank.
_DELIMITER = "--"
_DELIMITED_CHARS = 600
# Only what mail programs write by themselves: "Sent from my phone, but nothing came" is a message.
# No word can be read in two ways: "\w*\d\w*" took time that doubled with every digit.
MACHINE = (
    r"(?:apple |google |samsung )?(?:iphone|ipad|galaxy|samsung|android|huawei|xiaomi|pixel|mobile"
    r"|blackberry|smartphone|handy|phone|tablet|outlook|yahoo mail|proton mail|mail)"
    r"(?: (?:[^\W\d]*\d\w*|plus|pro|max|mini|ultra|phone|smartphone|device|tablet"
    r"|(?:for|on) (?:ios|android|windows|iphone)))*"
)
_DEVICE = re.compile(
    rf"(?:sent from|envoyé de|envoyé depuis|enviado desde) (?:my |mon |mi )?{MACHINE}"
    rf"|von (?:meinem )?{MACHINE} gesendet|gesendet von (?:meinem )?{MACHINE}"
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
class Phrases:
    """What mail programs and people write in further languages, beside what is known here.

    ``introductions`` match a line that introduces a quotation (whole, a colon at its end),
    ``headers`` two lines of a block of mail headers; ``closing`` and ``device`` match a line of
    closing words or of a device, whole.
    """

    introductions: tuple[re.Pattern[str], ...] = ()
    headers: tuple[re.Pattern[str], ...] = ()
    closing: re.Pattern[str] | None = None
    device: re.Pattern[str] | None = None


OWN = Phrases()


def strip_quotes(text: str, phrases: Phrases = OWN) -> str:
    """Return a message without quoted lines ("> ..."), and without everything from "On ...
    wrote:", "-----Original Message-----" or a block of mail headers on.

    Where quoted lines follow the introduction, only they go with it: what is not quoted is the
    customer's answer, line by line. ``text`` is normalized; so is the result, but for its blanks.
    """
    lines = [line.strip() for line in text.split("\n")]
    last_quoted = max((at for at, line in enumerate(lines) if line.startswith(">")), default=-1)
    foreign = _Foreign(phrases)
    kept = []
    at = 0
    while at < len(lines):
        block = lines[at : at + 3]
        if _BEGINS.fullmatch(lines[at]) or _is_header_block(block) or foreign.is_header(block):
            break
        size = _introduction(block) or foreign.introduction(block)
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


class _Foreign:
    """Phrases of further languages on one message, tried where a colon and a date or an address
    stand, and no more than ``_MOST_TRIES`` times: their patterns are slow."""

    def __init__(self, phrases: Phrases) -> None:
        self._phrases = phrases
        self._left = _MOST_TRIES

    def introduction(self, lines: list[str]) -> int:
        """As ``_introduction``."""
        for size in range(1, len(lines) + 1):
            joined = " ".join(lines[:size])
            if joined.endswith(_COLONS):
                return size if self._any(self._phrases.introductions, joined) else 0
        return 0

    def is_header(self, lines: list[str]) -> bool:
        """As ``_is_header_block``, three lines of which each two are headers."""
        return (
            len(lines) == 3
            and all(_HEADER_COLON.match(line) for line in lines)
            and self._any(self._phrases.headers, "\n".join(lines[:2]), "\n".join(lines))
            and self._any(self._phrases.headers, "\n".join(lines[1:]), "\n".join(lines))
        )

    def _any(self, patterns: Iterable[re.Pattern[str]], text: str, dated: str = "") -> bool:
        if not self._left or len(text) > _INTRODUCTION_CHARS or not _WHEN.search(dated or text):
            return False
        self._left -= 1
        return any(pattern.fullmatch(text) for pattern in patterns)


def strip_signature(text: str, phrases: Phrases = OWN) -> str:
    """Return a message without what stands below "-- ", "Sent from my ..." or closing words.

    Cut only at the end: after "-- " at most 600 characters may follow, and after closing words
    alone on their line at most six lines, each of eight words or fewer and no question.
    ``text`` is normalized.
    """
    lines = [line.strip() for line in text.strip().split("\n")]
    lines = _trim(lines[: _delimited(lines)])
    lines = _trim(lines[: _device(lines, phrases)])
    lines = _trim(lines[: _closing(lines, phrases)])
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


def _device(lines: list[str], phrases: Phrases) -> int:
    last = lines[-1].rstrip(" .") if lines else ""
    is_device = len(last) < 100 and _matches(last, _DEVICE, phrases.device)
    return len(lines) - 1 if is_device else len(lines)


def _closing(lines: list[str], phrases: Phrases) -> int:
    found, after = len(lines), 0
    for at in reversed(range(len(lines))):
        line = lines[at]
        if not line:
            continue
        if len(line) <= _CHARS_A_LINE and _matches(line, _CLOSING, phrases.closing):
            found = at
        after += 1
        if after > _LINES_AFTER or not _is_signature_line(line):
            break
    return found


def _matches(line: str, own: re.Pattern[str], further: re.Pattern[str] | None) -> bool:
    return bool(own.fullmatch(line) or (further and further.fullmatch(line)))


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
