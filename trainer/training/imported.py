"""Import a classifier that was trained elsewhere: compare, calibrate, and write its run folder.

The model is the one that came (``trainer.model.foreign``); everything else is made as after a
training, from the validation messages of a dataset: temperature, thresholds, probes, reference.
What the model learnt is unknown, so nothing here can show that a hold-out is unseen. A person can
say so (``ImportRequest.unseen``), and manifest, gate and card repeat it as that.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from trainer.artifacts.training import (
    BaseName,
    Difference,
    Imported,
    OnnxFigures,
    ParameterCounts,
    TrainingRecord,
)
from trainer.dataset.folder import Dataset, open_dataset
from trainer.dataset.labels import fit_label, read_label_map, suggest_label
from trainer.errors import BadInput, ProofFailed
from trainer.model.base_card import find_languages, find_license
from trainer.model.encoder import TOKENIZER
from trainer.model.foreign import Foreign, open_foreign
from trainer.model.forward import PromptIds
from trainer.model.lora_model import digests
from trainer.model.onnx_files import FILES, OnnxPrecision, onnx_logits, onnx_versions
from trainer.model.prompt import load_tokenizer, make_rows, surround
from trainer.model.scoring import Class, label_indexes
from trainer.model_card import write_run_card
from trainer.statistics.calibration import Floats, Ints, temperature_softmax
from trainer.training.adapter import Parts, write_record, write_rest
from trainer.training.encoder import (
    MOST_OFF,
    all_agree,
    describe_file,
    make_head,
    onnx_figures,
    prefer,
)
from trainer.training.inputs import Inputs
from trainer.training.parts import Result, judge
from trainer.training.recipe import Recipe, make_recipe
from trainer.training.run_folder import DRAFT, open_run
from worker.contract import (
    GoldenPrompt,
    build_prompt,
    make_golden,
)
from worker.contract.taxonomy import label_name

SETTINGS = (
    "max_message_tokens",
    "onnx",
    "seed",
    "review_precision",
    "review_precision_by",
    "review_floor",
    "probes_per_label",
)
"""The settings of a recipe that an import uses."""

KEPT = "the weights as imported"

UNTRAINED: Mapping[str, Any] = {
    "gradient_checkpointing": False,
    "epochs": (),
    "best_epoch": 0,
    "kept": KEPT,
    "stopped_early": False,
    "steps": 0,
    "resumed": 0,
    "memory": None,
    "training_seconds": 0.0,
}
"""The fields of a training's record that say that nothing was trained."""

