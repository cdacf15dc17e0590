"""Removes personal data from a message's text by fixed rules, the same in training and serving.

What is redacted: mail addresses, IBANs and payment card numbers that pass their check digits, and
phone numbers. Order numbers, amounts and dates are what a clerk reads, so they stay: a bare run
of digits is a phone number only where its shape or the words before it say so.

Time grows linearly with any text, by about a microsecond a character at worst: each pattern reads
a bounded distance, what is expensive is asked last, and nothing is read again for each group of
digits (``python -m tests.fuzz slow`` looks for texts that break this). No rule looks across a line
end or farther than ``MARGIN_CHARS``, so the ends of a long text are redacted without its middle.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

REDACTION = "pii-2"
"""Name of the rules below. A manifest records it; changing the rules changes it."""

PLACEHOLDERS = {"mail": "[mail]", "iban": "[iban]", "card": "[card]", "phone": "[phone]"}
"""What replaces personal data, by kind. No rule matches a placeholder or a text that touches it,
and none is longer than what it replaces."""

MARGIN_CHARS = 640
"""How far to either side of a place personal data may decide what is redacted there: an address of
the greatest length, an IBAN and a phone number in a row (about 540 characters)."""

Span = tuple[int, int, str]

_AT = re.compile(r"[@＠]|(?<=\w) ?[(\[] ?at ?[)\]] ?(?=\w)", re.IGNORECASE)
# RFC 5321, section 4.5.3.1: a local part has 64 characters at most, a domain 255. Of a longer local
# part the last 128 are redacted.
_LOCAL_CHARS, _DOMAIN_CHARS = 128, 255
_LOCAL = re.compile(r"[\w.+%'’&-]+")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,}")

_IBAN_START = re.compile(r"(?<![^\W_])([A-Za-z]{2})[0-9]{2}")
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
_IBANS = {
    country: re.compile(rf"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{{int(length) - 1}}}(?![^\W_])")
    for country, length in _IBAN_LENGTHS.items()
}
# ISO 7064: letters count from 10. What separates groups goes.
_IBAN_DIGITS = str.maketrans(
    {" ": "", "-": ""} | {chr(ord("A") + at): str(10 + at) for at in range(26)}
)

_BETWEEN = r"[ \t\xa0.\-/()\u2010-\u2015]{0,3}"
# Fewer than seven digits are never anything, and most numbers in a message have fewer.
_RUN = re.compile(rf"(?:\(?\+\(?|(?<!\w)\(?)\d(?:{_BETWEEN}\d){{6,}}+")
_GROUP = re.compile(r"\d+")
_APART = frozenset(" \t\xa0(")
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})(?![./-]?\d)")
# Digits of the large card schemes: first digits with the lengths they come in (ISO/IEC 7812).
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5\d|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12}|3[05]\d{14}|6\d{12,18}"
)
_LUHN_DOUBLED = str.maketrans("0123456789", "0246813579")
_MONEY_BEFORE = re.compile(r"(?:[€$£¥]|\b(?:eur|usd|gbp|chf))[^\S\n]?\Z", re.IGNORECASE)
_MONEY_AFTER = re.compile(
    rf",\d\d?(?!{_BETWEEN}\d)|[^\S\n]?(?:[€$£¥]|(?:eur|euros?|usd|gbp|chf|dollars?|pounds?)\b)",
    re.IGNORECASE,
)

# --- the words before a number ---
_CONTEXT_CHARS = 40
_CONTEXT_WORDS = 4
_WORD = re.compile(
    r"\[?(?:mail|iban|card|phone)\]|([^\W\d_]+|\#)|((?<!no)(?<!nr)[.!?;\n])", re.IGNORECASE
)
_REFERENCES = frozenset(
    (
        *("#", "order", "orders", "ref", "reference", "invoice", "ticket", "case", "booking"),
        *("tracking", "parcel", "shipment", "transaction", "payment", "customer", "account"),
        *("serial", "imei", "voucher", "article", "id", "commande", "facture", "pedido", "factura"),
    )
)
_REFERENCE_STEMS = ("bestell", "rechnung", "kunden", "sendung", "vorgang", "konto", "auftrag")
_PHONE_WORDS = frozenset(
    (
        *("phone", "phones", "telephone", "tel", "mobile", "cell", "call", "ring", "whatsapp"),
        *("sms", "fax", "mobil", "mobilnummer", "portable", "téléphone", "teléfono", "móvil"),
        "cellulare",
    )
)
_PHONE_STEMS = ("telefon", "handy")


def redact_personal_data(text: str) -> tuple[str, dict[str, int]]:
    """Return ``text`` with personal data replaced, and how many of each kind there were.

    Kinds that did not occur are not counted. Redacting a redacted text changes nothing.
    """
    counts: Counter[str] = Counter()
    redacted, _, _ = _redact(text, 0, counts)
    return redacted, dict(counts)


def redact_head(text: str, chars: int) -> str:
    """Return what the first ``chars`` characters are in the redacted text, without redacting all of
    it. A placeholder is there in full where the place is in what it replaces."""
    redacted, _, end = _redact(text[: chars + MARGIN_CHARS], min(chars, len(text)), Counter())
    return redacted[:end]


def redact_tail(text: str, chars: int) -> str:
    """Return what the last ``chars`` characters are in the redacted text, without redacting all of
    it.

    Exactly that where a line begins among the ``MARGIN_CHARS`` before them. Else a run of digits
    that is longer than these is divided from there on, not from its beginning.
    """
    begin = max(0, len(text) - chars - MARGIN_CHARS)
    redacted, start, _ = _redact(text[begin:], max(0, len(text) - chars) - begin, Counter())
    return redacted[start:]


def _redact(text: str, at: int, counts: Counter[str]) -> tuple[str, int, int]:
    """Return the redacted text, and where in it that begins and ends which stands at ``at``: one
    place, or the ends of a placeholder."""
    begin = end = at
    for find in (_mails, _ibans, _numbers):
        left = _Left(text)
        for start, stop, kind in find(text, left):
            left.replace(start, stop, PLACEHOLDERS[kind])
            counts[kind] += 1
        begin, end = left.place(begin)[0], left.place(end)[1]
        text = left.finish()
    return text, begin, end


class _Left:
    """The redacted text to the left of a scan. Rules that look back look at it, so that they see
    what they would see if the redacted text were redacted again."""

    __slots__ = ("_done", "_parts", "_spans", "_tail", "_text")

    def __init__(self, text: str) -> None:
        self._text, self._parts, self._done, self._tail = text, list[str](), 0, ""
        self._spans = list[tuple[int, int, int]]()

    def replace(self, start: int, end: int, placeholder: str) -> None:
        self._parts += [self._text[self._done : start], placeholder]
        self._tail = self.before(start) + placeholder
        self._done = end
        self._spans.append((start, end, len(placeholder)))

    def before(self, at: int) -> str:
        """The last characters before ``at``, a place in the text as it was."""
        begin = max(self._done, at - _CONTEXT_CHARS)
        return (self._tail + self._text[begin:at])[-_CONTEXT_CHARS:]

    def place(self, at: int) -> tuple[int, int]:
        """Return between which places of the redacted text that is which stood at ``at``."""
        shorter = 0
        for start, end, size in self._spans:
            if at <= start:
                break
            if at < end:
                return start - shorter, start - shorter + size
            shorter += end - start - size
        return at - shorter, at - shorter

    def finish(self) -> str:
        return "".join([*self._parts, self._text[self._done :]])


def _mails(text: str, _: _Left) -> Iterator[Span]:
    """Find an at sign, its domain, and what before it can be a local part."""
    done = 0
    for at in _AT.finditer(text):
        if at.start() <= done:
            continue
        domain = _DOMAIN.match(text, at.end(), at.end() + _DOMAIN_CHARS)
        if domain is None:
            continue
        # Backwards: a search to the end would begin at every character.
        before = text[max(done, at.start() - _LOCAL_CHARS) : at.start()][::-1]
        if local := _LOCAL.match(before):
            done = domain.end()
            yield at.start() - local.end(), done, "mail"


def _ibans(text: str, _: _Left) -> Iterator[Span]:
    done = 0
    for start in _IBAN_START.finditer(text):
        pattern = _IBANS.get(start[1].upper())
        found = pattern.match(text, start.start()) if pattern and start.start() >= done else None
        # ISO 7064 MOD 97-10: the first four go last.
        if found and int((found[0][4:] + found[0][:4]).upper().translate(_IBAN_DIGITS)) % 97 == 1:
            done = found.end()
            yield start.start(), done, "iban"


def _numbers(text: str, left: _Left) -> Iterator[Span]:
    """Find cards and phone numbers in every run of digit groups, from left to right."""
    for found in _RUN.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, found.start(), found.end())]
        after = text[found.end() : found.end() + 1]
        if after.isalnum() or after == "_":
            groups.pop()  # "2nd", "1234ab": not a number of its own
        yield from _Run(text, groups, found.start(), left).spans()


class _Run:
    """Digit groups with single separators between them.

    ``_first`` is the first group that is not redacted and ``_start`` where it may begin: what
    follows a redacted number is a run of its own.
    """

    __slots__ = ("_context", "_digits", "_first", "_groups", "_left", "_offsets", "_start", "_text")

    def __init__(self, text: str, groups: list[tuple[int, int]], start: int, left: _Left) -> None:
        self._text, self._groups, self._start, self._left = text, groups, start, left
        self._first = 0
        self._context: tuple[int, str, int] | None = None
        self._digits = _ascii("".join([text[begin:end] for begin, end in groups]))
        # Where each group begins in the digits.
        self._offsets = [0, *accumulate(end - begin for begin, end in groups)]

    def spans(self) -> Iterator[Span]:
        """Yield what is redacted: one or more groups, with the plus and brackets before them."""
        index, groups = 0, self._groups
        while index < len(groups):
            kind, used = "card", self._card(index)
            if not used and (index == self._first or self._is_apart(index)):
                kind, used = "phone", self._phone(index)
            if used > 0:
                end = groups[index + used - 1][1]
                yield self._span_start(groups[index][0], end), end, kind
                self._start, self._first, self._context = end, index + used, None
            index += max(1, abs(used))

    def _is_apart(self, index: int) -> bool:
        """Whether a blank or a bracket stands before a group: dashes and dots tie digits."""
        between = self._text[self._groups[index - 1][1] : self._groups[index][0]]
        return not _APART.isdisjoint(between)

    def _span_start(self, digits: int, end: int) -> int:
        """Include the plus sign, and a bracket that closes before ``end``."""
        text, start = self._text, digits
        while start > self._start and text[start - 1] in "(+":
            start -= 1
        return start + 1 if text[start] == "(" and ")" not in text[start:end] else start

    def _size(self, index: int) -> int:
        start, end = self._groups[index]
        return end - start

    def _card(self, index: int) -> int:
        """Return how many groups from ``index`` on are a card number: 0 when none."""
        groups, offsets, begin = self._groups, self._offsets, self._offsets[index]
        for last in range(index, len(groups)):
            size = offsets[last + 1] - begin
            if size > 19 or (last > index and groups[last][0] - groups[last - 1][1] != 1):
                break
            if size >= 13:
                digits = self._digits[begin : begin + size]
                if _CARD.fullmatch(digits) and _luhn(digits):
                    return last + 1 - index
            if self._size(last) < 4:  # only the last group of a card number is short
                break
        return 0

    def _phone(self, index: int) -> int:
        """Return how many groups from ``index`` on are a phone number; minus how many are a date.

        What costs most, the words before it, is asked last.
        """
        text, (start, end) = self._text, self._groups[index]
        leading = self._digits[self._offsets[index]]
        # The longest stretch of groups that a phone number can be: 15 digits (ITU-T E.164).
        many = bisect_right(self._offsets, self._offsets[index] + 15, index) - 1 - index
        size = self._offsets[index + many] - self._offsets[index]
        is_first = index == self._first
        if is_first and "+" in text[self._start : start]:
            return many if size >= 8 and leading != "0" else 0
        if end - start <= 2 and text[end : end + 1] in "./-" and _DATE.match(text, start):
            return -3
        american = self._is_american(index, leading)
        is_shaped = american or (leading == "0" and end - start > 1)
        fits = self._shaped_phone(index, many, american=american) if is_shaped else 0
        if not fits and not (is_first and size >= 7):
            return 0
        if self._is_amount(index, many):
            return 0
        reference, phone_word = self._said_before(start)
        if phone_word and is_first:
            return many if size >= 7 else 0
        return 0 if reference else fits

    def _is_american(self, index: int, leading: str) -> bool:
        if leading == "1" and self._size(index) == 1:
            index += 1
        groups = self._groups[index : index + 3]
        return [end - start for start, end in groups] == [3, 3, 4]

    def _shaped_phone(self, index: int, many: int, *, american: bool) -> int:
        """Return how many groups have a phone number's shape where no word says what they are."""
        begin = self._offsets[index]
        if american:
            used = 3 if self._size(index) == 3 else 4
            area = self._offsets[index + used] - 10
            return used if self._digits[area] in "23456789" else 0
        international = self._digits.startswith("00", begin)
        if international and self._digits[begin + 2 : begin + 3] in ("", "0"):
            return 0
        for used in range(many, 0, -1):
            size = self._offsets[index + used] - begin
            if size < 9:
                return 0
            if size >= 10 if international else (10 if used == 1 else 9) <= size <= 12:
                return used
        return 0

    def _is_amount(self, index: int, many: int) -> bool:
        """Whether the digits are money or a number in groups of thousands."""
        if not many:
            return True  # too long for any phone number
        text, window = self._text, self._groups[index : index + many]
        start, end = window[0][0], window[-1][1]
        if _MONEY_BEFORE.search(text[max(0, start - 5) : start]):
            return True
        if index + many == len(self._groups) and _MONEY_AFTER.match(text, end):
            return True
        if many == 1 or self._size(index) > 3 or text[start] == "0":
            return False
        return all(b - a == 3 for a, b in window[1:])

    def _said_before(self, start: int) -> tuple[bool, bool]:
        """What the last words say of the number at ``start``: (a reference, a phone number).

        They are read once for a run: digits have no words between them, so that farther on they
        are only farther away, or in another sentence.
        """
        if self._context is None:
            self._context = start, *_context(self._left.before(start))
        first, said, distance = self._context
        between = self._text[first:start]
        if distance + len(between) > _CONTEXT_CHARS or "." in between:
            return False, False
        return said == "reference", said == "phone"


def _ascii(digits: str) -> str:
    """Return digits in ASCII, in whatever script they are written."""
    return digits if digits.isascii() else "".join([str(int(digit)) for digit in digits])


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812: every second digit from the right is doubled; the digit sum ends in 0."""
    single, doubled = digits[::-2], digits[-2::-2].translate(_LUHN_DOUBLED)
    return sum(map(int, single + doubled)) % 10 == 0


def _context(before: str) -> tuple[str, int]:
    """What the last words before a number say it is, "reference", "phone" or "", and how far from
    its end that word begins."""
    words = 0
    for found in reversed(list(_WORD.finditer(before))):
        if found[2]:
            break
        if found[1] is None:
            continue
        words += 1
        if words > _CONTEXT_WORDS:
            break
        word = found[1].casefold()
        distance = len(before) - found.start()
        if word in _REFERENCES or word.startswith(_REFERENCE_STEMS):
            return "reference", distance
        if word in _PHONE_WORDS or word.startswith(_PHONE_STEMS):
            return "phone", distance
    return "", 0
