"""The parts of a page, and how they become one HTML file: sections of paragraphs, tables and
charts, points of a short answer, messages' texts, and steps to take next."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from trainer import numbers
from trainer.artifacts.files import PRIVATE
from trainer.facts import Table
from trainer.report.charts import Chart
from worker.contract.digest import write_atomically

GOOD, WARN, BAD, UNKNOWN = "good", "warn", "bad", "unknown"

MANY_OPENINGS = 5
"""Looks at a hold-out after which it counts as tuned to."""


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the short answer: its tone, what is so, the figures behind it, what to do."""

    tone: str
    claim: str
    detail: str
    more: str = ""


def tell_openings(openings: int) -> str:
    """Return how often a hold-out has been opened, in words."""
    if not openings:
        return "The hold-out has never been opened"
    return f"The hold-out has been opened {numbers.times(openings)}"


TONES = {"ok": GOOD, "warn": WARN, "fail": BAD, "skipped": UNKNOWN}
"""The tone of each verdict of the check."""


# A message on a page: every character is shown and none obeyed; long ones are cut and folded.

MOST_CHARACTERS = 2_000
_EXCERPT = 220


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as a page shows it: ``rest`` is folded away, ``cut`` counts characters that are left
    out; ``unknown``: there is no such message where it was looked for."""

    start: str
    rest: str = ""
    cut: int = 0
    unknown: bool = False


def show_text(texts: Mapping[str, str] | None, name: str) -> Shown | None:
    """Return the text of the message with an id, None where texts are left out."""
    if texts is None:
        return None
    found = texts.get(name)
    if found is None:
        return Shown("", unknown=True)
    text = readable(found)
    cut = max(0, len(text) - MOST_CHARACTERS)
    text = text[:MOST_CHARACTERS]
    if len(text) <= _EXCERPT * 1.5:
        return Shown(text, cut=cut)
    blank = text.rfind(" ", _EXCERPT // 2, _EXCERPT)
    at = blank + 1 if blank > 0 else _EXCERPT
    return Shown(text[:at], text[at:], cut)


def readable(text: str) -> str:
    """Return a text in which every control character is seen instead of obeyed.

    C0 controls become their pictures (U+2400 on), lone surrogates and C1 controls U+FFFD: neither
    may stand in a UTF-8 page. Line breaks and tabs stay; markup is escaped by the template.
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


# Sections and what they hold.


@dataclass(frozen=True, slots=True)
class Titled:
    """A block under a heading of its own, or folded away under it."""

    title: str
    block: Block
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """What has a template of its own, and what that shows."""

    template: str
    content: Mapping[str, Any]


Block = str | Table | Chart | Sequence[Chart] | Sequence[tuple[str, str]] | Titled | Drawn
"""A part of a section: a paragraph (``prose``), a table, charts side by side, (name, text)
rows, or what has a template of its own."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section: ``key`` is its anchor. ``missing`` says in a sentence why there is nothing to
    show, and is empty otherwise."""

    key: str
    title: str
    blocks: Sequence[Block] = ()
    missing: str = ""

    @property
    def present(self) -> bool:
        """Whether the section has something to show."""
        return not self.missing


def prose(text: str) -> Markup:
    """Return a paragraph as markup, words between backticks as code."""
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def small(text: str) -> Markup:
    """Return a paragraph for those who want to know it exactly."""
    return Markup('<span class="small">{}</span>').format(prose(text))


