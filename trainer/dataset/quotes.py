"""Earlier messages that a mail program quoted below, or between, what the customer wrote."""

from __future__ import annotations

import re

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
