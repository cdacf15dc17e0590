"""How messages are cleaned: always as serving does, and further where the user asked for it.

There is one ``Cleaner``. ``prepare`` makes it from its options; ``propose`` and ``tasks`` make it
from a dataset's manifest, so that a later message gets the form that it would have in the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trainer.dataset.folder import Dataset, Example, Row
from trainer.dataset.mails import strip_quotes, strip_signature
from trainer.dataset.settings import OnBad, PrepareSettings
from trainer.errors import BadInput
from worker.contract.redact import REDACTION, redact_personal_data
from worker.contract.text import normalize

if TYPE_CHECKING:
    from trainer.dataset.names import NameRedaction


MAX_MESSAGE_BYTES = 1 << 20
"""Of UTF-8: more is an attachment or a broken export, not what somebody wrote."""


@dataclass(frozen=True, slots=True)
class CleanText:
    """A clean message. ``changed`` names the steps that changed it, ``redacted`` counts pieces of
    personal data by kind, ``left_whole`` the steps that would have emptied it and were not taken.
    """

    text: str
    changed: tuple[str, ...] = ()
    redacted: Mapping[str, int] = field(default_factory=dict)
    left_whole: int = 0


@dataclass(frozen=True, slots=True)
class Cleaner:
    """What is done to a message beyond ``normalize``. ``redaction`` names the rules that serving
    applies too."""

    quotes: bool = False
    signatures: bool = False
    redaction: str | None = None
    names: NameRedaction | None = None

    def clean(self, message: str) -> CleanText:
        """Clean one message. Redaction comes last, on the normalized text, as in serving: its rules
        before names, since a name within an address is part of that."""
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
    """Return what cleans as ``prepare`` was asked to. Raises BadInput where a package or a model is
    not there."""
    return Cleaner(
        quotes=settings.strip_quotes,
        signatures=settings.strip_signatures,
        redaction=REDACTION if settings.redact else None,
        names=_load_names(settings.redact_names) if settings.redact_names else None,
    )


def cleaner_of(dataset: Dataset, *, names: str | None = None) -> Cleaner:
    """Return the cleaner for new messages of ``dataset``. ``names`` is the model that ``prepare
    --redact-names`` took; without it names stay.

    Raises BadInput where the model is not that of the dataset, or its rules of redaction are not
    known to this version.
    """
    done = cleaning_of(dataset)
    where = dataset.directory
    if dataset.redaction not in {None, REDACTION}:
        raise BadInput(
            f"{where}: was redacted by {dataset.redaction!r}, and this version knows "
            f"{REDACTION!r}: prepare the dataset again"
        )
    model = _load_names(names) if names is not None else None
    if model is not None and model.facts != done["redact names"]:
        there = done["redact names"]
        raise BadInput(
            f"--redact-names {names}: is {describe_names(model.facts)}, and names in {where} were "
            + (f"redacted by {describe_names(there)}: give that one" if there else
               "not redacted: leave the option out")
        )  # fmt: skip
    return Cleaner(
        quotes=done["strip quotes"],
        signatures=done["strip signatures"],
        redaction=dataset.redaction,
        names=model,
    )


def cleaning_of(dataset: Dataset) -> dict[str, Any]:
    """Return the cleaning that a dataset's manifest records, option -> value, without the redaction
    of personal data by rules: those can be applied to any text later."""
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
    """Return a manifest's entry about what redacted names (``names``), with the number of messages
    that hold a mark, counted in ``splits``: serving does not put it there."""
    if not names:
        return {}
    messages = [example.message for some in splits.values() for example in some]
    marked = sum(names["mark"] in message for message in messages)
    return {"names_redaction": {**names, "messages": len(messages), "marked": marked}}


def describe_names(facts: Mapping[str, Any]) -> str:
    """Say by what names were redacted."""
    config = facts.get("config")
    rules = [config["name"], config["sha256"][:12]] if config else []
    return " ".join([facts["by"], *facts["models"], *rules])


_WHOLE = Cleaner(quotes=True, signatures=True)


def canonical(message: str) -> str:
    """Return the customer's own words in lower case: what copies of a message share, whatever was
    signed, quoted, redacted or cleaned in each. Not empty unless the message is.

    It depends on no option. Personal data is redacted first: whether a line introduces a quotation
    depends on the address in it.
    """
    text = redact_personal_data(normalize(message))[0]
    while (shorter := _WHOLE.clean(text).text) != text:
        text = shorter
    return text.casefold()


def _load_names(model: str) -> NameRedaction:
    from trainer.dataset.names import load_names

    return load_names(model)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The rows with clean messages. ``changed`` counts the messages that each step changed,
    ``redacted`` the pieces of personal data by kind, ``left_whole`` the messages that stripping
    would have emptied, which stay as they were."""

    rows: tuple[Row, ...]
    changed: dict[str, int]
    redacted: dict[str, int]
    left_whole: int


def clean(
    rows: Sequence[Row], cleaner: Cleaner, *, tick: Callable[[int], None] = lambda _: None
) -> Cleaned:
    """Clean the message of every row."""
    changed: Counter[str] = Counter(normalized=0)
    if cleaner.redaction or cleaner.names:
        changed["redacted"] = 0
    redacted: Counter[str] = Counter()
    left_whole = 0
    after = []
    for row in rows:
        done = cleaner.clean(row.message)
        changed.update(done.changed)
        redacted.update(done.redacted)
        left_whole += done.left_whole
        # Most messages are clean: a second copy of an export is not made.
        after.append(row if done.text == row.message else replace(row, message=done.text))
        tick(1)
    return Cleaned(tuple(after), dict(changed), dict(redacted), left_whole)


def refuse_bad(
    cleaned: Sequence[Row], raw: Sequence[Row], settings: PrepareSettings
) -> tuple[list[Row], dict[str, int]]:
    """Drop the rows whose message is empty when clean, or over ``MAX_MESSAGE_BYTES`` as it came.
    Return the rest and the counts; raise BadInput with the first row where the settings say that
    such a row is an error."""
    usable = []
    empty = too_long = 0
    for row, before in zip(cleaned, raw, strict=True):
        size = len(before.message.encode("utf-8", "surrogatepass"))
        if size > MAX_MESSAGE_BYTES:
            if settings.unusable is OnBad.ERROR:
                raise BadInput(
                    f"{row.where}: the message of {row.id!r} has {size} bytes, more than "
                    f"{MAX_MESSAGE_BYTES}: shorten it or choose --unusable drop"
                )
            too_long += 1
        elif not row.message:
            if settings.unusable is OnBad.ERROR:
                raise BadInput(
                    f"{row.where}: the message of {row.id!r} is empty: fill it in or choose "
                    "--unusable drop"
                )
            empty += 1
        else:
            usable.append(row)
    return usable, {"empty_dropped": empty, "too_long_dropped": too_long}