@dataclass(frozen=True, slots=True)
class Head:
    """What stands on top of a page. ``facts`` are (what, words, digest) each; ``private`` says
    which texts of customers the page holds, and is empty where it holds none."""

    kind: str
    name: str
    facts: tuple[tuple[str, str, str], ...]
    private: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A written page: its size in bytes, and which sections had something to show."""

    path: Path
    size_bytes: int
    sections: Mapping[str, bool]
    with_texts: bool


def write_page(out: Path, head: Head, sections: Sequence[Section]) -> Report:
    """Write the page: one that holds texts is for its owner and group."""
    page = render_page(head, sections).encode("utf-8", "replace")
    write_atomically(out, page, mode=PRIVATE if head.private else 0o644)
    shown = {section.key: section.present for section in sections}
    return Report(out, len(page), shown, bool(head.private))


def render_page(head: Head, sections: Sequence[Section]) -> str:
    """Return the HTML page.

    Every value is escaped but ``Markup``, which is made in this package alone and escapes what it
    is made of. Should either fail, the page's content security policy still lets no script run but
    the one that is named by its digest, and nothing at all be fetched.
    """
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
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["prose"] = prose
    return environment


# What to do next.

_PLACEHOLDERS = frozenset({"BASE", "FILE", "NEW", "STORE", "RECIPE"})

_REPEATABLE = frozenset({"--input", "--decisions", "--earlier"})
"""Options of ``prepare`` that are added to those of before; others take the place of their own."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing to do. ``tone`` is bad where nothing should be deployed, or trained, before it is
    done, warn where it is worth doing, good where it is the way on. ``commands`` are whole lines of
    a shell, words in capitals in them for the reader to fill in."""

    tone: str
    title: str
    why: str
    commands: tuple[str, ...] = ()


def next_section(steps: Sequence[NextStep], lead: str) -> Section:
    """Return the section of the steps: those that must come first, then the rest, as given."""
    order = (BAD, WARN, GOOD)
    ranked = sorted(steps, key=lambda step: order.index(step.tone))
    steps_drawn = Drawn("next", {"steps": ranked})
    return Section("next", "What to do next", [lead, steps_drawn])


def command(name: str, *words: str | Path) -> str:
    """Return a command line of the trainer, quoted for a shell where a word needs it."""
    given = [word if word in _PLACEHOLDERS else shlex.quote(str(word)) for word in words]
    return " ".join(["clerk-trainer", name, *given])


def prepare_again(record: Mapping[str, Any], *changes: Sequence[str]) -> tuple[str, ...]:
    """Return the command that prepares a dataset again, by the options that its manifest records,
    with ``changes``: options, each with its value if it takes one.

    There is none for a dataset that ``prepare`` did not make, whose options nobody knows, and none
    where nothing would change.
    """
    before = [list(option) for option in record.get("options") or ()]
    new = [list(map(str, change)) for change in changes if list(map(str, change)) not in before]
    if not before or not new:
        return ()
    replaced = {option[0] for option in new} - _REPEATABLE
    kept = [option for option in before if option[0] not in replaced]
    words = [word for option in (*kept, *new) for word in option]
    return (command("prepare", *words, "--out", "NEW"),)


def fresh_holdout(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return how a dataset gets another hold-out, in a sentence, and the command that draws it:
    none where the time, or a file of the user's, decides what is held out."""
    if record.get("holdout_source"):
        return "Give --holdout another file, of messages that nobody has measured on yet.", ()
    if (record.get("split") or {}).get("by") == "time":
        return "Prepare an export that holds later messages: the last ones are held out.", ()
    seed = int((record.get("settings") or {}).get("seed", 0)) + 1
    return "Another seed draws another one.", prepare_again(record, ("--seed", str(seed)))


def larger_share(
    record: Mapping[str, Any], part: str, wanted: float | None = None, *, most: float = 0.4
) -> tuple[str, ...]:
    """Return the command that gives ``part`` ("holdout", "validation") a share of ``wanted``, by
    default twice what it has, at most ``most``; none where that is not more than it has."""
    share = (record.get("settings") or {}).get(f"{part}_share")
    if not share:
        return ()
    wanted = math.ceil(100 * min(most, 2 * share if wanted is None else wanted)) / 100
    if wanted <= share:
        return ()
    return prepare_again(record, (f"--{part}-share", f"{wanted:g}"))


def check_command(dataset: Path, base: str = "BASE") -> str:
    """Return the command that checks a dataset; what somebody wrote into its queue is kept."""
    folder = dataset.resolve()
    there = folder.with_name(f"{folder.name}-review.csv").is_file()
    return command("check", dataset, "--base", base, *(("--update",) if there else ()))


def free_folder(wanted: Path) -> Path:
    """Return ``wanted``, or where there is something of that name the first free name after it:
    ``run-2``, ``run-3``."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder
