"""Removes personal data from a message's text by fixed rules, the same in training and serving.

What is redacted: mail addresses, IBANs and payment card numbers that pass their check digits, and
phone numbers. Order numbers, amounts and dates are what a clerk reads, so they stay: a bare run
of digits is a phone number only where its shape or the words before it say so. Every scan walks
the text once and looks a bounded distance around, so time grows linearly with any text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

REDACTION = "pii-1"
"""Name of the rules below. A manifest records it; changing the rules changes it."""

PLACEHOLDERS = {"mail": "[mail]", "iban": "[iban]", "card": "[card]", "phone": "[phone]"}
"""What replaces personal data, by kind. No rule matches a placeholder or a text that touches it."""

Span = tuple[int, int, str]

_AT = re.compile(r"[@＠]|(?<=\w) ?[(\[] ?at ?[)\]] ?(?=\w)", re.IGNORECASE)
_LOCAL = re.compile(r"[\w.+%'’&-]")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,}")

_IBAN_START = re.compile(r"(?<![^\W_])([A-Za-z]{2})[0-9]{2}")
_IBAN_BODY = re.compile(r"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){14,33}")
# Total length by country: SWIFT's IBAN registry (ISO 13616).
_IBAN_LENGTHS = dict(
    re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 "
        "DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 "
        "HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 "
        "MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 "
        "RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 "
        "VA22 VG24 XK20 YE30",
    )
)

_BETWEEN = r"[ \t\xa0.\-/()\u2010-\u2015]{0,3}"
_RUN = re.compile(rf"(?:\(?\+\(?|(?<!\w)\(?)\d(?:{_BETWEEN}\d)*+")
_GROUP = re.compile(r"\d+")
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})(?![./-]?\d)")
# Digits of the large card schemes: first digits with the lengths they come in (ISO/IEC 7812).
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5\d|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12}|3[05]\d{14}|6\d{12,18}"
)
_MONEY_BEFORE = re.compile(r"(?:[€$£¥]|\b(?:eur|usd|gbp|chf))\s?$", re.IGNORECASE)
_MONEY_AFTER = re.compile(
    rf",\d\d?(?!{_BETWEEN}\d)|\s?(?:[€$£¥]|(?:eur|euros?|usd|gbp|chf|dollars?|pounds?)\b)",
    re.IGNORECASE,
)
_CONTEXT_CHARS = 40
_PLACEHOLDER = re.compile(r"\[?(?:mail|iban|card|phone)\]")
_SENTENCE = re.compile(r"(?<!no)(?<!nr)[.!?;\n]")
_WORD = re.compile(r"[^\W\d_]+|#")
_REFERENCE = re.compile(
    r"#|order|orders|ref|reference|invoice|ticket|case|booking|tracking|parcel|shipment|transaction"
    r"|payment|customer|account|serial|imei|voucher|article|id|bestell\w*|rechnung\w*|kunden\w*"
    r"|sendung\w*|vorgang\w*|konto\w*|auftrag\w*|commande|facture|pedido|factura"
)
_PHONE_WORD = re.compile(
    r"phone|phones|telephone|tel|mobile|cell|call|ring|whatsapp|sms|fax|telefon\w*|handy\w*|mobil"
    r"|mobilnummer|portable|téléphone|teléfono|móvil|cellulare"
)


def redact_personal_data(text: str) -> tuple[str, dict[str, int]]:
    """Return ``text`` with personal data replaced, and how many of each kind there were.

    Kinds that did not occur are not counted. Redacting a redacted text changes nothing.
    """
    counts: Counter[str] = Counter()
    for find in (_mails, _ibans, _numbers):
        left = _Left(text)
        for start, end, kind in find(text, left):
            left.replace(start, end, PLACEHOLDERS[kind])
            counts[kind] += 1
        text = left.finish()
    return text, dict(counts)


class _Left:
    """The redacted text to the left of a scan. Rules that look back look at it, so that they see
    what they would see if the redacted text were redacted again."""

    __slots__ = ("_done", "_parts", "_tail", "_text")

    def __init__(self, text: str) -> None:
        self._text, self._parts, self._done, self._tail = text, list[str](), 0, ""

    def replace(self, start: int, end: int, placeholder: str) -> None:
        self._parts += [self._text[self._done : start], placeholder]
        self._tail = self.before(start) + placeholder
        self._done = end

    def before(self, at: int) -> str:
        """The last characters before ``at``, a place in the text as it was."""
        begin = max(self._done, at - _CONTEXT_CHARS)
        return (self._tail + self._text[begin:at])[-_CONTEXT_CHARS:]

    def finish(self) -> str:
        return "".join([*self._parts, self._text[self._done :]])


def _mails(text: str, _: _Left) -> Iterator[Span]:
    """Find an at sign, its domain, and everything before it that can be a local part. The walk to
    the left ends at the previous match, so no character is read more than once."""
    done = 0
    for at in _AT.finditer(text):
        domain = _DOMAIN.match(text, at.end()) if at.start() > done else None
        if domain is None:
            continue
        start = at.start()
        while start > done and _LOCAL.match(text, start - 1):
            start -= 1
        if start < at.start():
            done = domain.end()
            yield start, done, "mail"


def _ibans(text: str, _: _Left) -> Iterator[Span]:
    done = 0
    for start in _IBAN_START.finditer(text):
        length = int(_IBAN_LENGTHS.get(start[1].upper(), 0))
        body = _IBAN_BODY.match(text, start.start())
        if not length or body is None or start.start() < done:
            continue
        places = [at for at in range(body.start(), body.end()) if text[at].isalnum()][:length]
        end = places[-1] + 1
        if len(places) < length or (end < len(text) and text[end].isalnum()):
            continue
        compact = "".join(text[at] for at in places)
        # ISO 7064 MOD 97-10: the first four go last, letters count from 10.
        if (
            int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97
            == 1
        ):
            done = end
            yield start.start(), end, "iban"


def _numbers(text: str, left: _Left) -> Iterator[Span]:
    """Find cards and phone numbers in every run of digit groups, from left to right."""
    for found in _RUN.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, found.start(), found.end())]
        if found.end() < len(text) and (text[found.end()].isalnum() or text[found.end()] == "_"):
            groups.pop()  # "2nd", "1234ab": not a number of its own
        index, run = 0, _Run(text, groups, found.start(), 0)
        while index < len(groups):
            kind, used = "card", _card(run, index)
            if not used and (index == run.first or _is_apart(run, index)):
                kind, used = "phone", _phone(run, index, left)
            if used > 0:
                end = groups[index + used - 1][1]
                yield _span_start(run, groups[index][0], end), end, kind
                run = _Run(text, groups, end, index + used)
            index += max(1, abs(used))


@dataclass(frozen=True, slots=True)
class _Run:
    """Digit groups with single separators between them. ``start`` is where the run begins and
    ``first`` its first group: what follows a redacted number is a run of its own."""

    text: str
    groups: list[tuple[int, int]]
    start: int
    first: int


def _span_start(run: _Run, digits: int, end: int) -> int:
    """Include the plus sign, and a bracket that closes before ``end``."""
    start = digits
    while start > run.start and run.text[start - 1] in "(+":
        start -= 1
    return start + 1 if run.text[start] == "(" and ")" not in run.text[start:end] else start


def _digits(text: str, groups: list[tuple[int, int]]) -> str:
    """Return the groups' digits in ASCII, in whatever script they are written."""
    return "".join(str(int(digit)) for start, end in groups for digit in text[start:end])


