"""Mails: what a program quoted below, or between, what the customer wrote, and signatures.

A rule is strict about what it takes for either, since what is cut from a message is lost: a date
or an address stands in the line that introduces a quotation, and few, short lines follow closing
words. The phrases are English, German, French and Spanish.
"""

from __future__ import annotations

import re

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
# Outlook's block of headers: From, then two or more of the others.
_FROM = re.compile(r"\*?(?:From|Von|De):\*? ")
_HEADER = re.compile(r"\*?(?:Sent|Date|To|Cc|Subject|Gesendet|An|Betreff):")

# --- signatures ---
# RFC 3676 section 4.3: two dashes and a blank alone on a line; mail programs often drop the blank.
_DELIMITER = "--"
_DELIMITED_CHARS = 600
# Only what mail programs write by themselves: "Sent from my phone, but nothing came" is a message.
# No word can be read in two ways: "\w*\d\w*" took time that doubled with every digit.
_MACHINE = (
    r"(?:apple |google |samsung )?(?:iphone|ipad|galaxy|samsung|android|huawei|xiaomi|pixel|mobile"
    r"|blackberry|smartphone|handy|phone|tablet|outlook|yahoo mail|proton mail|mail)"
    r"(?: (?:[^\W\d]*\d\w*|plus|pro|max|mini|ultra|phone|smartphone|device|tablet"
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
        block = lines[at : at + 3]
        if _BEGINS.fullmatch(lines[at]) or _is_header_block(block):
            break
        size = _introduction(block)
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
    lines = _trim(lines[: _delimited(lines)])
    lines = _trim(lines[: _device(lines)])
    lines = _trim(lines[: _closing(lines)])
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
    last = lines[-1].rstrip(" .") if lines else ""
    is_device = len(last) < 100 and bool(_DEVICE.fullmatch(last))
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
