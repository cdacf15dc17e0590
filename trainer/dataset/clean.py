"""Clean messages as serving does, and further on request.

``prepare`` makes the ``Cleaner`` from its options; ``propose`` and ``tasks`` make it from a
dataset's manifest, so that new messages are cleaned as the dataset's were.

Quotations and signatures are cut by strict rules, because a wrong cut loses the customer's words:
the line that introduces a quotation contains a date or an address, and only a few short lines
follow closing words. The phrases are English, German, French and Spanish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.dataset.folder import Dataset, Example
from trainer.dataset.names import NameRedaction, load_names
from trainer.dataset.settings import PrepareSettings
from trainer.errors import BadInput
from worker.contract.redact import REDACTION, redact_personal_data
from worker.contract.text import normalize


@dataclass(frozen=True, slots=True)
class CleanText:
    """A clean message. ``changed`` names the steps that changed it, ``redacted`` counts pieces of
    personal data by kind, ``left_whole`` counts steps that were skipped because they would have
    emptied it."""

    text: str
    changed: tuple[str, ...] = ()
    redacted: Mapping[str, int] = field(default_factory=dict)
    left_whole: int = 0


@dataclass(frozen=True, slots=True)
class Cleaner:
    """The steps after ``normalize``. ``redaction`` names the rules that serving applies too."""

    quotes: bool = False
    signatures: bool = False
    redaction: str | None = None
    names: NameRedaction | None = None

    def clean(self, message: str) -> CleanText:
        """Clean one message."""
        # Redaction comes last, on the normalized text, as in serving. Addresses before names: a
        # name within a mail address is part of the address.
        text = normalize(message)
        changed = ["normalized"] if text != message else []
        left_whole = 0
        for name, asked, step in (
            ("quotes stripped", self.quotes, strip_quotes),
            ("signature stripped", self.signatures, strip_signature),
        ):
            left = step(text) if asked else text
            shorter = normalize(left) if left != text else text
            if text and not shorter:
                left_whole += 1
            elif shorter != text:
                changed.append(name)
                text = shorter
        found: dict[str, int] = {}
        if self.redaction is not None:
            text, found = redact_personal_data(text)
        if self.names is not None:
            text, count = self.names.redact(text)
            found |= {"name": count} if count else {}
        if found:
            changed.append("redacted")
        return CleanText(text, tuple(changed), found, left_whole)


def make_cleaner(settings: PrepareSettings) -> Cleaner:
    """Return the cleaner of these settings. Raises BadInput if a package or a model is missing."""
    return Cleaner(
        quotes=settings.strip_quotes,
        signatures=settings.strip_signatures,
        redaction=REDACTION if settings.redact else None,
        names=load_names(settings.redact_names) if settings.redact_names else None,
    )


def cleaner_of(dataset: Dataset, *, names: str | None = None) -> Cleaner:
    """Return the cleaner for new messages of ``dataset``. ``names`` is the model of ``prepare
    --redact-names``; without it names stay.

    Raises BadInput if the model is not the dataset's, or this version does not have its redaction
    rules.
    """
    done = cleaning_of(dataset)
    where = dataset.directory
    if dataset.redaction not in {None, REDACTION}:
        raise BadInput(
            f"{where}: was redacted by {dataset.redaction!r}, but this version has {REDACTION!r}: "
            "prepare the dataset again"
        )
    model = load_names(names) if names is not None else None
    if model is not None and model.facts != done["redact names"]:
        there = done["redact names"]
        raise BadInput(
            f"--redact-names {names}: is {describe_names(model.facts)}, but names in {where} were "
            + (f"redacted by {describe_names(there)}: use that one" if there else
               "not redacted: leave the option out")
        )  # fmt: skip
    return Cleaner(
        quotes=done["strip quotes"],
        signatures=done["strip signatures"],
        redaction=dataset.redaction,
        names=model,
    )


def cleaning_of(dataset: Dataset) -> dict[str, Any]:
    """Return the cleaning that a dataset's manifest records, option -> value, without redaction by
    rules, which can be applied to any text later."""
    settings = dataset.record.get("settings") or {}
    names: Mapping[str, Any] = dataset.record.get("names_redaction") or {}
    return {
        "strip quotes": bool(settings.get("strip_quotes")),
        "strip signatures": bool(settings.get("strip_signatures")),
        "redact names": {key: names[key] for key in names if key not in _COUNTED} or None,
    }


_COUNTED = ("messages", "marked")


def describe_cleaning(
    splits: Mapping[str, Sequence[Example]], names: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the manifest's entry about the redaction of names, with the number of messages in
    ``splits`` that contain a mark: serving will see names there."""
    if not names:
        return {}
    messages = [example.message for some in splits.values() for example in some]
    marked = sum(names["mark"] in message for message in messages)
    return {"names_redaction": {**names, "messages": len(messages), "marked": marked}}


