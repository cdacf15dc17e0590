"""Redact personal data in a message's text by fixed rules, the same in training and serving.

Redacted are mail addresses, IBANs and payment card numbers with valid check digits, and phone
numbers. Order numbers, amounts and dates stay, because labels depend on them: a bare run of digits
is a phone number only if its shape or the words before it say so.

Time is linear in the text's length, about a microsecond per character at worst: each pattern reads
a bounded distance, expensive checks come last, and no text is read again for each group of digits
(``python -m tests.fuzz slow`` searches for counterexamples). No rule looks across a line end or
farther than ``MARGIN_CHARS``, so the ends of a long text can be redacted without its middle.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

REDACTION = "pii-2"
"""Name of the rules below. A manifest records it; changing a rule changes the name."""

PLACEHOLDERS = {"mail": "[mail]", "iban": "[iban]", "card": "[card]", "phone": "[phone]"}
"""Replacements by kind. No rule matches a placeholder or text that touches one, and a placeholder
is never longer than what it replaces."""

MARGIN_CHARS = 640
"""How far from a place other text can influence what is redacted there: the longest address, an
IBAN and a phone number in a row (about 540 characters)."""

Span = tuple[int, int, str]

_AT = re.compile(r"[@＠]|(?<=\w) ?[(\[] ?at ?[)\]] ?(?=\w)", re.IGNORECASE)
# RFC 5321, section 4.5.3.1: a local part has at most 64 characters, a domain 255. Of a longer local
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
# ISO 7064: letters count from 10. Separators are dropped.
_IBAN_DIGITS = str.maketrans(
    {" ": "", "-": ""} | {chr(ord("A") + at): str(10 + at) for at in range(26)}
)

_BETWEEN = r"[ \t\xa0.\-/()\u2010-\u2015]{0,3}"
# Fewer than seven digits are never redacted, and most numbers in messages have fewer.
_RUN = re.compile(rf"(?:\(?\+\(?|(?<!\w)\(?)\d(?:{_BETWEEN}\d){{6,}}+")
_GROUP = re.compile(r"\d+")
_APART = frozenset(" \t\xa0(")
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})(?![./-]?\d)")
# First digits and lengths of the large card schemes (ISO/IEC 7812).
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
    """Return ``text`` with personal data replaced, and the count of each kind that occurred.

    Redacting a redacted text changes nothing.
    """
    counts: Counter[str] = Counter()
    redacted, _, _ = _redact(text, 0, counts)
    return redacted, dict(counts)


def redact_head(text: str, chars: int) -> str:
    """Return the redacted form of the first ``chars`` characters, as in the whole text redacted,
    without redacting all of it. Personal data that the cut divides is replaced in full."""
    redacted, _, end = _redact(text[: chars + MARGIN_CHARS], min(chars, len(text)), Counter())
    return redacted[:end]


def redact_tail(text: str, chars: int) -> str:
    """Return the redacted form of the last ``chars`` characters, without redacting all of the text.

    The result is that of the whole text redacted if a line begins within the ``MARGIN_CHARS``
    before them. Otherwise a run of digits longer than the margin is divided from the margin on
    rather than from its beginning; all of it is still redacted.
    """
    begin = max(0, len(text) - chars - MARGIN_CHARS)
    redacted, start, _ = _redact(text[begin:], max(0, len(text) - chars) - begin, Counter())
    return redacted[start:]


def _redact(text: str, at: int, counts: Counter[str]) -> tuple[str, int, int]:
    """Return the redacted text, and where position ``at`` starts and ends in it: equal, unless
    ``at`` is inside personal data; then they are the placeholder's."""
    begin = end = at
    # In this order: a mail address may contain digits, and an IBAN's digits look like a number.
    for find in (_mails, _ibans, _numbers):
        left = _Left(text)
        for start, stop, kind in find(text, left):
            left.replace(start, stop, PLACEHOLDERS[kind])
            counts[kind] += 1
        begin, end = left.place(begin)[0], left.place(end)[1]
        text = left.finish()
    return text, begin, end


