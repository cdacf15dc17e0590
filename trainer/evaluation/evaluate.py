"""One evaluation, from an adapter to ``evaluation.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from trainer.artifacts.evaluation import (
    EVALUATION,
    EVALUATION_FOLDER,
    PROBES_NAME,
    Answer,
    EvaluatedAdapter,
    EvaluatedDataset,
    EvaluationRecord,
    Prediction,
    TeacherLabel,
)
from trainer.artifacts.files import check_target, fresh_folder
from trainer.artifacts.training import (
    LEARNT_UNKNOWN,
    TRAINING,
    VALIDATION_SCORES,
    said_unseen,
)
from trainer.check.duplicates import number_groups
from trainer.dataset.extra_files import read_label_sources
from trainer.dataset.folder import (
    EXPORT,
    HOLDOUT,
    Dataset,
    Example,
    list_openings,
    open_dataset,
    open_holdout,
)
from trainer.dataset.near_duplicates import refuse_unlike, verify_disjoint
from trainer.dataset.people import Taught, has_same_pool, read_taught
from trainer.errors import BadInput
from trainer.evaluation.engines import (
    WORKER_ENGINE,
    MessageSets,
    ScoresByKey,
    WorkerAnswers,
    read_fields,
    read_messages,
    run_transformers,
    run_worker,
    scores_of,
    worker_answers,
)
from trainer.evaluation.predictions import (
    PRECISION,
    made_by_folds,
    outputs_of,
    predict,
    promised_by,
    verify_agreement,
)
from trainer.evaluation.summary import EngineSpeed, Predictions, Setup, summarize, write_predictions
from trainer.languages import language_of
from trainer.model.device import describe_device
from trainer.model.prompt import BaseTokenizer
from trainer.model.published import read_adapter
from trainer.model_card import read_training, write_run_card
from trainer.statistics.thresholds import FOLD_LEVEL, LEVEL
from trainer.steering.measure import PAIRS, SEED, answer_pairs
from trainer.steering.sentences import make_pairs
from trainer.tracking.session import track_evaluation
from worker.contract import ENCODER_KINDS, Manifest, Probe, review_reasons
from worker.contract.taxonomy import label_name
from worker.contract.timestamps import rfc3339_now
from worker.contract.verify import ProbeFile, write_probes


def read_written(path: Path, labels: Sequence[str]) -> tuple[Example, ...]:
    """Read labelled messages from a table with the columns ``message`` and ``label``. Raises
    BadInput that lists all problems, without the messages."""
    found: dict[str, Example] = {}
    wrong = []
    for number, row in read_fields(path, ("message", "label")):
        message, label = row["message"].strip(), label_name(row["label"])
        if not message or not label:
            wrong.append(f"{path}: line {number} has no text in 'message' or no 'label'")
        elif label not in labels:
            wrong.append(
                f"{path}: line {number} has the label {label!r}, which is not a label of the "
                f"adapter: use {', '.join(labels)}"
            )
        # Twice it would be tried twice at each start of a worker.
        found.setdefault(message, Example(str(number), message, label))
    if wrong:
        raise BadInput(*wrong)
    return tuple(found.values())


def pick_probes(manifest: Manifest, written: Sequence[Example], scores: ScoresByKey) -> ProbeFile:
    """Return the ``written`` messages, scored under ``p:<id>``, that get their label and would not
    go to review, so a machine that rounds differently gives them the same label."""
    outputs = outputs_of(manifest)
    logprobs = np.array([scores[f"p:{example.id}"][0] for example in written])
    decisions = outputs.decide(
        logprobs.reshape(-1, len(outputs.names)), manifest.calibration.temperature
    )
    kept = tuple(
        Probe(example.message, example.label)
        for example, decision in zip(written, decisions, strict=True)
        if decision.label == example.label and not review_reasons(decision, manifest.thresholds)
    )
    return ProbeFile(manifest.digest, "written", kept)


Engine = Literal["transformers", "vllm", "both"]


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to evaluate, and how.

    ``base`` may be None if the adapter contains its whole model. ``wanted_precision`` None means
    the adapter's promise. ``trained_on``
    is the folder of the adapter's training dataset if ``dataset`` is another one; the hold-out is
    compared with it. ``probes`` is a file of labelled messages; those that the adapter gets right
    become its probes. ``steering`` measures whether a sentence in a message can choose its label.
    """

    adapter: Path
    dataset: Path
    base: Path | None
    out: Path
    engine: Engine = "transformers"
    out_of_scope: Path | None = None
    wanted_precision: float | None = None
    worker_settings: tuple[str, ...] = ()
    trained_on: Path | None = None
    probes: Path | None = None
    steering: bool = True