_MOST_COMPARED = 1000
_BETTER_ORDER = 0.2


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import, and how.

    ``labels`` names the model's outputs, ``label_map`` maps these names to the taxonomy's labels.
    A LoRA adapter has a ``base``, and ``prompts``, its training file. ``messages`` are texts as
    they arrive, to measure what cleaning changes. ``settings`` are those of ``SETTINGS``, as text
    or values.
    """

    source: Path
    dataset: Path
    run: Path
    labels: Path | None = None
    label_map: Path | None = None
    base: Path | None = None
    prompts: Path | None = None
    messages: tuple[str, ...] = ()
    unseen: str | None = None
    settings: Mapping[str, Any] | None = None
    replace: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The words of the command that an import like this needs again."""
        named = (
            ("--base", self.base),
            ("--prompts", self.prompts),
            ("--labels", self.labels),
            ("--label-map", self.label_map),
        )
        sets = (("--set", f"{name}={value}") for name, value in (self.settings or {}).items())
        return tuple(
            word for name, given in (*named, *sets) if given for word in (name, str(given))
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """The model with its rows: ``inputs`` has the validation messages alone."""

    request: ImportRequest
    recipe: Recipe
    model: Foreign
    inputs: Inputs
    golden: tuple[GoldenPrompt, ...]

    @property
    def prompts(self) -> list[PromptIds]:
        return [row.prompt for row in self.inputs.validation]

    @property
    def label_of(self) -> Ints:
        return label_indexes(self.inputs.classes, self.inputs.labels)

    def probabilities(self, logits: Floats) -> Floats:
        """Return the labels' probabilities, (rows, labels), without a temperature."""
        return temperature_softmax(logits, 1.0, self.label_of)


@dataclass(frozen=True, slots=True)
class _File:
    """An ONNX file with its logits of golden prompts, (prompts, outputs), and of validation."""

    path: Path
    precision: OnnxPrecision
    golden: Floats
    logits: Floats


@dataclass(frozen=True, slots=True)
class _Compared:
    """The files, the one that workers prefer first, how they differ from the original, and the
    original's logits of golden prompts, (prompts, outputs)."""

    files: tuple[_File, ...]
    imported: Imported
    golden: Floats

    def worst(self, file: _File) -> float:
        """Return the largest difference of a file's golden logit."""
        return float(np.abs(file.golden - self.golden).max())


def import_classifier(request: ImportRequest) -> TrainingRecord:
    """Import a classifier into the run folder and return the record.

    Raises BadInput for a model, labels or messages that cannot be used, and ProofFailed if the ONNX
    file is another function than the original; then the run folder has no adapter.
    """
    started = time.monotonic()
    if request.base is not None or request.prompts is not None:
        raise BadInput("--base and --prompts are for a LoRA adapter, not for a classifier")
    recipe = _make_recipe(request)
    dataset = open_dataset(request.dataset)
    model = open_foreign(request.source, request.labels)
    classes = map_outputs(model.outputs, dataset.taxonomy.names, request.label_map)
    with TemporaryDirectory() as scratch:  # nothing is written, or replaced, for bad input
        (Path(scratch) / TOKENIZER).write_bytes(model.tokenizer)
        opened = _read_rows(request, recipe, model, dataset, classes, folder=Path(scratch))
    open_run(recipe.run, resume=False, replace=request.replace)
    draft = recipe.run / DRAFT
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir()
    try:
        (draft / TOKENIZER).write_bytes(model.tokenizer)
        compared = _compare(opened, draft)
        results = [_calibrate(opened, file) for file in compared.files]
        record = _write(opened, compared, results, started)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    write_run_card(recipe.run)
    return record


def map_outputs(
    outputs: Sequence[str], labels: Sequence[str], label_map: Path | None
) -> tuple[Class, ...]:
    """Return the taxonomy's label of each output: by the map, else the same name, in whatever case
    and punctuation. Several outputs may have one label. Raises BadInput that lists every output
    without a label, and every label without an output."""
    table = read_label_map(label_map, labels) if label_map else {}
    classes = [
        Class(name, table.get(label_name(name)) or fit_label(label_name(name), labels))
        for name in outputs
    ]
    wrong = [
        f"the model's output {each.name!r} is not a label of the dataset's taxonomy"
        f"{suggest_label(each.name, labels)}: give --label-map FILE, or --labels if the model's "
        "names are wrong"
        for each in classes
        if each.label not in labels
    ]
    found = {each.label for each in classes}
    if not wrong:
        wrong = [
            f"the model has no output for the label {label!r}: map one to it with --label-map, or "
            "prepare the dataset without it"
            for label in labels
            if label not in found
        ]
    if wrong:
        raise BadInput(*wrong)
    return tuple(classes)


def check_settings(request: ImportRequest, known: Sequence[str]) -> None:
    """Raise BadInput for a setting that has no effect on an import."""
    for name in request.settings or {}:
        if name not in known:
            raise BadInput(f"--set {name}: is not a setting of an import: use {', '.join(known)}")


def _make_recipe(request: ImportRequest) -> Recipe:
    check_settings(request, SETTINGS)
    given = dict(request.settings or {})
    if given.get("onnx") == "":
        raise BadInput("--set onnx: a worker serves ONNX files: use fp32, int8, or both")
    where = {"base": request.source, "dataset": request.dataset, "run": request.run}
    return make_recipe({"kind": "encoder", **where, **given})


def _read_rows(
    request: ImportRequest,
    recipe: Recipe,
    model: Foreign,
    dataset: Dataset,
    classes: tuple[Class, ...],
    *,
    folder: Path,
) -> _Opened:
    """Build the prompt and the rows, by the ``tokenizer.json`` in ``folder``. Raises BadInput."""
    require_validation(dataset)
    tokenizer = load_tokenizer(folder)
    asked = "max_message_tokens" in recipe.model_fields_set
    most = recipe.max_message_tokens if asked else model.default_room
    if model.room is not None and most > model.room:
        raise BadInput(
            f"max_message_tokens={most}: this model reads at most {model.room} tokens of a "
            "message: set it to that or less"
        )
    spec = surround(
        folder / TOKENIZER,
        tokenizer.encoders,
        max_message_tokens=most,
        redaction=dataset.redaction,
    )
    inputs = Inputs(
        dataset,
        tokenizer,
        spec,
        train=(),
        copies=(),
        validation=make_rows(dataset.validation, spec, tokenizer.encoders.plain),
        classes=classes,
    )
    recipe = recipe.model_copy(
        update={
            "base_name": model.base.name,
            "base_revision": model.base.revision,
            "max_message_tokens": most,
        }
    )
    golden = make_golden(spec, tokenizer.encoders)
    return _Opened(request, recipe, model, inputs, golden)


def require_validation(dataset: Dataset) -> None:
    """Raise BadInput if a label has no validation message."""
    empty = set(dataset.taxonomy.names) - {example.label for example in dataset.validation}
    if empty:
        raise BadInput(
            f"{dataset.directory}: no validation example of {', '.join(sorted(empty))}: prepare "
            "the dataset with more of them"
        )


def _compare(opened: _Opened, draft: Path) -> _Compared:
    """Write the ONNX files into the draft, and ask them and the original."""
    model, prompts = opened.model, opened.prompts
    places = choose_compared(len(prompts))
    # Validation twice, as text and as token ids, because they are two comparisons: what the
    # tokenizer changes, and what the export does.
    messages = [opened.inputs.dataset.validation[at].message for at in places]
    golden = model.logits([prompt.ids for prompt in opened.golden])
    own = model.original(messages)
    same_ids = model.logits([prompts[at] for at in places])
    truth = opened.inputs.truth[places]
    _refuse_order(opened, own, truth)
    found = {
        precision: _ask_file(opened, draft, precision)
        for precision in model.write(draft, opened.recipe.onnx)
    }
    right = {
        name: opened.probabilities(file.logits).argmax(axis=1) == opened.inputs.truth
        for name, file in found.items()
    }
    files = tuple(found[precision] for precision in prefer(right))
    whole = found.get("fp32", files[0])
    _verify_graph(whole, golden, same_ids, places)
    served = files[0].logits[places]
    imported = Imported(
        form=model.form,
        source=str(opened.request.source),
        options=opened.request.options,
        unseen=opened.request.unseen,
        original_accuracy=_accuracy(opened, own, truth),
        served_accuracy=_accuracy(opened, served, truth),
        text=_differ(opened, own, same_ids),
        graph=_differ(opened, same_ids, whole.logits[places]),
        served=_differ(opened, own, served),
        raw=_compare_raw(opened, files[0]) if opened.request.messages else None,
    )
    return _Compared(files, imported, golden)


def choose_compared(count: int, most: int = _MOST_COMPARED) -> list[int]:
    """Return the places of at most ``most`` of so many, the same each time."""
    chosen = np.random.default_rng(1).permutation(count)[:most]
    return [int(at) for at in sorted(chosen)]


def _ask_file(opened: _Opened, draft: Path, precision: OnnxPrecision) -> _File:
    path = draft / FILES[precision]
    score = partial(
        onnx_logits, path, classes=len(opened.inputs.classes), pad_id=opened.model.pad_id
    )
    golden = score([prompt.ids for prompt in opened.golden])
    return _File(path, precision, golden, score(opened.prompts))


def _verify_graph(file: _File, golden: Floats, same_ids: Floats, places: list[int]) -> None:
    """Raise ProofFailed if a float32 file is not the function that the original is."""
    if file.precision != "fp32":
        return
    ours = np.concatenate([file.golden, file.logits[places]])
    theirs = np.concatenate([golden, same_ids])
    worst = float(np.abs(ours - theirs).max())
    if not worst <= MOST_OFF * max(1.0, float(np.abs(theirs).max())):
        raise ProofFailed(
            f"{file.path.name}: a score of the ONNX file differs from the original's by "
            f"{worst:.3g}: this model cannot be exported: export it with its own tools and import "
            "the .onnx file"
        )


def _compare_raw(opened: _Opened, file: _File) -> Difference:
    """Ask the original for messages as they arrive, and the file as a worker does."""
    spec, encode = opened.inputs.spec, opened.inputs.tokenizer.encoders.plain
    texts = opened.request.messages
    chosen = [texts[at] for at in choose_compared(len(texts))]
    built = [(text, build_prompt(spec, text, encode)) for text in chosen]
    kept = [(text, prompt.ids) for text, prompt in built if prompt is not None]
    if not kept:
        raise BadInput("--messages: none of them has a text")
    own = opened.model.original([text for text, _ in kept])
    ours = onnx_logits(
        file.path,
        [ids for _, ids in kept],
        classes=len(opened.inputs.classes),
        pad_id=opened.model.pad_id,
    )
    return _differ(opened, own, ours)


def _differ(opened: _Opened, one: Floats, other: Floats) -> Difference:
    ours, theirs = opened.probabilities(one), opened.probabilities(other)
    return Difference(
        messages=len(ours),
        labels_differ=int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum()),
        max_probability_difference=float(np.abs(ours - theirs).max()),
    )