class _Left:
    """The redacted text to the left of a scan.

    Rules look back at this rather than at the original text: they then see what they would see in
    the redacted text, so that redacting twice changes nothing.
    """

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
        """The last characters before ``at``, a position in the original text."""
        begin = max(self._done, at - _CONTEXT_CHARS)
        return (self._tail + self._text[begin:at])[-_CONTEXT_CHARS:]

    def place(self, at: int) -> tuple[int, int]:
        """Return the start and end in the redacted text of position ``at`` in the original."""
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
    """Find an at sign, then its domain, then the local part before it."""
    done = 0
    for at in _AT.finditer(text):
        if at.start() <= done:
            continue
        domain = _DOMAIN.match(text, at.end(), at.end() + _DOMAIN_CHARS)
        if domain is None:
            continue
        # Matched backwards: a forward search would start again at every character (quadratic).
        before = text[max(done, at.start() - _LOCAL_CHARS) : at.start()][::-1]
        if local := _LOCAL.match(before):
            done = domain.end()
            yield at.start() - local.end(), done, "mail"


def _ibans(text: str, _: _Left) -> Iterator[Span]:
    done = 0
    for start in _IBAN_START.finditer(text):
        pattern = _IBANS.get(start[1].upper())
        found = pattern.match(text, start.start()) if pattern and start.start() >= done else None
        # ISO 7064 MOD 97-10: the first four characters are moved to the end.
        if found and int((found[0][4:] + found[0][:4]).upper().translate(_IBAN_DIGITS)) % 97 == 1:
            done = found.end()
            yield start.start(), done, "iban"


def _numbers(text: str, left: _Left) -> Iterator[Span]:
    """Find cards and phone numbers in every run of digit groups, from left to right."""
    for found in _RUN.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, found.start(), found.end())]
        after = text[found.end() : found.end() + 1]
        if after.isalnum() or after == "_":
            groups.pop()  # "2nd", "1234ab": the last group is part of a word
        yield from _Run(text, groups, found.start(), left).spans()


class _Run:
    """Digit groups with single separators between them.

    ``_first`` is the first group not redacted yet and ``_start`` where it may begin: the rest of a
    run after a redacted number is a new run.
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
        """Yield the spans to redact: one or more groups, with the plus and brackets before them."""
        index, groups = 0, self._groups
        while index < len(groups):
            # Cards first: many card numbers begin with what could be a phone number.
            kind, used = "card", self._card(index)
            if not used and (index == self._first or self._is_apart(index)):
                kind, used = "phone", self._phone(index)
            if used > 0:
                end = groups[index + used - 1][1]
                yield self._span_start(groups[index][0], end), end, kind
                self._start, self._first, self._context = end, index + used, None
            index += max(1, abs(used))

    def _is_apart(self, index: int) -> bool:
        """Whether a blank or bracket precedes a group: dashes and dots join groups."""
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
        """Return how many groups from ``index`` on form a card number, or 0."""
        groups, offsets, begin = self._groups, self._offsets, self._offsets[index]
        for last in range(index, len(groups)):
            size = offsets[last + 1] - begin
            if size > 19 or (last > index and groups[last][0] - groups[last - 1][1] != 1):
                break
            if size >= 13:
                digits = self._digits[begin : begin + size]
                if _CARD.fullmatch(digits) and _luhn(digits):
                    return last + 1 - index
            if self._size(last) < 4:  # only a card number's last group may be short
                break
        return 0

    def _phone(self, index: int) -> int:
        """Return how many groups from ``index`` on form a phone number; negative: they are a date.

        The words before it are read last, because that costs most.
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
        """Return how many groups have the shape of a phone number, whatever the words before."""
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
        """Whether the digits are money or a number with thousands separators."""
        if not many:
            return True  # too long for a phone number
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
        """Whether the words before ``start`` announce (a reference, a phone number).

        They are read once per run: there are no words between its groups, so for later groups they
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
    """Convert digits of any script to ASCII."""
    return digits if digits.isascii() else "".join([str(int(digit)) for digit in digits])


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812: with every second digit from the right doubled, the digit sum ends in 0."""
    single, doubled = digits[::-2], digits[-2::-2].translate(_LUHN_DOUBLED)
    return sum(map(int, single + doubled)) % 10 == 0


def _context(before: str) -> tuple[str, int]:
    """Return what the last words before a number announce ("reference", "phone" or ""), and that
    word's distance from the number in characters."""
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
