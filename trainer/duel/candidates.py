"""Candidates that the duel does not train: the adapter, its base, recorded answers of other models,
and other trained adapters."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.artifacts.duel import CandidateKind, Elsewhere, MadeAdapter
from trainer.artifacts.evaluation import PREDICTIONS, EvaluationRecord
from trainer.dataset.folder import Dataset, Example
from trainer.errors import BadInput
from trainer.evaluation.engines import read_fields
from trainer.evaluation.predictions import Outputs, outputs_of
from trainer.model.bases import AUTO, resolve_base
from trainer.model.lora_model import LoraModel, encode_prompts
from trainer.model.prompt import BaseTokenizer, load_renderer, make_prompt
from trainer.model.published import open_scorer, read_adapter
from trainer.model.scoring import Scores, make_verified_scorer
from trainer.model_card import read_training
from worker.common.settings import split_assignment
from worker.contract import (
    ENCODER_KINDS,
    MANIFEST_NAME,
    Kind,
    Manifest,
    read_manifest,
)
from worker.contract.taxonomy import NO_LABEL, label_name

ADAPTER = "adapter"
BASE_PROMPTED = "base-prompted"

INSTRUCTION = (
    "You file customers' messages. Answer with the letter of the one category that the message "
    "belongs to, and with nothing else. The categories are:"
)
"""The base's instruction, before the labels with their codes."""

NUMBERS = ("seconds", "cost", "prompt_tokens", "answer_tokens")
"""What an answer that was given elsewhere took; each column may be missing."""

NO_ANSWER = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate's answers to the hold-out, in order; other fields as in ``CandidateFigures``."""

    name: str
    kind: CandidateKind
    answers: tuple[str, ...]
    train_seconds: float | None = None
    messages_per_s: float | None = None
    outside_labels: int | None = None
    hyperparameters: dict[str, float] | None = None
    validation_accuracy: float | None = None
    cost_per_message: float | None = None
    served_as: Kind | None = None
    not_served: str | None = None
    adapter: MadeAdapter | None = None
    elsewhere: Elsewhere | None = None