def _accuracy(opened: _Opened, logits: Floats, truth: Ints) -> float:
    return float((opened.probabilities(logits).argmax(axis=1) == truth).mean())


def _refuse_order(opened: _Opened, logits: Floats, truth: Ints) -> None:
    """Raise BadInput if other names for the outputs would make far more answers right: the labels
    are in another order than the scores."""
    labels, classes = opened.inputs.labels, opened.inputs.classes
    chosen = logits.argmax(axis=1)
    right = 0
    better: dict[str, str] = {}
    for at, each in enumerate(classes):
        counts = Counter(truth[chosen == at].tolist())
        if not counts:
            continue
        place, count = counts.most_common(1)[0]
        right += count
        if labels[place] != each.label:
            better[each.name] = labels[place]
    if right / len(truth) - _accuracy(opened, logits, truth) < _BETTER_ORDER or not better:
        return
    name, label = next(iter(better.items()))
    if len(set(better.values())) < len(better):
        return  # a model that gives one label to everything, not another order
    raise BadInput(
        f"{opened.request.labels or opened.request.source}: the outputs are probably named in "
        f"another order than the model's scores: most messages that get {name!r} are labelled "
        f"{label!r}, and likewise {len(better)} of {len(classes)} outputs: correct --labels"
    )


def _calibrate(opened: _Opened, file: _File) -> Result:
    inputs = opened.inputs
    truth, label_of = inputs.truth, opened.label_of
    figures, calibrated = judge(opened.recipe, inputs, file.logits, truth, label_of)
    if opened.model.out_of_scope != "energy":
        # Probabilities say nothing about scope that the confidence does not.
        within = replace(calibrated.thresholds, review_out_of_scope=None)
        calibrated = replace(calibrated, thresholds=within)
    return Result({}, file.logits, inputs.outputs, truth, label_of, figures, calibrated)


