"""What the page is made of: a run folder's records, None where a command has not run; its parts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainer.artifacts import duel, evaluation, training
from trainer.artifacts import evaluation as audit
from trainer.artifacts.duel import CostRecord, DuelRecord
from trainer.artifacts.evaluation import AuditRecord, EvaluationRecord, Prediction
from trainer.artifacts.files import PRIVATE
from trainer.artifacts.training import Step, SweepRecord, TrainingRecord
from trainer.check import finding
from trainer.check.finding import CheckRecord
from trainer.errors import BadInput
from trainer.facts import Table
from trainer.report.judged import Judged
from trainer.report.svg import Chart
from worker.contract.digest import write_atomically


class Input(Enum):
    """An input of the page: where it is in its folder, and the command that makes it."""

    TRAINING = (training.TRAINING.name, training.TRAINING.command)
    STEPS = (training.STEPS.name, training.STEPS.command)
    SWEEP = (training.SWEEP.name, training.SWEEP.command)
    EVALUATION = (
        f"{evaluation.EVALUATION_FOLDER}/{evaluation.EVALUATION.name}",
        evaluation.EVALUATION.command,
    )
    PREDICTIONS = (
        f"{evaluation.EVALUATION_FOLDER}/{evaluation.PREDICTIONS.name}",
        evaluation.PREDICTIONS.command,
    )
    AUDIT = (f"{evaluation.EVALUATION_FOLDER}/{audit.AUDIT.name}", audit.AUDIT.command)
    DUEL = (f"{duel.DUEL_FOLDER}/{duel.DUEL.name}", duel.DUEL.command)
    COST = (duel.COST.name, duel.COST.command)
    DATASET = ("dataset.json", "clerk-trainer prepare")
    CHECK = (finding.CHECK.name, finding.CHECK.command)

    def __init__(self, path: str, command: str) -> None:
        self.path = path
        self.command = command


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report may show. ``dataset`` is the dataset's manifest, ``openings`` counts the
    hold-out's openings, this report's included; ``gate`` is what the gate says of it; ``texts``
    maps message ids to texts and is None where they are left out; ``copies`` how often those
    held-out messages came that came more than once, None where nobody counted."""

    directory: Path
    training: TrainingRecord
    steps: tuple[Step, ...] = ()
    evaluation: EvaluationRecord | None = None
    predictions: tuple[Prediction, ...] = ()
    audit: AuditRecord | None = None
    duel: DuelRecord | None = None
    cost: CostRecord | None = None
    sweep: SweepRecord | None = None
    dataset: Mapping[str, Any] | None = None
    check: CheckRecord | None = None
    openings: int | None = None
    gate: Judged | None = None
    texts: Mapping[str, str] | None = None
    copies: Mapping[str, int] | None = None


def read_run(directory: Path) -> Run:
    """Read a run folder. Raises BadInput without a training record, or where a file is not what
    this version writes, with the file and the command that makes it anew."""
    made = Input.TRAINING
    if not (directory / made.path).is_file():
        raise BadInput(
            f"{directory}: no {made.path}: give the run folder of {made.command}, "
            "or a dataset folder of clerk-trainer prepare"
        )
    evaluated = directory / evaluation.EVALUATION_FOLDER
    return Run(
        directory=directory,
        training=training.TRAINING.read(directory),
        steps=training.STEPS.read_if_present(directory) or (),
        evaluation=evaluation.EVALUATION.read_if_present(evaluated),
        predictions=evaluation.PREDICTIONS.read_if_present(evaluated) or (),
        audit=audit.AUDIT.read_if_present(evaluated),
        duel=duel.DUEL.read_if_present(directory / duel.DUEL_FOLDER),
        cost=duel.COST.read_if_present(directory),
        sweep=training.SWEEP.read_if_present(directory) or _read_sweep_of(directory.resolve()),
    )


def _read_sweep_of(directory: Path) -> SweepRecord | None:
    """Return the sweep that this run is a trial of: its record lies beside its runs."""
    found = training.SWEEP.read_if_present(directory.parent)
    if found and any(trial.run == directory.name for trial in found.trials):
        return found
    return None


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
"""A part of a section: a paragraph (text, or markup), a table, charts side by side, (name, text)
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


def small(text: str) -> Markup:
    """Return a paragraph for those who want to know it exactly."""
    return Markup('<span class="small">{}</span>').format(text)


def lacking(key: str, title: str, source: Input, folder: str = "the run folder") -> Section:
    """Return the section of a record that is not there yet."""
    return Section(
        key,
        title,
        missing=f"There is no {source.path} in {folder} yet; {source.command} makes it.",
    )


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

    Every value is escaped; the charts alone are inserted as they are, and those escape their own
    text. Should either fail, the page's content security policy still lets no script run but the
    one that is named by its digest, and nothing at all be fetched.
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
    return Environment(
        loader=PackageLoader("trainer.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
