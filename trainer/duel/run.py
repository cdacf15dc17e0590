"""One duel: the adapter against cheaper candidates, on the same hold-out."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from trainer.artifacts.duel import (
    ANSWERS_NAME,
    CONTENDER_NAME,
    DUEL,
    CandidateFigures,
    DuelRecord,
)
from trainer.artifacts.duel import LearningCurvePoint as CurvePoint
from trainer.artifacts.evaluation import DisjointProof, EvaluationRecord
from trainer.artifacts.files import check_target, fresh_folder
from trainer.artifacts.training import LEARNT_UNKNOWN, AdapterName, said_unseen
from trainer.check.duplicates import number_groups
from trainer.dataset.folder import Dataset, Example, open_dataset, open_holdout
from trainer.dataset.near_duplicates import verify_disjoint
from trainer.duel.baselines import is_baseline_name, make_split, train_baselines
from trainer.duel.candidates import (
    ADAPTER,
    BASE_PROMPTED,
    Candidate,
    TrainedAdapter,
    ask_adapter,
    ask_base,
    ask_trained,
    from_recorded,
    open_trained,
    read_recorded,
    reuse_evaluation,
    write_recorded,
)
from trainer.duel.contender import Terms, ask_contender, purpose_of
from trainer.duel.verdict import compare_all, describe_power
from trainer.errors import BadInput
from trainer.evaluation.evaluate import check_fits, describe_dataset, open_trained_on
from trainer.evaluation.summary import verify_evaluation
from trainer.model.lora_model import load_adapter_model
from trainer.model.prompt import BaseTokenizer
from trainer.model.published import read_adapter, require_base
from trainer.progress import progress
from trainer.statistics.metrics import Groups, as_groups, measure
from worker.common.review_files import guard
from worker.contract import Manifest
from worker.contract.timestamps import rfc3339_now


def refuse_unproven(manifest: Manifest, dataset: Dataset, trained_on: Dataset | None) -> None:
    """Raise BadInput if the hold-out may contain messages that the adapter was trained on: such an
    adapter beats every baseline."""
    if said_unseen(manifest) == "":
        raise BadInput(f"{manifest.name}: {LEARNT_UNKNOWN}")
    own = manifest.data.get("digest")
    if own == dataset.digest or trained_on is not None:
        return
    if not own:
        raise BadInput(
            f"the adapter's manifest does not say which dataset it was trained on, so it may have "
            f"learnt from the hold-out of {dataset.directory}: train it with clerk-trainer train"
        )
    raise BadInput(
        f"{dataset.directory}: is dataset {dataset.digest[:12]}, but the adapter was trained on "
        f"{str(own)[:12]}: use that dataset, or give its folder with --trained-on so that hold-out "
        "and training messages are compared"
    )


def verify_unseen(
    trained_on: Dataset, dataset: Dataset, holdout: Sequence[Example]
) -> DisjointProof:
    """Return the proof. Raises BadInput if the hold-out shares messages with the training."""
    proof = verify_disjoint(trained_on, dataset, holdout)
    if proof.shared:
        raise BadInput(
            f"{dataset.directory}: {proof.shared} of its {proof.holdout_messages} held-out "
            f"messages were training messages of the adapter ({proof.describe()}): use the "
            "adapter's own dataset"
        )
    return proof


_OUTSIDE = "(outside the set)"
_SEED = 1


@dataclass(frozen=True, slots=True)
class DuelRequest:
    """The candidates of a duel.

    ``base`` may be None if the adapter contains its whole model; then no base is prompted.
    ``evaluation`` is an evaluation whose predictions are reused, ``embeddings`` an embedding
    model's directory, ``recorded`` NAME=FILE of another model's answers. ``margin`` (a share) is
    how much worse a shipped baseline may be. ``against`` are other adapters or their runs, trained
    on the same dataset. ``trained_on`` is the folder of the adapter's training dataset if
    ``dataset`` is another one; the hold-out is compared with it, and the baselines learn from it.
    ``terms`` are of a model that is asked about the hold-out.
    """

    adapter: Path
    dataset: Path
    base: Path | None
    out: Path
    evaluation: Path | None
    embeddings: Path | None
    recorded: tuple[str, ...]
    base_prompted: bool
    margin: float
    against: tuple[Path, ...] = ()
    trained_on: Path | None = None
    terms: Terms | None = None


def run_duel(request: DuelRequest, console: Console) -> DuelRecord:
    """Train the baselines, score the other candidates, test each against the adapter, write the
    result folder (the record last) and return the record.

    Raises BadInput, also if the hold-out may contain training messages of the adapter,
    NotGoodEnough if the asked model left messages without an answer, and AdapterRefused; nothing is
    written then.
    """
    check_target(request.out, DUEL.name)
    recorded = [read_recorded(given) for given in request.recorded]
    manifest, tokenizer = read_adapter(request.adapter, request.base)
    dataset = open_dataset(request.dataset)
    # proven: what evaluate only warns of, refuse_unproven makes an error. An adapter that has
    # learnt the hold-out beats every baseline.
    check_fits(manifest, dataset, console, proven=True)
    trained_on = open_trained_on(request.trained_on, manifest, dataset)
    refuse_unproven(manifest, dataset, trained_on)
    # The baselines learn what the adapter learnt. From the other dataset's training split they
    # would learn messages that are closer to its hold-out.
    learnt = trained_on or dataset
    bases = [path for path in (request.base, request.embeddings) if path is not None]
    against = with_unique_names([open_trained(given, bases, learnt) for given in request.against])
    asked = [request.terms.contender.model] if request.terms else []
    _check_names([*(answers.name for answers in recorded), *asked], against)
    labels = manifest.taxonomy.names
    reused = None
    if request.evaluation:
        reused = _read_evaluation(request.evaluation, manifest, dataset)
    power = describe_power(dataset.record["files"]["holdout.jsonl"]["examples"], request.margin)
    console.print(power, soft_wrap=True, highlight=False)
    # With the host in the record, if the messages leave: a later reader knows who may have learnt
    # from this hold-out.
    purpose = purpose_of(request.terms.contender if request.terms else None)
    holdout = open_holdout(dataset, purpose=purpose, subject=manifest.digest)
    disjoint = verify_unseen(trained_on, dataset, holdout) if trained_on else None
    ids = [example.id for example in holdout]
    contender = None
    if request.terms is not None:
        # Before the rest: it may take longest, end without an answer, or be interrupted.
        with progress(request.terms.contender.model, request.terms.forecast.open) as step:
            contender = ask_contender(request.terms, holdout, step)
        recorded.append(contender)
    elsewhere = [from_recorded(answers, ids, labels) for answers in recorded]
    adapter, *base = _ask_models(request, manifest, tokenizer, holdout, reused)
    baselines, curve = _train_baselines(request, learnt, holdout, labels)
    trained = [ask_trained(each, holdout) for each in against]

    candidates = [adapter, *baselines, *trained, *elsewhere, *base]
    record = _judge(
        candidates,
        holdout,
        manifest,
        dataset,
        margin=request.margin,
        curve=curve,
        disjoint=disjoint,
    )
    with fresh_folder(request.out) as draft:
        table = _table(ids, [example.label for example in holdout], candidates)
        (draft / ANSWERS_NAME).write_text(table, encoding="utf-8", newline="")
        if contender is not None:
            answers = write_recorded(contender)
            (draft / CONTENDER_NAME).write_text(answers, encoding="utf-8", newline="")
        DUEL.write(draft, record)
    return record


def _judge(
    candidates: Sequence[Candidate],
    holdout: Sequence[Example],
    manifest: Manifest,
    dataset: Dataset,
    *,
    margin: float,
    curve: Sequence[CurvePoint],
    disjoint: DisjointProof | None,
) -> DuelRecord:
    labels = manifest.taxonomy.names
    truth = [example.label for example in holdout]
    groups = as_groups(number_groups(dataset, holdout))
    outcome = compare_all(candidates, truth, margin=margin, groups=groups)
    return DuelRecord(
        created_at=rfc3339_now(),
        adapter=AdapterName(name=manifest.name, digest=manifest.digest),
        dataset=describe_dataset(dataset),
        labels=labels,
        examples=len(truth),
        candidates=tuple(
            describe_candidate(candidate, truth, labels, groups) for candidate in candidates
        ),
        pairs=outcome.pairs,
        minimum_detectable_difference=outcome.minimum_detectable_difference,
        verdict=outcome.verdict,
        recommendation=outcome.recommendation.candidate,
        rules=outcome.rules,
        learning_curve=tuple(curve),
        margin=margin,
        conclusion=outcome.recommendation.conclusion,
        tested_baseline=outcome.recommendation.baseline,
        required_messages=outcome.required_messages,
        servable=outcome.servable.candidate if outcome.servable else None,
        disjoint=disjoint,
        replacements=outcome.replacements,
    )


def describe_candidate(
    candidate: Candidate,
    truth: Sequence[str],
    labels: Sequence[str],
    groups: Groups | None = None,
) -> CandidateFigures:
    """Return a candidate's figures. An answer that is not a label is wrong."""
    index = {label: at for at, label in enumerate(labels)}
    figures = measure(
        np.array([index[label] for label in truth], dtype=np.int64),
        np.array([index.get(label, len(labels)) for label in candidate.answers], dtype=np.int64),
        [*labels, _OUTSIDE],
        groups,
    )
    known = {each.name: getattr(candidate, each.name) for each in fields(candidate)}
    del known["answers"]  # in a file of their own
    return CandidateFigures(
        accuracy=figures.accuracy,
        accuracy_interval_95=figures.interval,
        macro_f1=figures.macro_f1,
        **known,
    )


