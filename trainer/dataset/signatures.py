"""Signatures and closing words at the end of a mail."""

from __future__ import annotations

import re

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
