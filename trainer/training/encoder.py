"""The kinds ``encoder`` and ``embedding-linear``: a small encoder with a linear head, fine-tuned or
frozen under logistic regression, and the adapter with its ONNX files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from trainer.artifacts.training import Epoch, OnnxFigures, Step
from trainer.errors import BadInput, ProofFailed
from trainer.model.device import Compute
from trainer.model.embeddings import (
    EMBEDDING_LENGTH,
    fit_by_folds,
    fit_grid,
    fit_linear,
    linear_layer,
)
from trainer.model.encoder import (
    EncoderModel,
    EncoderShape,
    collate_rows,
    find_pooling,
    load_encoder,
    read_encoder_state,
    write_encoder_files,
)
from trainer.model.lora_model import digests
from trainer.model.onnx_files import FILES, OnnxPrecision, export_onnx, onnx_logits, onnx_versions
from trainer.model.prompt import Row
from trainer.model.scoring import Class, HeadScorer, label_indexes, token_batches
from trainer.progress import progress
from trainer.statistics.calibration import Bools, Floats, nll, temperature_softmax
from trainer.training.adapter import Parts, verify_read_back, write_rest
from trainer.training.arithmetic import planned_bf16
from trainer.training.inputs import Inputs, read_head_inputs, verify_head_rows
from trainer.training.learner import Validation, Validator
from trainer.training.loop import TrainLoop, make_loop
from trainer.training.memory import MemoryPlan, plan_encoder_memory, read_shape
from trainer.training.objective import HeadObjective
from trainer.training.parts import Result, Training, calibrate_as_served
from trainer.training.recipe import Recipe
from trainer.training.run_folder import DRAFT, Save, TrainState
from trainer.training.teacher import ask_teacher
from worker.contract import (
    GoldenLogits,
    GoldenPrompt,
    Head,
    HeadOutput,
    Lora,
    Manifest,
    OnnxModel,
    describe_base,
    make_golden,
)

_TOLERANCES: dict[OnnxPrecision, float] = {"fp32": 0.01, "int8": 0.5}
"""The smallest tolerance for a logit: other processors add in another order and multiply 8-bit
integers with other instructions."""

_ROOM = 3.0  # times the difference measured here, if that is more than the smallest tolerance
MOST_OFF = 0.01
"""The largest relative difference of a float32 logit; a larger one means that the export is another
model."""


class Encoder:
    """Train an encoder, whole or by LoRA, or fit logistic regression over its frozen embeddings."""

    def prepare(self, recipe: Recipe, compute: Compute, console: Console) -> Training:
        """See ``Kind``."""
        inputs, plan, model = _load(recipe, compute, console)
        label_of = label_indexes(inputs.classes, inputs.labels)
        scorer = HeadScorer(model)
        validator = Validator(scorer, inputs.validation, inputs.labels, compute, label_of)
        if recipe.kind == "embedding-linear":
            compute.bf16 = False
            fit = LinearFit(model, inputs, validator)
            return _training(recipe, compute, inputs, plan, validator, fit, model=model)
        teacher = ask_teacher(recipe, inputs, compute.device, console)
        objective = HeadObjective(
            model,
            inputs.classes,
            inputs.labels,
            label_smoothing=recipe.label_smoothing,
            sublabel_weight=recipe.sublabel_share(inputs.sublabels),
            teacher=teacher,
        )
        loop = make_loop(model, inputs, objective, recipe, compute)
        training = _training(recipe, compute, inputs, plan, validator, loop, model=model)
        return replace(training, teacher=teacher)

    def as_served(self, training: Training) -> Training:
        """Return the training unchanged: it learns in float32, as it is served."""
        return training

    def write(
        self, training: Training, result: Result, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write the weights, the tokenizer, the recipe's ONNX files, and the manifest. See
        ``Kind``."""
        recipe, inputs, model = training.recipe, training.inputs, training.model
        assert isinstance(model, EncoderModel)
        draft = recipe.run / DRAFT
        weights = write_encoder_files(
            draft,
            recipe.base,
            model,
            result.weights,
            base_name=recipe.base_name,
            dtype=recipe.weights_dtype,
        )
        verify_read_back(training, result, read_encoder_state)
        # Golden logits are the float32 model's, not an ONNX file's: a worker compares whichever
        # file it loads with them.
        golden = make_golden(inputs.spec, inputs.tokenizer.encoders)
        logits = HeadScorer(model).logits([prompt.ids for prompt in golden])
        files = _make_onnx_files(training, result, golden, logits)
        measured = [
            onnx_figures(file.path, file.precision, file.worst, file.result, than=result)
            for file in files
        ]
        head = make_head(
            inputs.classes,
            logits,
            pooling=model.classifier.pooling,
            normalize=model.classifier.unit,
            out_of_scope="energy",
            vocabulary=int(model.classifier.backbone.get_input_embeddings().weight.shape[0]),
            pad_id=model.pad_id,
            weights=weights,
            onnx=tuple(file.model for file in files),
        )
        parts = Parts(
            files=digests(draft),
            golden=golden,
            lora=model.lora,
            head=head,
            agreed=all_agree([result, *(file.result for file in files)]),
            metrics={"onnx": [figures.to_json() for figures in measured]},
            versions=onnx_versions() if recipe.onnx else {},
            data=training.taught,
        )
        served = files[0].result if files else result
        name, base = training.name, training.base
        made = write_rest(recipe, inputs, served, parts, name=name, base=base, outcome=outcome)
        return made, served


