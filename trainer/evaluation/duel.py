"""One duel: the adapter against whatever is cheaper, on the same hold-out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from trainer.dataset.examples import Example
from trainer.dataset.folder import Dataset, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.evaluation.adapter import code_ids, load_adapter_student, prompts_of, read_adapter
from trainer.evaluation.base_prompted import score_base
from trainer.evaluation.contenders import Contender, cheap_contenders, count_cheap, make_split
from trainer.evaluation.folder import check_target, fresh_folder, write_record
from trainer.evaluation.metrics import measure
from trainer.evaluation.paired import (
    bootstrap_difference,
    discord,
    holm,
    mcnemar_exact,
    resolvable_difference,
)
from trainer.evaluation.predictions import PREDICTIONS, decide, read_predictions
from trainer.evaluation.progress import make_bar
from trainer.evaluation.recompute import verify_evaluation
from trainer.evaluation.recorded import Recorded, read_recorded
from trainer.evaluation.run import check_fits, describe_dataset
from trainer.evaluation.scoring import RawScores, make_scorer
from trainer.evaluation.verdict import RULES, Standing, judge
from trainer.model.student import LoraModel
from trainer.model.tokens import BaseTokenizer
from worker.contract import Manifest
from worker.contract.timestamps import rfc3339_now

SCHEMA = "duel/1"
RECORD = "duel.json"
ANSWERS = "duel_predictions.csv"

_ADAPTER = "adapter"
_BASE = "base-prompted"
_OUTSIDE = "(outside the set)"
_BATCH_SIZE = 64
_SEED = 1

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Request:
    """Who fights. ``evaluation`` is an evaluation whose predictions are reused, ``embeddings`` an
    embedding model's directory, ``recorded`` NAME=FILE of answers given elsewhere."""

    adapter: Path
    dataset: Path
    base: Path
    out: Path
    evaluation: Path | None
    embeddings: Path | None
    recorded: tuple[str, ...]
    base_prompted: bool
    device: str


def run_duel(request: Request, console: Console) -> dict[str, Any]:
    """Train the cheap contenders, ask the base, test each against the adapter, write the result
    folder (the record last) and return the record.

    Raises BadInput and AdapterRefused; then nothing is written.
    """
    check_target(request.out, RECORD)
    recorded = [read_recorded(one) for one in request.recorded]
    _check_names(recorded)
    manifest, tokenizer = read_adapter(request.adapter, request.base)
    dataset = open_dataset(request.dataset)
    check_fits(manifest, dataset, console)
    labels = manifest.taxonomy.names
    reused = _read_evaluation(request.evaluation, manifest, dataset) if request.evaluation else None
    holdout = open_holdout(dataset, purpose="duel", subject=manifest.digest)
    ids = [one.id for one in holdout]
    contenders = [_from_record(one, ids, labels) for one in recorded]

    student = None
    if reused is None or request.base_prompted:
        student = load_adapter_student(
            request.adapter, request.base, manifest, device=request.device
        )
    if reused is None:
        assert student is not None
        adapter = _ask_adapter(student, manifest, tokenizer, holdout, console)
    else:
        adapter = _reuse(reused, ids)
    if request.base_prompted:
        assert student is not None
        scores = score_base(
            {one.id: one.message for one in holdout},
            base=request.base,
            student=student,
            manifest=manifest,
            tokenizer=tokenizer,
            console=console,
        )
        contenders.append(_from_scores(_BASE, "base", scores, manifest))
    with make_bar(console, "embedding", 3) as advance:
        train = make_split(dataset.train, request.embeddings, advance)
        validation = make_split(dataset.validation, request.embeddings, advance)
        judged = make_split(holdout, request.embeddings, advance)
    count = count_cheap(dataset.train, embeddings=request.embeddings is not None)
    with make_bar(console, "cheap contenders", count) as advance:
        cheap, curve = cheap_contenders(train, validation, judged, labels, seed=_SEED, done=advance)

    everyone = [adapter, *cheap, *contenders]
    truth = [one.label for one in holdout]
    record = {
        "schema": SCHEMA,
        "created_at": rfc3339_now(),
        "adapter": {"name": manifest.name, "digest": manifest.digest},
        "dataset": describe_dataset(dataset),
        "labels": list(labels),
        "examples": len(holdout),
        "contenders": [describe_contender(one, truth, labels) for one in everyone],
        **compare_all(everyone, truth),
        "rules": RULES,
        "learning_curve": curve,
    }
    with fresh_folder(request.out) as draft:
        (draft / ANSWERS).write_text(_table(ids, truth, everyone), encoding="utf-8", newline="")
        write_record(draft / RECORD, record)
    return record