def with_unique_names(against: Sequence[TrainedAdapter]) -> list[TrainedAdapter]:
    """Append the digest's first digits to names that several adapters have."""
    names = Counter(each.name for each in against)
    return [
        replace(each, name=f"{each.name}-{each.manifest.digest[:6]}")
        if names[each.name] > 1
        else each
        for each in against
    ]


def _check_names(given: Sequence[str], against: Sequence[TrainedAdapter]) -> None:
    # id and label are columns of the table of answers.
    taken = {ADAPTER, BASE_PROMPTED, "id", "label"}
    for name in (*given, *(each.name for each in against)):
        if name in taken or is_baseline_name(name):
            raise BadInput(f"candidate {name!r}: the name is taken: choose another one")
        taken.add(name)


def _read_evaluation(directory: Path, manifest: Manifest, dataset: Dataset) -> EvaluationRecord:
    """Return an evaluation to reuse. Raises BadInput if it is of another adapter or hold-out."""
    record = verify_evaluation(directory)
    if record.adapter.digest != manifest.digest:
        raise BadInput(f"--evaluation {directory}: is of another adapter: evaluate this one")
    if record.dataset.holdout_sha256 != describe_dataset(dataset).holdout_sha256:
        raise BadInput(f"--evaluation {directory}: is of another hold-out: evaluate on this one")
    return record