def _load(
    recipe: Recipe, compute: Compute, console: Console
) -> tuple[Inputs, MemoryPlan, EncoderModel]:
    inputs = read_head_inputs(recipe)
    verify_head_rows(inputs, console)
    plan = plan_encoder_memory(
        read_shape(recipe.base, recipe.lora_target_modules),
        recipe,
        compute.device,
        longest_tokens=inputs.longest_prompt,
        classes=len(inputs.classes),
        bf16=planned_bf16(recipe, compute),
    )
    torch.manual_seed(recipe.seed)
    frozen = recipe.kind == "embedding-linear"
    lora = None
    if not frozen and recipe.tuning == "lora":
        lora = Lora(recipe.lora_rank, recipe.lora_alpha, recipe.lora_target_modules)
    model = load_encoder(
        recipe.base,
        EncoderShape(
            classes=len(inputs.classes),
            pooling=find_pooling(recipe.base, recipe.pooling),
            unit=frozen,
            lora=lora,
        ),
        device=str(compute.device),
        dropout=recipe.lora_dropout,
        frozen=frozen,
        gradient_checkpointing=plan.gradient_checkpointing,
    )
    return inputs, plan, model


def _training(
    recipe: Recipe,
    compute: Compute,
    inputs: Inputs,
    plan: MemoryPlan,
    validator: Validator,
    loop: TrainLoop | LinearFit,
    *,
    model: EncoderModel,
) -> Training:
    return Training(
        recipe=recipe,
        compute=compute,
        inputs=inputs,
        base=describe_base(recipe.base, recipe.base_name, recipe.base_revision),
        total_weights=model.total_weights(),
        plan=plan,
        model=model,
        validator=validator,
        loop=loop,
    )


