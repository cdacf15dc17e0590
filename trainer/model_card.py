"""The model card of an adapter, in the format of Hugging Face: YAML front matter, then Markdown.

It contains only facts from the manifest, training.json and evaluation.json, so the same files give
the same card, and no message text. It is next to the adapter's folder, because a worker refuses a
folder with files that the manifest does not name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import facts, numbers
from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER, EvaluationRecord
from trainer.artifacts.training import TRAINING, TrainingRecord
from trainer.errors import BadInput
from trainer.languages import UNKNOWN, language_names, language_shares
from worker.contract import Manifest, read_manifest
from worker.contract.digest import write_atomically

CARD = "README.md"
"""The name of a card in a run folder."""

_MARK = "<!-- Made by clerk-trainer and overwritten by it: do not edit. -->"
_ADAPTER = "adapter"
_FEW = 30  # with fewer messages the interval of a share may be wider than a third

_SPLITS = {"train": "training", "validation": "validation", "holdout": "hold-out"}


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a card. ``training`` and ``evaluation`` are of this adapter, or None;
    ``reason`` is the reason given for publishing it."""

    manifest: Manifest
    training: TrainingRecord | None = None
    evaluation: EvaluationRecord | None = None
    reason: str | None = None

    @property
    def languages(self) -> Mapping[str, int]:
        """Messages by language."""
        return self.training.dataset.languages if self.training else {}

    @property
    def license(self) -> str | None:
        """The licence that the base's folder named when the adapter was trained."""
        return self.training.base.license if self.training else None


def card_name(digest: str) -> str:
    """Return the name of an adapter's card in a store."""
    return f"{digest}.{CARD}"


def write_run_card(run: Path) -> None:
    """Write the card of a run's adapter, with the figures of its evaluation if there is one. A
    README.md that the trainer did not write stays. Raises AdapterRefused, BadInput."""
    path = run / CARD
    if path.is_file() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    manifest = read_manifest(run / _ADAPTER)
    evaluation = EVALUATION.read_if_present(run / EVALUATION_FOLDER)
    if evaluation is not None and evaluation.adapter.digest != manifest.digest:
        evaluation = None
    write_card(path, Sources(manifest, read_training(run, manifest), evaluation))


def read_training(run: Path, manifest: Manifest) -> TrainingRecord | None:
    """Return the record of an adapter's training; None if there is none or it is unreadable."""
    try:
        record = TRAINING.read_if_present(run)
    except BadInput:
        return None  # the manifest has most of it too
    return record if record is not None and record.adapter.digest == manifest.digest else None


def write_card(path: Path, sources: Sources) -> None:
    """Write a card atomically."""
    write_atomically(path, make_card(sources).encode("utf-8"))