def describe_names(facts: Mapping[str, Any]) -> str:
    """Return what redacted names, in a few words."""
    config = facts.get("config")
    rules = [config["name"], config["sha256"][:12]] if config else []
    return " ".join([facts["by"], *facts["models"], *rules])


_WHOLE = Cleaner(quotes=True, signatures=True)


def canonical(message: str) -> str:
    """Return the customer's own words in lower case, the same for copies of a message with other
    signatures, quotations, redactions or cleaning. Empty only for an empty message."""
    # Redacted first, because whether a line introduces a quotation depends on the address in it:
    # a copy that was redacted before must take the same path.
    text = redact_personal_data(normalize(message))[0]
    while (shorter := _WHOLE.clean(text).text) != text:
        text = shorter
    return text.casefold()


# Everything from such a line on is the earlier message.
_BEGINS = re.compile(
    r"-{2,} ?(?:original message|forwarded message|original-nachricht|message d'origine) ?-{2,}"
    r"|-* ?begin forwarded message ?-*:?",
    re.IGNORECASE,
)
# "On Mon, 3 Jun 2024 at 10:12, Ann <ann@example.com> wrote:", folded over at most three lines.
# It must contain a date or an address: "On Monday my landlord wrote:" is the customer's own.
_OPENS = re.compile(r"(?:On|Am|Le|El) ")
_WROTE = re.compile(r"\b(?:wrote|schrieb(?: [^:]{1,80})?|a écrit|escribió) ?:$")
_WHEN = re.compile(r"\d{1,2}:\d\d|\d{4}|@")
_INTRODUCTION_CHARS = 300
# Outlook's block of headers: From, then two or more of the others.
_FROM = re.compile(r"\*?(?:From|Von|De):\*? ")
_HEADER = re.compile(r"\*?(?:Sent|Date|To|Cc|Subject|Gesendet|An|Betreff):")

# RFC 3676 section 4.3: a line of two dashes and a space; mail programs often drop the space.
_DELIMITER = "--"
_DELIMITED_CHARS = 600
# Only lines that mail programs add: "Sent from my phone, but nothing came" is a message.
# [^\W\d]*\d\w* and not \w*\d\w*, whose ambiguity doubled the time with every digit.
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
# Limits on the lines after closing words: name, position, company, telephone, address.
_LINES_AFTER = 6
_CHARS_A_LINE = 60
_WORDS_A_LINE = 8


def strip_quotes(text: str) -> str:
    """Return a normalized message without quoted lines ("> ..."), and without everything from "On
    ... wrote:", "-----Original Message-----" or a block of mail headers on.

    If quoted lines follow the introduction, only those are cut: the lines between them are the
    customer's answers. The result's white space is not normalized.
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
    """Return how many of the first lines introduce a quotation, or 0."""
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
    """Return a normalized message without the lines from "-- ", "Sent from my" or closing words on.

    Cut only near the end: at most 600 characters may follow "-- ", and at most six lines may follow
    closing words, each of at most eight words and not a question.
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
    end = len(lines)
    while end and not lines[end - 1]:
        end -= 1
    return lines[:end]