def _card(run: _Run, index: int) -> int:
    """Return how many groups from ``index`` on are a card number: 0 when none."""
    groups, size = run.groups, 0
    for last in range(index, len(groups)):
        start, end = groups[last]
        size += end - start
        if size > 19 or (last > index and start - groups[last - 1][1] != 1):
            break
        if size >= 13:
            digits = _digits(run.text, groups[index : last + 1])
            if _CARD.fullmatch(digits) and _luhn(digits):
                return last + 1 - index
        if end - start < 4:  # only the last group of a card number is short
            break
    return 0


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812: every second digit from the right is doubled; the digit sum ends in 0."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _phone(run: _Run, index: int, left: _Left) -> int:
    """Return how many groups from ``index`` on are a phone number; minus how many are a date."""
    text, (start, end) = run.text, run.groups[index]
    window = _window(run.groups, index)
    size = sum(b - a for a, b in window)
    if index == run.first and "+" in text[run.start : start]:
        return len(window) if size >= 8 and int(text[start]) else 0
    if _DATE.match(text, start):
        return -3
    sizes = [b - a for a, b in window[:4]]
    leads_with_zero = not int(text[start]) and end - start > 1
    american = sizes[:3] == [3, 3, 4] or (int(text[start]) == 1 and sizes == [1, 3, 3, 4])
    shaped = leads_with_zero or american
    if (index > run.first and not shaped) or _is_amount(run, window, index):
        return 0
    reference, phone_word = _context(left.before(start))
    if phone_word and index == run.first:
        return len(window) if size >= 7 else 0
    return _shaped_phone(text, window, american=american) if shaped and not reference else 0


def _is_apart(run: _Run, index: int) -> bool:
    """Whether a blank or a bracket stands before a group: dashes and dots tie digits together."""
    between = run.text[run.groups[index - 1][1] : run.groups[index][0]]
    return any(character in " \t\xa0(" for character in between)


def _window(groups: list[tuple[int, int]], index: int) -> list[tuple[int, int]]:
    """The longest stretch of groups that a phone number can be: 15 digits (ITU-T E.164)."""
    window, size = [], 0
    for start, end in groups[index : index + 15]:
        size += end - start
        if size > 15:
            break
        window.append((start, end))
    return window


def _shaped_phone(text: str, window: list[tuple[int, int]], *, american: bool) -> int:
    """Return how many groups have a phone number's shape where no word says what they are."""
    digits, sizes = _digits(text, window), [b - a for a, b in window]
    if american:
        used = 3 if sizes[0] == 3 else 4
        return used if digits[sum(sizes[:used]) - 10] in "23456789" else 0
    for used in range(len(window), 0, -1):
        size = sum(sizes[:used])
        if digits.startswith("00"):
            fits = size >= 10 and digits[2] != "0"
        else:
            fits = (10 if used == 1 else 9) <= size <= 12
        if fits:
            return used
    return 0


def _is_amount(run: _Run, window: list[tuple[int, int]], index: int) -> bool:
    """Whether the digits are money or a number in groups of thousands."""
    if not window:
        return True  # too long for any phone number
    start, end = window[0][0], window[-1][1]
    if _MONEY_BEFORE.search(run.text[max(0, start - 5) : start]):
        return True
    if index + len(window) == len(run.groups) and _MONEY_AFTER.match(run.text, end):
        return True
    first = window[0][1] - window[0][0]
    thousands = all(b - a == 3 for a, b in window[1:])
    return len(window) > 1 and first <= 3 and run.text[start] != "0" and thousands


def _context(before: str) -> tuple[bool, bool]:
    """What the last words before a number say it is: (a reference number, a phone number)."""
    sentence = _SENTENCE.split(_PLACEHOLDER.sub("", before.casefold()))[-1]
    for word in reversed(_WORD.findall(sentence)[-4:]):
        if _REFERENCE.fullmatch(word):
            return True, False
        if _PHONE_WORD.fullmatch(word):
            return False, True
    return False, False