@dataclass(frozen=True, slots=True)
class _Measured:
    """The engines' results; ``answers`` are None if the worker did not run."""

    scores: ScoresByKey
    speeds: tuple[EngineSpeed, ...]
    answers: WorkerAnswers | None


def evaluate_once(request: EvaluationRequest, console: Console) -> None:
    """Evaluate as ``evaluate_adapter`` does, unless the result folder has an evaluation."""
    if EVALUATION.read_if_present(request.out) is None:
        evaluate_adapter(request, console)


def evaluate_adapter(request: EvaluationRequest, console: Console) -> EvaluationRecord:
    """Evaluate, write the result folder (the record last) and return the record.

    The hold-out is opened after the adapter has passed every check. Raises BadInput,
    AdapterRefused, and ProofFailed if engines disagree or an answer is not a label; nothing is
    written then.
    """
    check_target(request.out, EVALUATION.name)
    manifest, tokenizer = read_adapter(request.adapter, request.base)
    dataset = open_dataset(request.dataset)
    check_fits(manifest, dataset, console, proven=request.trained_on is not None)
    trained_on = open_trained_on(request.trained_on, manifest, dataset)
    outside = read_messages(request.out_of_scope) if request.out_of_scope else {}
    written = read_written(request.probes, manifest.taxonomy.names) if request.probes else ()
    held_out = read_held_out(request.adapter, manifest)
    taught = _read_taught(manifest, dataset, trained_on, console)
    # Here and not before: each opening is counted, and everything above can refuse.
    holdout = open_holdout(dataset, purpose="evaluate", subject=manifest.digest)
    sets = MessageSets(
        holdout,
        dataset.validation if held_out is None else (),
        outside,
        written,
        make_pairs(holdout, dataset.taxonomy, count=PAIRS, seed=SEED) if request.steering else (),
        taught.pool if taught else (),
    )
    measured = _run_engines(request, manifest, tokenizer, sets, console)
    predictions = _make_predictions(manifest, sets, measured, dataset, held_out)
    if taught is not None:
        said = [TeacherLabel(id=each.id, label=taught.labels[each.id]) for each in sets.holdout]
        predictions = replace(predictions, teacher=said)
    setup = _make_setup(request, manifest, dataset, measured.speeds)
    origins = dataset if trained_on is None or held_out is None else trained_on
    sources = count_validation(origins, predictions.validation)
    setup = replace(setup, dataset=setup.dataset.model_copy(update={"validation_sources": sources}))
    if trained_on is not None:
        setup = replace(setup, disjoint=verify_disjoint(trained_on, dataset, sets.holdout))
    record = summarize(setup, predictions)
    if record.agreement is not None:
        verify_agreement(record.agreement)
    probes = pick_probes(manifest, written, measured.scores) if written else None
    if probes is not None:
        console.print(
            f"probes: {len(probes.probes)} of {len(written)} messages get their label and would "
            "not go to review",
            soft_wrap=True,
        )
    _write(request.out, record, predictions, probes)
    run = request.adapter.resolve().parent
    # A run's card shows the run's own evaluation, not one that was written elsewhere.
    if (run / TRAINING.name).is_file() and request.out.resolve() == run / EVALUATION_FOLDER:
        write_run_card(run)
    track_evaluation(read_training(run, manifest), record, console)
    return record


def _read_taught(
    manifest: Manifest, dataset: Dataset, trained_on: Dataset | None, console: Console
) -> Taught | None:
    """Return what the teacher said, None if nothing shows that the adapter has not learnt the
    messages of the pool."""
    found = read_taught(dataset)
    own = manifest.data.get("digest") == dataset.digest
    if found is None or own or (trained_on is not None and has_same_pool(trained_on, dataset)):
        return found
    console.print(
        "[yellow]note[/yellow] no accuracy with the teacher's help: the adapter's own dataset did "
        f"not set aside the same {len(found.pool):,} messages, so it may have learnt them",
        soft_wrap=True,
    )
    return None


