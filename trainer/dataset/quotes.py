"""Earlier messages that a mail program quoted below, or between, what the customer wrote."""

from __future__ import annotations

import re

# From here on everything is the earlier message.
_BEGINS = re.compile(
    r"""
    ^[ ]*(?:
        -{2,}[ ]*
          (?:original[ ]message|forwarded[ ]message|original-nachricht|message[ ]d'origine)
        [ ]*-{2,}
      | -+[ ]*begin[ ]forwarded[ ]message[ ]*-*:?
      | begin[ ]forwarded[ ]message:
    )[ ]*$
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
# "On Mon, 3 Jun 2024 at 10:12, Ann <ann@example.com> wrote:", also folded over up to three lines.
# A date or an address must stand in it: "On Monday my landlord wrote:" is the customer's own.
_WROTE = re.compile(
    r"^>?[ ]*(?:On|Am|Le|El)\b(?=[^\n]*(?:\n[^\n]*){0,2}(?:\d{1,2}:\d{2}|\d{4}|@))"
    r"[^\n]*(?:\n[^\n]+){0,2}?\b(?:wrote|schrieb[^\n]{0,80}|a écrit|escribió)[ ]?:[ ]*$",
    re.MULTILINE,
)
# Outlook's block of headers: From, then Sent or Date, To and Subject on the next lines.
_HEADERS = re.compile(
    r"^[ ]*\*?(?:From|Von|De):\*?[ ][^\n]+\n"
    r"(?:[ ]*\*?(?:Sent|Date|To|Cc|Subject|Gesendet|An|Betreff):\*?[^\n]*\n?){2,}",
    re.MULTILINE,
)
_QUOTED_LINE = re.compile(r"^[ ]*>[^\n]*(?:\n|\Z)", re.MULTILINE)


def strip_quotes(text: str) -> str:
    """Return a message without quoted lines ("> ..."), and without everything from "On ...
    wrote:", "-----Original Message-----" or a block of mail headers on.

    An introduction line is cut with what follows only where the quotation is not answered line
    by line: when text that is not quoted follows quoted lines, that text stays. ``text`` is
    normalized; so is the result, but for blanks at its ends.
    """
    for begins in (_BEGINS, _HEADERS):
        found = begins.search(text)
        if found:
            text = text[: found.start()]
    introduction = _WROTE.search(text)
    if introduction:
        rest = text[introduction.end() :]
        kept = _QUOTED_LINE.sub("", rest) if _QUOTED_LINE.search(rest) else ""
        text = text[: introduction.start()] + kept
    return _QUOTED_LINE.sub("", text).strip()