def _describe(
    opened: _Opened, compared: _Compared, results: Sequence[Result]
) -> tuple[Parts, tuple[OnnxFigures, ...]]:
    """Return the manifest's parts that an import knows, and the figures of the files."""
    recipe, inputs, model = opened.recipe, opened.inputs, opened.model
    files = compared.files
    whole = {file.precision: found for file, found in zip(files, results, strict=True)}.get("fp32")
    onnx = tuple(
        onnx_figures(file.path, file.precision, compared.worst(file), found, than=whole or found)
        for file, found in zip(files, results, strict=True)
    )
    head = make_head(
        inputs.classes,
        compared.golden,
        pooling=None,
        normalize=False,
        out_of_scope=model.out_of_scope,
        vocabulary=model.vocabulary,
        pad_id=model.pad_id,
        weights=(),
        onnx=tuple(
            describe_file(file.path, file.precision, compared.worst(file)) for file in files
        ),
    )
    imported = compared.imported
    parts = Parts(
        files=digests(recipe.run / DRAFT),
        golden=opened.golden,
        head=head,
        agreed=all_agree(results),
        metrics={"onnx": [each.to_json() for each in onnx]},
        versions=onnx_versions(),
        data={
            "recipe": record_settings(recipe, SETTINGS),
            "imported": imported.to_manifest(),
        },
    )
    return parts, onnx


def _write(
    opened: _Opened, compared: _Compared, results: Sequence[Result], started: float
) -> TrainingRecord:
    """Write the adapter, the validation scores, and last the record; return the record."""
    recipe, inputs, model, result = opened.recipe, opened.inputs, opened.model, results[0]
    parts, onnx = _describe(opened, compared, results)
    manifest = write_rest(
        recipe,
        inputs,
        result,
        parts,
        name=f"{inputs.dataset.taxonomy.name}-imported",
        base=model.base,
        outcome={"steps": 0, "kept": KEPT},
    )
    folder = opened.request.source if model.form == "huggingface" else opened.request.source.parent
    return write_record(
        recipe.run,
        inputs,
        result,
        manifest,
        device=torch.device("cpu"),
        started=started,
        base=BaseName(
            name=model.base.name,
            revision=model.base.revision,
            license=find_license(folder),
            languages=find_languages(folder),
        ),
        recipe=record_settings(recipe, SETTINGS),
        seeds={"python": recipe.seed},
        compute_dtype="float32",
        tokens_per_message=round(float(np.mean([len(each) for each in opened.prompts])), 1),
        parameters=ParameterCounts(trainable=0, total=model.weights),
        onnx=onnx,
        imported=compared.imported,
        **UNTRAINED,
    )


def record_settings(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings that had an effect, as plain JSON."""
    known = {"kind", "base_name", "base_revision", *names}
    return {name: value for name, value in recipe.to_record().items() if name in known}
