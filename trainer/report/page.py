"""The building blocks of a report page, and how they become one HTML file.

A page is a list of sections. A section holds paragraphs, tables, charts, points of the summary,
message texts, and next steps.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from trainer import numbers
from trainer.artifacts.files import PRIVATE
from trainer.check.findings import CHECK, CheckRecord
from trainer.commands import command
from trainer.errors import BadInput
from trainer.facts import Table
from trainer.report.charts import Chart
from worker.contract.digest import write_atomically

GOOD, WARN, BAD, UNKNOWN = "good", "warn", "bad", "unknown"

MANY_OPENINGS = 5
"""Openings of a hold-out after which the page warns that choices may be fitted to it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the summary: its tone, the claim, the figures behind it, what to do."""

    tone: str
    claim: str
    detail: str
    more: str = ""


def describe_openings(openings: int) -> str:
    """Return how often a hold-out has been opened, in words."""
    if not openings:
        return "The hold-out has never been opened"
    return f"The hold-out has been opened {numbers.times(openings)}"


TONES = {"ok": GOOD, "warn": WARN, "fail": BAD, "skipped": UNKNOWN}
"""The tone of each verdict of the check."""


def check_point(check: CheckRecord) -> Point:
    """Return what the check of a dataset concluded, for the summary."""
    concerns = [each.name for each in check.findings if each.verdict in {"warn", "fail"}]
    if check.verdict == "fail":
        return Point(BAD, "The data failed its check", f"{', '.join(concerns)}.")
    if concerns:
        return Point(WARN, "The check of the data has concerns", f"{', '.join(concerns)}.")
    number = numbers.counted(len(check.findings), "check")
    return Point(GOOD, "The data passed its check", f"{number}, nothing to do.")


def openings_table(openings: Iterable[Mapping[str, Any]]) -> Table:
    """Return when, for what, and for which adapter a hold-out was opened."""
    rows = [
        (
            numbers.moment(opening.get("at")),
            str(opening.get("purpose", "")),
            numbers.short(opening.get("subject")),
        )
        for opening in openings
    ]
    return Table(("at", "purpose", "subject"), rows, words=3)


# Message texts: control characters are made visible, long texts are cut and folded.

MOST_CHARACTERS = 2_000
_EXCERPT = 220


@dataclass(frozen=True, slots=True)
class Shown:
    """A message text as a page shows it: ``rest`` is folded away, ``cut`` counts characters left
    out, ``unknown`` means that the dataset has no message with this id."""

    start: str
    rest: str = ""
    cut: int = 0
    unknown: bool = False


def show_text(texts: Mapping[str, str] | None, name: str) -> Shown | None:
    """Return the text of a message; None if the page shows no texts."""
    if texts is None:
        return None
    found = texts.get(name)
    if found is None:
        return Shown("", unknown=True)
    text = readable(found)
    cut = max(0, len(text) - MOST_CHARACTERS)
    text = text[:MOST_CHARACTERS]
    # Folding a remainder shorter than half an excerpt would save no room.
    if len(text) <= _EXCERPT * 1.5:
        return Shown(text, cut=cut)
    blank = text.rfind(" ", _EXCERPT // 2, _EXCERPT)
    at = blank + 1 if blank > 0 else _EXCERPT
    return Shown(text[:at], text[at:], cut)


def readable(text: str) -> str:
    """Return a text with its control characters made visible.

    C0 controls become their pictures (U+2400 on). Lone surrogates and C1 controls become U+FFFD,
    because a UTF-8 page cannot hold them. Line breaks and tabs stay. The template escapes markup.
    """
    kept = []
    for character in text:
        code = ord(character)
        if code < 0x20 and character not in "\n\t":
            kept.append(chr(0x2400 + code))
        elif 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(character)
    return "".join(kept)


# Sections and their blocks.


@dataclass(frozen=True, slots=True)
class Titled:
    """A block under its own heading; ``folded`` hides it until the reader opens it."""

    title: str
    block: Block
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """Content with its own template, ``templates/<template>.html.j2``."""

    template: str
    content: Mapping[str, Any]


Block = str | Table | Chart | Sequence[Chart] | Sequence[tuple[str, str]] | Titled | Drawn
"""A part of a section: a paragraph (``prose``), a table, charts side by side, (name, text)
rows, or content with its own template."""

Content = Sequence[Block] | str
"""The blocks of a section, or the sentence that says why there are none."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section; ``key`` is its anchor; ``folded`` hides it until the reader opens it."""

    key: str
    title: str
    content: Content
    folded: bool = False

    @property
    def present(self) -> bool:
        """Whether there is something to show."""
        return not isinstance(self.content, str)


def prose(text: str) -> Markup:
    """Return a paragraph as markup, words between backticks as code."""
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def small(text: str) -> Markup:
    """Return a paragraph in small print."""
    return Markup('<span class="small">{}</span>').format(prose(text))