def open_trained_on(folder: Path | None, manifest: Manifest, dataset: Dataset) -> Dataset | None:
    """Return the adapter's training dataset in ``folder``; None if that is ``dataset`` itself or no
    folder is given. Raises BadInput if it is another dataset, or cannot be compared."""
    own = manifest.data.get("digest")
    if folder is None or own == dataset.digest:
        return None
    trained_on = open_dataset(folder)
    if trained_on.digest != own:
        raise BadInput(
            f"--trained-on {folder}: is dataset {trained_on.digest[:12]}, but the adapter was "
            f"trained on {str(own)[:12]}: give the folder of that dataset"
        )
    refuse_unlike(trained_on, dataset)
    return trained_on


def check_fits(
    manifest: Manifest, dataset: Dataset, console: Console, *, proven: bool = False
) -> None:
    """Raise BadInput if adapter and dataset have different labels. Warn if the adapter was trained
    on another dataset, because the hold-out may contain its training messages, unless the caller
    compares them (``proven``)."""
    if set(manifest.taxonomy.names) != set(dataset.taxonomy.names):
        odd = sorted(set(manifest.taxonomy.names) ^ set(dataset.taxonomy.names))
        raise BadInput(
            f"{dataset.directory}: its labels are not the adapter's (only one has "
            f"{', '.join(odd)}): use the dataset that the adapter was trained on"
        )
    if said_unseen(manifest) == "":
        console.print(f"[yellow]note[/yellow] {LEARNT_UNKNOWN}", soft_wrap=True)
    trained_on = manifest.data.get("digest")
    if trained_on != dataset.digest and not proven:
        console.print(
            f"[yellow]note[/yellow] the adapter was not trained on this dataset "
            f"({dataset.digest[:12]}). The hold-out may contain its training messages, and the "
            "figures may be too good. Compare the two with --trained-on; publish refuses an "
            "adapter without this comparison",
            soft_wrap=True,
        )


def describe_dataset(dataset: Dataset) -> EvaluatedDataset:
    """Return a result's record of the dataset that it was measured on."""
    sources: Counter[str] = Counter()
    for words, count in (dataset.record.get("label_sources") or {}).get(HOLDOUT, {}).items():
        sources[words.partition(",")[0]] += count  # without the guideline
    openings = list_openings(dataset)
    tried = dict.fromkeys(each["subject"] for each in openings if each["purpose"] == "evaluate")
    return EvaluatedDataset(
        name=dataset.name,
        digest=dataset.digest,
        directory=str(dataset.directory.resolve()),
        holdout_sha256=dataset.holdout_sha256,
        openings=len(openings),
        tried=tuple(tried),
        holdout_sources=dict(sources),
    )


def count_validation(dataset: Dataset, validation: Sequence[Answer]) -> dict[str, int]:
    """Return how many labels of the messages that chose the thresholds come from each source."""
    origins = read_label_sources(dataset)
    if not origins:
        return {}
    return dict(Counter(origins.get(each.id, EXPORT).source for each in validation))


def _run_engines(
    request: EvaluationRequest,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    sets: MessageSets,
    console: Console,
) -> _Measured:
    scores: ScoresByKey = {}
    speeds: list[EngineSpeed] = []
    answers: WorkerAnswers | None = None
    if request.engine != "vllm":
        scores, speed = run_transformers(
            request.adapter,
            request.base,
            manifest,
            tokenizer,
            sets,
        )
        by_onnx = manifest.head is not None and bool(manifest.head.onnx)
        # ONNX Runtime runs on the processor, on a machine with a GPU too.
        speeds.append(
            EngineSpeed("onnxruntime", speed, describe_device("cpu"))
            if by_onnx
            else EngineSpeed("transformers", speed, describe_device())
        )
    if request.engine != "transformers":
        # With both, the engines are compared on the hold-out; the rest was scored above.
        answers = run_worker(
            request.adapter,
            request.base,
            sets,
            console,
            holdout_alone=bool(scores),
            settings=request.worker_settings,
        )
        name, device = WORKER_ENGINE, "auto"
        if manifest.kind in ENCODER_KINDS:
            name, device = "worker", "cpu"
        speeds.append(EngineSpeed(name, answers.messages_per_s, describe_device(device)))
        if not scores:
            scores = scores_of(answers, manifest)
    return _Measured(scores, tuple(speeds), answers)