class LinearFit:
    """A fit of the head for each penalty, of which the best on validation is kept.

    With folds the penalty is judged on every row, by heads that did not learn it, and a head that
    learns all rows with the best penalty is kept (``sklearn.calibration.CalibratedClassifierCV``
    with ``ensemble=False`` does the same).

    It counts as one epoch and has no checkpoints: after a kill it starts again.
    """

    stopped_early = False

    def __init__(self, model: EncoderModel, inputs: Inputs, validator: Validator) -> None:
        self._model = model
        self._inputs = inputs
        self._validator = validator
        self._rows = inputs.epoch(1)
        self._c = 0.0
        self.state = TrainState()

    @property
    def best(self) -> int:
        """The number of the only epoch."""
        return 1

    @property
    def kept(self) -> str:
        """The penalty that is kept."""
        return f"C = {self._c:g}"

    def restore(self, state: TrainState, state_dicts: Mapping[str, Any]) -> None:
        """Restore a finished fit."""
        self._c = float(state_dicts["c"])
        if (held_out := state_dicts["held_out"]) is not None:
            self._validator.held_out = held_out.numpy()
        self._model.load_state_dict(state.best)
        self.state = state
        self.state.resumed += 1

    def run(
        self,
        validate: Callable[[], Validation],
        say: Callable[[str], None],
        *,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        """Embed every row once, fit each penalty, keep the best. Raises BadInput if the loss is not
        a number."""
        del save_every_s, on_step  # there are no steps
        if self.state.epochs:
            return
        began = time.perf_counter()
        train_loss = self._fit(self._embed(self._rows))
        validation = validate()
        if not math.isfinite(validation.loss):
            raise BadInput("the loss is not a number: is this an encoder of sentences?")
        self._finish(train_loss, validation, time.perf_counter() - began)
        say(f"{self.kept}  validation: accuracy {validation.accuracy:.1%}")
        held_out = self._validator.held_out
        tensor = None if held_out is None else torch.from_numpy(held_out)
        save(self.state, {"c": self._c, "held_out": tensor})

    def _fit(self, x: Floats) -> float:
        """Fit the head to the training rows' vectors with each penalty, keep the most accurate, and
        return its training loss in nats per row."""
        inputs, truth = self._inputs, self._validator.truth
        classes = _class_indexes(self._rows, inputs.classes)
        label_of = label_indexes(inputs.classes, inputs.labels)

        def accuracy(scores: Floats) -> float:
            # Behind the messages themselves are those with an instruction in them.
            predicted = temperature_softmax(scores[: len(truth)], 1.0, label_of).argmax(axis=1)
            return float((predicted == truth).mean())

        if inputs.folds is None:
            x_validation = self._embed(inputs.validation)
            fits = list(
                fit_grid(x, classes, lambda model: accuracy(self._logits(model, x_validation)))
            )
            # fits come in the order of rising C, so of equally accurate ones the strongest penalty
            # wins.
            best = max(fits, key=lambda fit: fit.accuracy)
            model = best.model
        else:
            # A copy is in the fold of its original.
            folds = inputs.folds[[row.place for row in self._rows]]
            fits = list(fit_by_folds(x, classes, folds, len(inputs.classes), accuracy))
            best = max(fits, key=lambda fit: fit.accuracy)
            self._validator.held_out = best.model[: len(truth)]
            model = fit_linear(x, classes, best.c)
        self._c, self.state.step = best.c, len(fits)
        self._set_head(model)
        learnt = np.array([inputs.labels.index(row.label) for row in self._rows], dtype=np.int64)
        return nll(temperature_softmax(self._logits(model, x), 1.0, label_of), learnt)

    def _logits(self, model: Any, features: Floats) -> Floats:
        weights, biases = linear_layer(model, len(self._inputs.classes))
        logits: Floats = features @ weights.T + biases
        return logits

    def _finish(self, train_loss: float, validation: Validation, seconds: float) -> None:
        state, rows = self.state, self._rows
        state.rows, state.seconds = len(rows), seconds
        state.epochs.append(
            Epoch(
                number=1,
                train_loss=train_loss,
                sublabel_loss=None,
                validation_loss=validation.loss,
                validation_calibrated_loss=validation.calibrated_loss,
                validation_accuracy=validation.accuracy,
                validation_macro_f1=validation.macro_f1,
                seconds=seconds,
                examples_per_s=len(rows) / seconds,
                tokens_per_s=sum(len(row.prompt) for row in rows) / seconds,
            )
        )
        state.best = {name: weights.cpu() for name, weights in self._model.state_dict().items()}

    def _embed(self, rows: Sequence[Row]) -> Floats:
        model = self._model
        vectors: Floats = np.empty((len(rows), model.classifier.head.in_features))
        with torch.inference_mode(), progress("embedding", len(rows)) as advance:
            for chosen in token_batches([len(row.prompt) for row in rows]):
                batch = collate_rows([rows[at].prompt for at in chosen], model.pad_id, model.device)
                vectors[chosen] = model.classifier.pool(*batch).double().cpu().numpy()
                advance(len(chosen))
        # C_GRID is made for vectors of this length. Workers use unit vectors, so _set_head moves
        # the length into the weights.
        return vectors * EMBEDDING_LENGTH

    def _set_head(self, model: Any) -> None:
        weights, biases = linear_layer(model, len(self._inputs.classes))
        head = self._model.classifier.head
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weights * EMBEDDING_LENGTH))
            head.bias.copy_(torch.from_numpy(biases))


def _class_indexes(rows: Sequence[Row], classes: Sequence[Class]) -> list[int]:
    """Return each row's class. A row without a finer label takes the first one of its label:
    serving uses the sum over a label's finer ones, which hardly differs."""
    index = {(each.label, each.sublabel): at for at, each in enumerate(classes)}
    first = {each.label: at for at, each in reversed(list(enumerate(classes)))}
    return [index.get((row.label, row.sublabel), first[row.label]) for row in rows]


@dataclass(frozen=True, slots=True)
class _OnnxFile:
    """An ONNX file, its worst golden logit's difference, and the result on its scores."""

    path: Path
    precision: OnnxPrecision
    worst: float
    result: Result

    @property
    def model(self) -> OnnxModel:
        return describe_file(self.path, self.precision, self.worst)