@dataclass(frozen=True, slots=True)
class Head:
    """The top of a page. ``facts`` are (name, words, digest) each; ``private`` says which message
    texts the page holds, and is empty if it holds none."""

    kind: str
    name: str
    facts: tuple[tuple[str, str, str], ...]
    private: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A written page: its size in bytes, and by section key whether the section has content."""

    path: Path
    size_bytes: int
    sections: Mapping[str, bool]
    with_texts: bool


def write_page(out: Path, head: Head, sections: Sequence[Section]) -> Report:
    """Write the page; only owner and group may read it if it holds message texts."""
    # "replace": labels and names may contain lone surrogates, which UTF-8 cannot encode.
    page = render_page(head, sections).encode("utf-8", "replace")
    write_atomically(out, page, mode=PRIVATE if head.private else 0o644)
    shown = {section.key: section.present for section in sections}
    return Report(out, len(page), shown, bool(head.private))


def render_page(head: Head, sections: Sequence[Section]) -> str:
    """Return the HTML page.

    Every value is escaped except ``Markup``, which only this package creates, from escaped parts.
    """
    # Second line of defence: the page's content security policy names the one script by its digest
    # and forbids every request, so a message that slips through unescaped can neither run nor load
    # anything.
    environment = _templates()
    loader = environment.loader
    assert loader is not None
    script = loader.get_source(environment, "script.js")[0].strip()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        head=head,
        sections=sections,
        script=script,
        script_digest=digest,
        style=loader.get_source(environment, "style.css")[0].strip(),
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelled name must fail, not print nothing
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["prose"] = prose
    return environment


# Next steps.

_REPEATABLE = frozenset({"--input", "--decisions", "--earlier"})
"""Options of ``prepare`` that a new command adds to the earlier ones; others replace them."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """One recommended action. ``tone`` is bad if nothing should be deployed or trained before it
    is done, warn if it is worth doing, good if it is the next regular step. ``commands`` are whole
    shell lines; the reader fills in the words in capitals."""

    tone: str
    title: str
    why: str
    commands: tuple[str, ...] = ()


def rank_steps(steps: Iterable[NextStep]) -> list[NextStep]:
    """Return the steps, the most urgent tone first."""
    return sorted(steps, key=lambda step: (BAD, WARN, GOOD).index(step.tone))


def show_steps(steps: Iterable[NextStep], lead: str) -> Content:
    """Return the section of the steps."""
    return [lead, Drawn("next", {"steps": rank_steps(steps)})]


def prepare_again(record: Mapping[str, Any], *changes: Sequence[str]) -> tuple[str, ...]:
    """Return the command that prepares a dataset again with the options recorded in its manifest
    and ``changes`` (each an option, followed by its value if it takes one).

    Empty if nothing would change, or if ``prepare`` did not make the dataset: its options are then
    unknown, and a guess would make another dataset.
    """
    before = [list(option) for option in record.get("options") or ()]
    new = [list(map(str, change)) for change in changes if list(map(str, change)) not in before]
    if not before or not new:
        return ()
    replaced = {option[0] for option in new} - _REPEATABLE
    kept = [option for option in before if option[0] not in replaced]
    # A new folder always: a dataset is immutable, because runs refer to it by its digest.
    words = [word for option in (*kept, *new) for word in option]
    return (command("prepare", *words, "--out", "NEW"),)


def fresh_holdout(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return how to get another hold-out, in a sentence, and the command that draws it.

    There is no command if messages are held out by time or the user gave a file.
    """
    if record.get("holdout_source"):
        return "Give --holdout a file of messages that no model was measured on yet.", ()
    if (record.get("split") or {}).get("by") == "time":
        return "Prepare an export with later messages: the last ones are held out.", ()
    if all_judge(record):
        sample = "clerk-trainer tasks MESSAGES --for audit --out sample.jsonl draws some"
        return f"Have reviewers decide on other messages: {sample}.", ()
    seed = int((record.get("settings") or {}).get("seed", 0)) + 1
    return "Another seed draws another one.", prepare_again(record, ("--seed", str(seed)))


def all_judge(record: Mapping[str, Any]) -> bool:
    """Whether every label by people is held out or validates, next to a teacher's: then no share
    and no seed gives another hold-out."""
    people = record.get("people")
    return people is not None and not people["learned"]


_LARGEST_SHARE = 0.4


def larger_share(
    record: Mapping[str, Any], part: str, wanted: float | None = None
) -> tuple[str, ...]:
    """Return the command that gives ``part`` ("holdout", "validation") a share of ``wanted``, by
    default twice its present share, at most 0.4. Empty if that is not an increase, or ``wanted`` is
    more."""
    share = (record.get("settings") or {}).get(f"{part}_share")
    if not share or all_judge(record):
        return ()
    if wanted is None:
        wanted = min(_LARGEST_SHARE, 2 * share)
    percent = math.ceil(100 * wanted)
    if not share < percent / 100 <= _LARGEST_SHARE:
        return ()
    wanted = percent / 100
    return prepare_again(record, (f"--{part}-share", f"{wanted:g}"))


def check_command(dataset: Path, *words: str) -> str:
    """Return the command that checks a dataset with the options of its last check, if it has one,
    or with ``words``, and keeps the decisions in its review queue."""
    try:
        record = CHECK.read_if_present(dataset)
    except BadInput:
        # The command that is returned replaces an unreadable check.
        record = None
    options = list(record.options) if record and record.options else list(words)
    folder = dataset.resolve()
    if "--queue" in options:
        queue = Path(options[options.index("--queue") + 1])
    else:
        queue = folder.with_name(f"{folder.name}-review.csv")
    return command("check", dataset, *options, *(("--update",) if queue.is_file() else ()))


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or the first free name after it: ``run-2``, ``run-3``."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