def _ask_models(
    request: DuelRequest,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    holdout: Sequence[Example],
    reused: EvaluationRecord | None,
) -> list[Candidate]:
    """Return the adapter's answers and, if requested, those of its base."""
    if reused is not None:
        assert request.evaluation is not None
        ids = [example.id for example in holdout]
        found = reuse_evaluation(reused, request.evaluation, ids)
    else:
        found = ask_adapter(request.adapter, request.base, manifest, tokenizer, holdout)
    candidates = [replace(found, served_as=manifest.kind)]
    if request.base_prompted and manifest.kind == "lora-code":
        base = require_base(request.base, manifest)
        model = load_adapter_model(request.adapter, base, manifest)
        candidates.append(ask_base(model, base, manifest, tokenizer, holdout))
    return candidates


def _train_baselines(
    request: DuelRequest,
    learnt: Dataset,
    holdout: Sequence[Example],
    labels: Sequence[str],
) -> tuple[list[Candidate], list[CurvePoint]]:
    train, validation, judged = (
        make_split(examples, request.embeddings)
        for examples in (learnt.train, learnt.validation, holdout)
    )
    return train_baselines(train, validation, judged, labels, seed=_SEED)


def _table(ids: Sequence[str], truth: Sequence[str], candidates: Sequence[Candidate]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "label", *(candidate.name for candidate in candidates)])
    columns = (candidate.answers for candidate in candidates)
    for cells in zip(ids, truth, *columns, strict=True):
        writer.writerow(map(guard, cells))  # reviewers open it in a spreadsheet
    return out.getvalue()