def read_held_out(adapter: Path, manifest: Manifest) -> list[Prediction] | None:
    """Return the predictions on which an adapter's thresholds were made by folds; None if it was
    made with a validation split.

    Such an adapter has learnt its validation messages, so its own answers to them prove nothing.
    The predictions are in its run folder; without that folder the list is empty, and the gate does
    not accept the promise.
    """
    if not made_by_folds(manifest):
        return None
    run = adapter.resolve().parent
    if read_training(run, manifest) is None:
        return []
    rows = VALIDATION_SCORES.read(run)
    outputs = outputs_of(manifest)
    return predict(
        [row.id for row in rows],
        [row.label for row in rows],
        np.array([[row.logprobs[name] for name in outputs.names] for row in rows]),
        [None] * len(rows),
        outputs=outputs,
        temperature=manifest.calibration.temperature,
        limits=manifest.thresholds,
        groups=[row.group for row in rows],
    )


def _make_predictions(
    manifest: Manifest,
    sets: MessageSets,
    measured: _Measured,
    dataset: Dataset,
    held_out: list[Prediction] | None,
) -> Predictions:
    outputs = outputs_of(manifest)

    def predict_set(
        prefix: str, truth: Mapping[str, str | None], groups: Sequence[int | None] | None = None
    ) -> list[Prediction]:
        rows = [measured.scores[f"{prefix}:{message_id}"] for message_id in truth]
        logprobs = np.array([row for row, _ in rows])
        return predict(
            list(truth),
            list(truth.values()),
            logprobs.reshape(len(rows), len(outputs.names)),
            [inside for _, inside in rows],
            outputs=outputs,
            temperature=manifest.calibration.temperature,
            limits=manifest.thresholds,
            groups=groups,
        )

    def predict_part(prefix: str, examples: Sequence[Example]) -> list[Prediction]:
        truth: dict[str, str | None] = {example.id: example.label for example in examples}
        return predict_set(prefix, truth, number_groups(dataset, examples))

    holdout = [
        answer.model_copy(update={"language": language_of(example.message)})
        for answer, example in zip(predict_part("h", sets.holdout), sets.holdout, strict=True)
    ]
    answers = measured.answers
    named = {pair.id: pair.named for pair in sets.pairs}
    return Predictions(
        holdout=holdout,
        validation=predict_part("v", sets.validation) if held_out is None else held_out,
        out_of_scope=predict_set("o", dict.fromkeys(sets.out_of_scope)) or None,
        vllm=worker_answers(sets.holdout, answers) if answers else None,
        pairs=answer_pairs(
            sets.pairs, steered=predict_set("s", named), neutral=predict_set("n", named)
        )
        or None,
        pool=predict_part("t", sets.pool) or None,
    )


def _make_setup(
    request: EvaluationRequest,
    manifest: Manifest,
    dataset: Dataset,
    speeds: tuple[EngineSpeed, ...],
) -> Setup:
    promised = promised_by(manifest)
    wanted = request.wanted_precision
    if wanted is None:
        # The adapter's own promise: measured by a higher precision, an adapter that keeps its
        # promise would be sent back for more review.
        wanted = promised[0] if promised is not None else PRECISION
    return Setup(
        created_at=rfc3339_now(),
        adapter=EvaluatedAdapter(
            name=manifest.name, digest=manifest.digest, path=str(request.adapter.resolve())
        ),
        dataset=describe_dataset(dataset),
        outputs=outputs_of(manifest),
        temperature=manifest.calibration.temperature,
        limits=manifest.thresholds,
        wanted_precision=wanted,
        promised=promised,
        speeds=speeds,
        level=FOLD_LEVEL if made_by_folds(manifest) else LEVEL,
    )


def _write(
    out: Path, record: EvaluationRecord, predictions: Predictions, probes: ProbeFile | None
) -> None:
    with fresh_folder(out) as draft:
        if probes is not None:
            write_probes(draft / PROBES_NAME, probes)
        write_predictions(draft, predictions)
        EVALUATION.write(draft, record)