def make_card(sources: Sources) -> str:
    """Return the card, Markdown with YAML front matter."""
    sections = (
        _front_matter(sources),
        _head(sources),
        _labels(sources),
        _figures(sources),
        _limits(sources),
        _data(sources.manifest, sources.reason),
        _training(sources),
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _front_matter(sources: Sources) -> Iterator[str]:
    # Values are written as JSON, which is valid YAML and needs no quoting rules.
    manifest = sources.manifest
    yield "---"
    yield f"base_model: {_json(manifest.base.name)}"
    yield f"base_model_relation: {'finetune' if _is_whole(manifest) else 'adapter'}"
    yield f"library_name: {_library(manifest)}"
    if sources.license:
        yield f"license: {_json(sources.license)}"
    if codes := [code for code in sources.languages if code != UNKNOWN]:
        yield f"language: {_json(codes)}"
    yield "pipeline_tag: text-classification"
    yield f"tags:\n- {manifest.kind if manifest.lora is None else 'lora'}\n- filing-clerk"
    if sources.evaluation is not None:
        yield from _model_index(manifest, sources.evaluation)
    yield "---"


def _model_index(manifest: Manifest, found: EvaluationRecord) -> Iterator[str]:
    yield "model-index:"
    yield f"- name: {_json(manifest.name)}"
    yield "  results:\n  - task:\n      type: text-classification"
    yield f"    dataset:\n      name: {_json(found.dataset.name)}\n      type: private"
    yield f"      split: holdout\n      revision: {_json(found.dataset.digest)}"
    yield "    metrics:"
    for kind, value in (
        ("accuracy", found.accuracy),
        ("f1", found.macro_f1),
        ("expected_calibration_error", found.calibration.ece),
        ("review_share", found.review.share),
    ):
        yield f"    - type: {kind}\n      value: {_json(round(value, 4))}"


def _is_whole(manifest: Manifest) -> bool:
    """Whether the base's weights were changed."""
    return manifest.kind == "encoder" and manifest.lora is None


def _library(manifest: Manifest) -> str:
    if "imported" in manifest.data:
        return "onnx"
    return "transformers" if manifest.lora is None else "peft"


def _kind_of_model(manifest: Manifest) -> str:
    if "imported" in manifest.data:
        return "A classifier that was imported, not trained here, from"
    if manifest.lora is not None:
        head = " with a classification head" if manifest.head is not None else ""
        return f"A LoRA adapter (rank {manifest.lora.rank}){head} for"
    if manifest.kind == "embedding-linear":
        return "A linear head on the sentence embeddings of"
    return "An encoder with a classification head, trained from"


def _head(sources: Sources) -> Iterator[str]:
    manifest = sources.manifest
    yield f"{_MARK}\n"
    yield f"# {_text(manifest.name)}\n"
    yield (
        f"{_kind_of_model(manifest)} {_text(manifest.base.name)}, revision "
        f"{_text(manifest.base.revision)}. It classifies a support message as one of "
        f"{len(manifest.taxonomy.names)} labels, with a confidence. Made by clerk-trainer "
        f"{manifest.versions.get('trainer', '')}, {manifest.created_at}.\n"
    )
    yield f"- Adapter: `{manifest.digest}`"
    for name, digest in sorted(manifest.base.weights.items()):
        yield f"- Weights of the base: `{name}`, SHA-256 `{digest.sha256}`"
    if sources.license:
        yield (
            f"- Licence of the base, according to its folder: {sources.license}. Before you share "
            "the adapter, check the licence's conditions and your rights to the training messages."
        )
    elif sources.training is not None:
        yield "- Licence of the base: its folder had none when the adapter was trained."
    else:
        yield "- Licence of the base: not recorded."
    training = sources.training
    if training is None or not training.dataset.languages:
        yield "- Language: that of the training messages (not recorded)."
    else:
        shares = language_shares(training.dataset.languages)
        known = language_names(training.base.languages) or "languages that its folder does not name"
        yield f"- Languages of the messages: {shares}. The base knows {known}."


def _table(table: facts.Table) -> Iterator[str]:
    yield f"| {' | '.join(table.columns)} |"
    yield "|---" * len(table.columns) + "|"
    for row in table.rows:
        yield f"| {' | '.join(map(_text, row))} |"


def _labels(sources: Sources) -> Iterator[str]:
    manifest, found = sources.manifest, sources.evaluation
    counts = _split(manifest, "train").get("per_label", {})
    taxonomy = manifest.taxonomy
    yield f"## Labels\n\nTaxonomy {_text(taxonomy.name)}, version {_text(taxonomy.version)}.\n"
    about = ("label", "description", "training messages")
    rows = [
        (label.name, label.description or "-", counts.get(label.name, "-"))
        for label in taxonomy.labels
    ]
    yield from _table(facts.Table(about, rows))
    if found is not None:
        yield "\nOn held-out messages:\n"
        yield from _table(facts.labels(found))


def _figures(sources: Sources) -> Iterator[str]:
    found = sources.evaluation
    yield "## Figures\n"
    if found is None:
        yield "Not measured on held-out messages yet: run clerk-trainer evaluate.\n"
        validation = sources.manifest.metrics.get("validation", {})
        if "accuracy" in validation:
            yield (
                f"On the {validation['examples']} validation messages, which also selected the "
                f"epoch and the thresholds: accuracy {numbers.percent(validation['accuracy'])} "
                f"({numbers.interval(validation['accuracy_interval_95'])})."
            )
        return
    yield "On the hold-out; 95 % intervals (Wilson) in brackets.\n"
    rows = (*facts.overall(found), *facts.calibration(found), *facts.review(found))
    yield from _table(facts.Table(("figure", "value"), rows))


def _limits(sources: Sources) -> Iterator[str]:
    manifest, found = sources.manifest, sources.evaluation
    yield "## Limits\n"
    yield (
        "- It always answers with one of the labels above. A message that fits none gets one as "
        "well, and only the review rule may catch it."
    )
    yield (
        "- The figures hold for messages like those it was measured on, from one company and one "
        "period. Monitor it when senders, products or languages change."
    )
    if manifest.needs_base:
        yield "- It needs exactly this base with this tokenizer; a worker refuses any other."
    yield (
        f"- Messages of more than {manifest.prompt.max_message_tokens} tokens are shortened in "
        "the middle."
    )
    if names := manifest.data.get("names_redaction"):
        yield (
            f"- Names of people were redacted by {_text(names['by'])} in {names['marked']:,} of "
            f"{names['messages']:,} messages. A worker does not redact names, so it sees messages "
            "that differ from those on which the figures were measured."
        )
    if found is None:
        yield "- Its accuracy on held-out messages is unknown."
        return
    if found.dataset.openings > 1:
        yield (
            f"- The hold-out was opened {found.dataset.openings} times. Choices made after looking "
            "at it make the figures too good."
        )
    weak = [row for row in found.per_label if row.support < _FEW]
    if weak:
        names = ", ".join(_text(row.label) for row in weak)
        yield f"- Fewer than {_FEW} held-out messages, so vague figures: {names}."
    if found.out_of_scope is None:
        yield "- It was not tried on messages that fit no label."
    else:
        yield (
            f"- Of {found.out_of_scope.messages} messages that fit no label, "
            f"{found.out_of_scope.review_share:.0%} would go to review."
        )
    if found.steering is None:
        yield "- It is unknown how often a sentence that names a label chooses the answer."
    else:
        flips, quiet = found.steering.every, found.steering.unreviewed
        yield (
            f"- A sentence in a message that names another label chooses the answer in "
            f"{flips.steered / flips.pairs:.1%} of {flips.pairs:,} tries, in "
            f"{quiet.steered / quiet.pairs:.1%} without review; a neutral sentence of the same "
            f"length in {flips.neutral / flips.pairs:.1%} and {quiet.neutral / quiet.pairs:.1%}."
        )


def _data(manifest: Manifest, reason: str | None) -> Iterator[str]:
    yield "## Data\n"
    if reason:
        yield f"Reason for publishing: {_text(reason)}\n"
    name, digest = manifest.data.get("name"), manifest.data.get("digest")
    yield f"Dataset {_text(name)}, digest `{digest}`.\n" if digest else "Not recorded.\n"
    yield "| split | messages | SHA-256 |\n|---|---|---|"
    for key, title in _SPLITS.items():
        part = _split(manifest, key)
        yield f"| {title} | {part.get('examples', '-')} | {part.get('sha256', '-')} |"
    if sources := manifest.data.get("label_sources"):
        parts = (f"{title} {_text(facts.sources_in_words(sources.get(key, {})))}"
                 for key, title in _SPLITS.items())  # fmt: skip
        yield f"\nWho gave the labels: {'; '.join(parts)}."


def _training(sources: Sources) -> Iterator[str]:
    manifest, record = sources.manifest, sources.training
    outcome = manifest.metrics.get("training", {})
    yield "## Training\n"
    if imported := manifest.data.get("imported"):
        yield f"Imported ({_text(imported.get('form'))}). What it learnt is unknown."
        if reason := imported.get("unseen"):
            yield f"Why it cannot have learnt the messages above, as said then: {_text(reason)}."
        outcome, record = {}, None
    if outcome:
        yield f"{outcome.get('steps')} steps; kept: {_text(outcome.get('kept'))}."
    if record is not None:
        yield (
            f"{record.training_seconds:.0f} s on {_text(record.machine.device)} "
            f"({_text(record.machine.cpu)}), {record.compute_dtype}; "
            f"{record.parameters.trainable:,} of {record.parameters.total:,} weights."
        )
    if taught := manifest.data.get("distillation"):
        share = manifest.data.get("recipe", {}).get("distillation_weight")
        yield (
            f"\nDistilled: {_text(share)} of the target are the predictions of a teacher that was "
            f"trained without the message ({_text(taught.get('teacher'))}; it agrees with "
            f"{taught.get('agreement', 0.0):.1%} of the training labels)."
        )
    yield "\n| setting | value |\n|---|---|"
    for key, value in manifest.data.get("recipe", {}).items():
        yield f"| {_text(key)} | {_text(_json(value))} |"
    libraries = ", ".join(f"{key} {value}" for key, value in manifest.versions.items())
    yield f"\nMade with {_text(libraries)}."


def _split(manifest: Manifest, name: str) -> Mapping[str, Any]:
    part = manifest.data.get(name, {})
    return part if isinstance(part, Mapping) else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def _text(value: Any) -> str:
    """Return a value as one line, with Markdown and HTML escaped."""
    text = " ".join(str(value).split())
    for mark in "\\|<>`*[]":
        text = text.replace(mark, f"\\{mark}")
    return text