def describe_file(path: Path, precision: OnnxPrecision, worst: float) -> OnnxModel:
    """Return the manifest's record of an ONNX file; ``worst`` is the largest difference of its
    golden logits that was measured here."""
    tolerance = round(max(_TOLERANCES[precision], _ROOM * worst), 4)
    return OnnxModel(path.name, precision, tolerance)


def _make_onnx_files(
    training: Training,
    result: Result,
    golden: Sequence[GoldenPrompt],
    golden_logits: Floats,
) -> list[_OnnxFile]:
    """Write the recipe's ONNX files into the run's draft and measure each on the golden prompts and
    on validation. Return them in the order in which workers prefer them. Raises ProofFailed,
    BadInput."""
    recipe, model = training.recipe, training.model
    assert isinstance(model, EncoderModel)
    if not recipe.onnx:
        return []
    export_onnx(model, recipe.run / DRAFT, recipe.onnx)
    files = {
        precision: _measure(training, result, precision, golden, golden_logits)
        for precision in recipe.onnx
    }
    truth = training.validator.truth
    order = prefer({name: file.result.chosen == truth for name, file in files.items()})
    return [files[precision] for precision in order]


def prefer(right: dict[OnnxPrecision, Bools]) -> tuple[OnnxPrecision, ...]:
    """Return the precisions in the order of preference on a CPU. ``right``, (validation messages),
    says which messages each precision labels correctly.

    8-bit weights are twice as fast and are preferred if they are as accurate within noise: the
    messages that only they get wrong exceed those that only they get right by at most one standard
    error, the square root of both counts together (the one-standard-error rule of Breiman et al.
    1984, Classification and Regression Trees, 3.4.3).
    """
    if not {"fp32", "int8"} <= set(right):
        return tuple(right)
    lost = int((right["fp32"] & ~right["int8"]).sum())
    won = int((right["int8"] & ~right["fp32"]).sum())
    return ("int8", "fp32") if lost - won <= math.sqrt(lost + won) else ("fp32", "int8")


def _measure(
    training: Training,
    result: Result,
    precision: OnnxPrecision,
    golden: Sequence[GoldenPrompt],
    golden_logits: Floats,
) -> _OnnxFile:
    model = training.model
    assert isinstance(model, EncoderModel)
    path = training.recipe.run / DRAFT / FILES[precision]
    score = partial(onnx_logits, path, classes=model.classes, pad_id=model.pad_id)
    alone = score([prompt.ids for prompt in golden])
    worst = float(np.abs(alone - golden_logits).max())
    if precision == "fp32" and not worst <= MOST_OFF * max(1.0, float(np.abs(alone).max())):
        raise ProofFailed(
            f"{path}: a logit of the ONNX file differs by {worst:.3g}: this encoder cannot be "
            "exported; set onnx to [] to train without ONNX files"
        )
    served = score([row.prompt for row in training.inputs.validation])
    return _OnnxFile(path, precision, worst, calibrate_as_served(training, result, served))


def make_head(classes: Sequence[Class], golden_logits: Floats, **more: Any) -> Head:
    """Return the manifest's record of a head; ``golden_logits``, (golden prompts, classes), are
    those of the model itself, with which a worker compares whichever file it loads."""
    golden = enumerate(golden_logits)
    return Head(
        outputs=tuple(HeadOutput(each.name, each.label) for each in classes),
        golden_logits=tuple(GoldenLogits(at, tuple(map(float, row))) for at, row in golden),
        **more,
    )


def all_agree(results: Sequence[Result]) -> Bools:
    """Return which validation messages get one label from all results, (messages,)."""
    found: Bools = np.all([each.chosen == results[0].chosen for each in results], axis=0)
    return found


def onnx_figures(
    path: Path, precision: OnnxPrecision, worst: float, result: Result, *, than: Result
) -> OnnxFigures:
    """Describe a file by the result on its scores; ``worst`` is the largest difference of a golden
    logit. Labels and confidences are compared with those of another result."""
    theirs, ours = result.probabilities, than.probabilities
    return OnnxFigures(
        file=path.name,
        precision=precision,
        bytes=path.stat().st_size,
        accuracy=float((result.chosen == result.truth).mean()),
        labels_differ=int((result.chosen != than.chosen).sum()),
        max_confidence_difference=float(np.abs(theirs - ours).max()),
        max_golden_difference=worst,
        temperature=result.calibrated.calibration.temperature,
        ece=result.calibrated.calibration.ece,
    )