@dataclass(frozen=True, slots=True)
class RecordedAnswers:
    """Answers that were given elsewhere, by message id. An answer that is not a label stays and
    counts as wrong; it may also be ``none`` (no label fits) or empty (no answer).

    ``numbers`` are what an answer took, by message id and by a name of ``NUMBERS``.
    ``constrained`` says in words how answers were kept to the labels, if that is known.
    """

    name: str
    path: Path
    answers: Mapping[str, str]
    numbers: Mapping[str, Mapping[str, float]]
    constrained: str | None = None

    def answers_to(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Return the answers in order. Raises BadInput if one is missing."""
        missing = [message_id for message_id in ids if message_id not in self.answers]
        if missing:
            raise BadInput(
                f"{self.path}: has no answer for {len(missing)} of {len(ids)} held-out messages, "
                f"for example {missing[0]!r}: add an answer for every message"
            )
        return tuple(self.answers[message_id] for message_id in ids)


def ask_adapter(
    directory: Path,
    base: Path | None,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    holdout: Sequence[Example],
) -> Candidate:
    """Score the hold-out with an adapter of any kind."""
    messages = {example.id: example.message for example in holdout}
    prompts = list(encode_prompts(messages, manifest.prompt, tokenizer).values())
    scorer = open_scorer(directory, base, manifest, prompts)
    return _from_scores(ADAPTER, "adapter", scorer.score(prompts), manifest, outputs_of(manifest))


def ask_base(
    model: LoraModel,
    base: Path,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    holdout: Sequence[Example],
) -> Candidate:
    """Score the hold-out without the adapter: the base is prompted with its own chat template and
    every label's code and description. Training has to beat this."""
    taxonomy = manifest.taxonomy
    spec, codes = make_prompt(
        taxonomy,
        tokenizer.encoders,
        load_renderer(base),
        instruction=INSTRUCTION,
        list_labels=True,
        descriptions=any(label.description for label in taxonomy.labels),
        max_message_tokens=manifest.prompt.max_message_tokens,
        # No worker serves this prompt, so its prefix need not fill whole blocks of an engine's
        # cache.
        prefix_block=None,
    )
    messages = {example.id: example.message for example in holdout}
    prompts = list(encode_prompts(messages, spec, tokenizer).values())
    with model.without_adapter():
        scores = make_verified_scorer(model, spec.prefix_ids, codes, prompts).score(prompts)
    outputs = Outputs(taxonomy.names)
    return _from_scores(BASE_PROMPTED, "base", scores, manifest, outputs)


def reuse_evaluation(record: EvaluationRecord, directory: Path, ids: Sequence[str]) -> Candidate:
    """Take the adapter's answers from an evaluation instead of scoring again."""
    # ``outside_labels`` is the unconstrained count, as when the adapter is scored here.
    answers = {answer.id: answer.predicted for answer in PREDICTIONS.read(directory)}
    return Candidate(
        name=ADAPTER,
        kind="adapter",
        answers=tuple(answers[message_id] for message_id in ids),
        messages_per_s=record.engines[0].messages_per_s,
        outside_labels=record.outside_labels.unconstrained,
    )


def read_recorded(given: str) -> RecordedAnswers:
    """Read ``NAME=FILE``, a table with the columns id, label and, optionally, those of ``NUMBERS``.
    Raises BadInput that lists all problems."""
    name, file = split_assignment(
        given, "--candidate", form="NAME=FILE", needs_value=True, error=BadInput
    )
    path = Path(file)
    answers: dict[str, str] = {}
    numbers: dict[str, dict[str, float]] = {}
    wrong = []
    for number, row in read_fields(path, ("id", "label")):
        where = f"{path}: line {number}"
        if not row["id"]:
            wrong.append(f"{where} has no 'id'")
        elif row["id"] in answers:
            wrong.append(f"{where} has the id {row['id']!r} a second time")
        answers[row["id"]] = label_name(row["label"])
        found = {column: row.get(column, "").strip() for column in NUMBERS}
        numbers[row["id"]] = {
            column: value
            for column, text in found.items()
            if (value := _read_number(text, f"{where}: {column}", wrong)) is not None
        }
    if wrong:
        raise BadInput(*wrong)
    if not any(answers.values()):
        raise BadInput(f"{path}: has no answer in its column 'label'")
    return RecordedAnswers(name, path, answers, numbers)


def write_recorded(recorded: RecordedAnswers) -> str:
    """Return the table that ``read_recorded`` reads, as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "label", *NUMBERS])
    for id_, label in recorded.answers.items():
        found = recorded.numbers.get(id_, {})
        writer.writerow([id_, label, *(found.get(name, "") for name in NUMBERS)])
    return out.getvalue()


def from_recorded(
    recorded: RecordedAnswers, ids: Sequence[str], labels: Sequence[str]
) -> Candidate:
    """Return recorded answers as a candidate. Raises BadInput if an answer is missing.

    ``outside_labels`` counts invented labels; "no label fits" and no answer are counted apart.
    """
    answers = recorded.answers_to(ids)
    void = [answer in {NO_ANSWER, NO_LABEL} for answer in answers]
    outside = [answer not in labels for answer in answers]
    took = {name: _taken(recorded, ids, name) for name in NUMBERS}
    seconds, cost = took["seconds"], took["cost"]
    return Candidate(
        name=recorded.name,
        kind="recorded",
        answers=answers,
        not_served="it runs elsewhere",
        messages_per_s=1 / float(np.mean(seconds)) if seconds and sum(seconds) else None,
        outside_labels=sum(outside) - sum(void),
        cost_per_message=float(np.mean(cost)) if cost else None,
        elsewhere=Elsewhere(
            no_label=sum(void),
            seconds_p50=float(np.percentile(seconds, 50)) if seconds else None,
            seconds_p99=float(np.percentile(seconds, 99)) if seconds else None,
            prompt_tokens=float(np.mean(took["prompt_tokens"])) if took["prompt_tokens"] else None,
            answer_tokens=float(np.mean(took["answer_tokens"])) if took["answer_tokens"] else None,
            constrained=recorded.constrained,
        ),
    )


def _taken(recorded: RecordedAnswers, ids: Sequence[str], name: str) -> list[float]:
    """Return a number of every message with an answer; nothing if one is missing, since a mean
    over the others would be of other messages."""
    answered = [id_ for id_ in ids if recorded.answers[id_] != NO_ANSWER]
    found = [recorded.numbers.get(id_, {}).get(name) for id_ in answered]
    return [] if None in found else [number for number in found if number is not None]


def _from_scores(
    name: str, kind: CandidateKind, scores: Scores, manifest: Manifest, outputs: Outputs
) -> Candidate:
    decisions = outputs.decide(scores.logprobs, manifest.calibration.temperature)
    is_base = kind == "base"
    return Candidate(
        name=name,
        kind=kind,
        answers=tuple(decision.label for decision in decisions),
        served_as=None if is_base else manifest.kind,
        not_served="a worker serves a base only with an adapter" if is_base else None,
        messages_per_s=len(decisions) / scores.seconds,
        outside_labels=int((~scores.in_set).sum()),
    )


def _read_number(text: str, where: str, wrong: list[str]) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        wrong.append(f"{where} is not a number of at least 0: {text!r}")
    return number


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """A verified adapter with its base and tokenizer; ``name`` is its name in the duel."""

    name: str
    directory: Path
    base: Path | None
    manifest: Manifest
    tokenizer: BaseTokenizer


def open_trained(given: Path, bases: Sequence[Path], dataset: Dataset) -> TrainedAdapter:
    """Verify an adapter, or a run's adapter, before the hold-out is opened. Its base is one of
    ``bases`` or of this machine's. Raises BadInput if there is none, or the adapter was trained on
    another dataset, and AdapterRefused."""
    directory = find_adapter(given)
    found = read_manifest(directory)
    if found.data.get("digest") != dataset.digest:
        raise BadInput(
            f"--against {directory}: was not trained on {dataset.directory}: train it on that "
            "dataset, so that all candidates learn from the same messages"
        )
    base = resolve_base(AUTO, found, others=bases)
    manifest, tokenizer = read_adapter(directory, base)
    return TrainedAdapter(manifest.name, directory, base, manifest, tokenizer)


def ask_trained(trained: TrainedAdapter, holdout: Sequence[Example]) -> Candidate:
    """Score the hold-out with another adapter. An encoder is a baseline, because it needs no GPU; a
    language model's adapter is a rival, which is shipped only if it is better."""
    manifest, directory = trained.manifest, trained.directory
    found = ask_adapter(directory, trained.base, manifest, trained.tokenizer, holdout)
    made = MadeAdapter(name=manifest.name, digest=manifest.digest, path=str(directory.resolve()))
    training = read_training(directory.resolve().parent, manifest)
    return replace(
        found,
        name=trained.name,
        kind="baseline" if manifest.kind in ENCODER_KINDS else "rival",
        served_as=manifest.kind,
        adapter=made,
        train_seconds=training.seconds if training else None,
        validation_accuracy=manifest.metrics.get("validation", {}).get("accuracy"),
    )


def find_adapter(given: Path) -> Path:
    """Return an adapter's directory, given that directory or its run folder."""
    if (given / MANIFEST_NAME).exists() or not (given / ADAPTER).is_dir():
        return given
    return given / ADAPTER
