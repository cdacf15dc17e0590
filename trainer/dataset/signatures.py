"""Signatures and closing words at the end of a mail."""

from __future__ import annotations

import re

# RFC 3676 section 4.3: two dashes and a blank alone on a line. Normalizing drops the blank at
# the end of a message, mail programs often elsewhere.
_DELIMITER = re.compile(r"^-- ?$", re.MULTILINE)
_DEVICE = re.compile(
    r"^[ ]*(?:Sent from (?:my|Yahoo|Outlook|Mail for|Proton)|Get Outlook for|Envoyé de mon"
    r"|Von meinem \w+ gesendet|Enviado desde mi)\b[^\n]{0,60}$",
    re.IGNORECASE | re.MULTILINE,
)
_CLOSING = re.compile(
    r"^[ ]*(?:(?:kind(?:est)?|best|warm(?:est)?|with (?:kind|best))[ ](?:regards|wishes)|regards|"
    r"yours[ ](?:sincerely|faithfully|truly)|sincerely(?:[ ]yours)?|cheers|all[ ]the[ ]best|best|"
    r"many[ ]thanks|thanks(?:[ ]in[ ]advance)?|thank[ ]you|cordialement|saludos|"
    r"mit[ ]freundlichen[ ]gr(?:ü|ue)(?:ß|ss)en)[ ]*[,.!]?[ ]*$",
    re.IGNORECASE | re.MULTILINE,
)
# What may follow closing words in a signature: name, position, company, telephone, address.
_LINES_AFTER = 6
_CHARS_A_LINE = 60
_DELIMITED_CHARS = 600


def strip_signature(text: str) -> str:
    """Return a message without what stands below "-- ", "Sent from my ..." or closing words.

    Cut only at the end: after "-- " at most 600 characters may follow; after closing words alone
    on their line at most six lines, each short and no sentence or question. ``text`` is normalized.
    """
    text = _cut_delimited(text)
    text = _cut_device(text)
    text = _cut_closing(text)
    return text.strip()


def _cut_delimited(text: str) -> str:
    for found in _DELIMITER.finditer(text):
        if len(text) - found.end() <= _DELIMITED_CHARS:
            return text[: found.start()].rstrip()
    return text


def _cut_device(text: str) -> str:
    for found in _DEVICE.finditer(text):
        if not text[found.end() :].strip():
            return text[: found.start()].rstrip()
    return text


def _cut_closing(text: str) -> str:
    for found in _CLOSING.finditer(text):
        after = [line for line in text[found.end() :].split("\n") if line.strip()]
        if len(after) <= _LINES_AFTER and all(_is_signature_line(line) for line in after):
            return text[: found.start()].rstrip()
    return text


def _is_signature_line(line: str) -> bool:
    line = line.strip()
    return len(line) <= _CHARS_A_LINE and not line.endswith("?") and line.count(" ") <= 7