def describe_contender(
    one: Contender, truth: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """Return a contender's figures. An answer outside the set is wrong whatever the truth."""
    known = [*labels, _OUTSIDE]
    index = {label: at for at, label in enumerate(labels)}
    figures = measure(
        np.array([index[label] for label in truth], dtype=np.int64),
        np.array([index.get(label, len(labels)) for label in one.answers], dtype=np.int64),
        known,
    )
    return {
        "name": one.name,
        "kind": one.kind,
        "accuracy": figures.accuracy,
        "accuracy_interval_95": list(figures.interval),
        "macro_f1": figures.macro_f1,
        "train_seconds": one.train_seconds,
        "messages_per_s": one.messages_per_s,
        "outside_labels": one.outside_labels,
        **one.more,
    }


def compare_all(everyone: Sequence[Contender], truth: Sequence[str]) -> dict[str, Any]:
    """Test the first contender, the adapter, against each other one; return pairs and verdict."""
    adapter, *others = everyone
    right = {one.name: _right(one, truth) for one in everyone}
    mine = right[adapter.name]
    found = [discord(mine, right[one.name]) for one in others]
    p_values = [mcnemar_exact(one) for one in found]
    adjusted = holm(p_values)
    pairs: list[dict[str, Any]] = []
    standings = []
    for one, counts, p, p_holm in zip(others, found, p_values, adjusted, strict=True):
        interval = bootstrap_difference(mine, right[one.name], seed=_SEED)
        pairs.append(
            {
                "a": adapter.name,
                "b": one.name,
                "difference": counts.difference,
                "interval_95": list(interval),
                "mcnemar_p": p,
                "p_holm": p_holm,
                "a_only": counts.a_only,
                "b_only": counts.b_only,
                "resolvable_difference": resolvable_difference(counts.share, counts.total),
            }
        )
        accuracy = float(right[one.name].mean())
        standings.append(Standing(one.name, one.kind, accuracy, counts.difference, p_holm))
    strongest = max(
        (at for at, one in enumerate(standings) if one.is_cheap),
        key=lambda at: standings[at].accuracy,
    )
    resolvable = float(pairs[strongest]["resolvable_difference"])
    verdict = judge(standings, float(mine.mean()), resolvable)
    return {
        "pairs": pairs,
        "resolvable_difference": resolvable,
        "verdict": verdict.text,
        "recommend": verdict.recommend,
    }


def _right(one: Contender, truth: Sequence[str]) -> Bools:
    return np.array([mine == true for mine, true in zip(one.answers, truth, strict=True)])


def _check_names(recorded: Sequence[Recorded]) -> None:
    names = [one.name for one in recorded]
    taken = {_ADAPTER, _BASE, "tfidf", "embeddings", "combined", "id", "label"}
    for at, name in enumerate(names):
        if name in taken or name.endswith("-sublabels") or name in names[:at]:
            raise BadInput(f"--contender {name}=...: the name is taken; choose another")


def _ask_adapter(
    student: LoraModel,
    manifest: Manifest,
    tokenizer: BaseTokenizer,
    holdout: Sequence[Example],
    console: Console,
) -> Contender:
    messages = {one.id: one.message for one in holdout}
    prompts = list(prompts_of(messages, manifest.prompt, tokenizer).values())
    ids = code_ids(manifest.codes, manifest.taxonomy.names)
    scorer = make_scorer(student, manifest.prompt.prefix_ids, ids, prompts)
    with make_bar(console, "the adapter", len(prompts)) as advance:
        scores = scorer.score(prompts, batch_size=_BATCH_SIZE, done=advance)
    return _from_scores(_ADAPTER, "adapter", scores, manifest)


def _from_scores(name: str, kind: str, scores: RawScores, manifest: Manifest) -> Contender:
    decisions = decide(scores.logprobs, manifest.taxonomy.names, manifest.calibration.temperature)
    return Contender(
        name=name,
        kind=kind,
        answers=tuple(one.label for one in decisions),
        train_seconds=None,
        messages_per_s=len(decisions) / scores.seconds,
        outside_labels=int((~scores.in_set).sum()),
    )


def _read_evaluation(directory: Path, manifest: Manifest, dataset: Dataset) -> Mapping[str, Any]:
    """Return what is to be reused. Raises BadInput unless it is of this adapter and hold-out."""
    record = verify_evaluation(directory)
    wanted = describe_dataset(dataset)["holdout_sha256"]
    if record["adapter"]["digest"] != manifest.digest:
        raise BadInput(f"--evaluation {directory}: is of another adapter: evaluate this one")
    if record["dataset"]["holdout_sha256"] != wanted:
        raise BadInput(f"--evaluation {directory}: is of another hold-out: evaluate on this one")
    if record["limited"]:
        raise BadInput(f"--evaluation {directory}: was a try (--limit): evaluate without a limit")
    return {"record": record, "predictions": read_predictions(directory / PREDICTIONS)}


def _reuse(found: Mapping[str, Any], ids: Sequence[str]) -> Contender:
    answers = {one.id: one.predicted for one in found["predictions"]}
    engine = found["record"]["engines"][0]
    return Contender(
        name=_ADAPTER,
        kind="adapter",
        answers=tuple(answers[one] for one in ids),
        train_seconds=None,
        messages_per_s=engine["messages_per_s"],
        outside_labels=found["record"]["outside_labels"]["unconstrained"],
    )


def _from_record(one: Recorded, ids: Sequence[str], labels: Sequence[str]) -> Contender:
    answers = one.of(ids)
    return Contender(
        name=one.name,
        kind="recorded",
        answers=tuple(answers),
        train_seconds=None,
        messages_per_s=len(one.answers) / one.seconds if one.seconds else None,
        outside_labels=sum(label not in labels for label in answers),
        more={} if one.cost is None else {"cost_per_message": one.cost / len(one.answers)},
    )


def _table(ids: Sequence[str], truth: Sequence[str], everyone: Sequence[Contender]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "label", *(one.name for one in everyone)])
    writer.writerows(zip(ids, truth, *(one.answers for one in everyone), strict=True))
    return out.getvalue()
