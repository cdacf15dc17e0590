"""Logistic regression over frozen sentence embeddings, fitted in the training loop's place."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from trainer.artifacts.training import Epoch, Step
from trainer.errors import BadInput
from trainer.model.encoder import EncoderModel, collate_rows
from trainer.model.head_rows import HeadRow
from trainer.model.head_scoring import Class, label_indexes
from trainer.model.logistic import EMBEDDING_LENGTH, fit_grid, linear_layer
from trainer.model.scoring import token_batches
from trainer.statistics.calibration import Floats, nll, temperature_softmax
from trainer.training.console import Progress
from trainer.training.inputs import Inputs
from trainer.training.learner import Validation
from trainer.training.run_folder import Save, TrainState


class LinearFit:
    """A fit in progress: the head's weights for each penalty, and the one that validation likes
    best. It has one epoch, and is begun again where it was killed."""

    stopped_early = False

    def __init__(self, model: EncoderModel, inputs: Inputs[HeadRow]) -> None:
        self._model = model
        self._inputs = inputs
        self._c = 0.0
        self.state = TrainState()

    @property
    def best(self) -> int:
        """Number of the epoch that is kept: the only one."""
        return 1

    @property
    def kept(self) -> str:
        """Which penalty is kept."""
        return f"C = {self._c:g}"

    def restore(self, state: TrainState, state_dicts: Mapping[str, Any]) -> None:
        """Take a finished fit up again."""
        self._c = float(state_dicts["c"])
        self._model.load_state_dict(state.best)
        self.state = state
        self.state.resumed += 1

    def run(
        self,
        validate: Callable[[], Validation],
        progress: Progress,
        *,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        """Embed every row once, fit each penalty, keep the best. There are no steps to tell of and
        nothing to save in between. Raises BadInput when a row gives no number."""
        del save_every_s, on_step
        if self.state.epochs:
            return
        began = time.perf_counter()
        progress.start(1, 1, len(self._inputs.train))
        train_loss = self._fit(self._embed(self._inputs.train, progress))
        validation = validate()
        if not math.isfinite(validation.loss):
            raise BadInput("the loss is not a number: is this an encoder of sentences?")
        self._finish(train_loss, validation, time.perf_counter() - began)
        progress.finish(f"{self.kept}  validation: accuracy {validation.accuracy:.1%}")
        save(self.state, {"c": self._c})

    def _fit(self, x: Floats) -> float:
        """Fit the head to the training rows' vectors with each penalty, set it to the one that is
        right most often on validation, and return that one's loss, in nats a training row."""
        inputs = self._inputs
        x_validation = self._embed(inputs.validation)
        learnt, truth = (
            np.array([inputs.labels.index(row.label) for row in rows], dtype=np.int64)
            for rows in (inputs.train, inputs.validation)
        )
        label_of = label_indexes(inputs.classes, inputs.labels)

        def predict(model: Any, features: Floats) -> Floats:
            weights, biases = linear_layer(model, len(inputs.classes))
            return temperature_softmax(features @ weights.T + biases, 1.0, label_of)

        def measure(model: Any) -> float:
            return float((predict(model, x_validation).argmax(axis=1) == truth).mean())

        fits = list(fit_grid(x, _class_indexes(inputs.train, inputs.classes), measure))
        best = max(fits, key=lambda fit: fit.accuracy)  # of equals the first
        self._c, self.state.step = best.c, len(fits)
        self._set_head(best.model)
        return nll(predict(best.model, x), learnt)

    def _finish(self, train_loss: float, validation: Validation, seconds: float) -> None:
        state, rows = self.state, self._inputs.train
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
                tokens_per_s=sum(len(row.ids) for row in rows) / seconds,
            )
        )
        state.best = {name: weights.cpu() for name, weights in self._model.state_dict().items()}

    def _embed(self, rows: Sequence[HeadRow], progress: Progress | None = None) -> Floats:
        model, done, began = self._model, 0, time.perf_counter()
        vectors: Floats = np.empty((len(rows), model.classifier.head.in_features))
        with torch.inference_mode():
            for chosen in token_batches([len(row.ids) for row in rows]):
                batch = collate_rows([rows[at].ids for at in chosen], model.pad_id, model.device)
                vectors[chosen] = model.classifier.pool(*batch).double().cpu().numpy()
                done += len(chosen)
                if progress is not None:
                    progress.advance(done, 0.0, done / (time.perf_counter() - began))
        return vectors * EMBEDDING_LENGTH

    def _set_head(self, model: Any) -> None:
        weights, biases = linear_layer(model, len(self._inputs.classes))
        head = self._model.classifier.head
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(weights * EMBEDDING_LENGTH))
            head.bias.copy_(torch.from_numpy(biases))


def _class_indexes(rows: Sequence[HeadRow], classes: Sequence[Class]) -> list[int]:
    """Return each row's class. A row without the finer label that its label has in others takes
    the first of them: their sum, which is what is served, hardly differs."""
    index = {(each.label, each.sublabel): at for at, each in enumerate(classes)}
    first = {each.label: at for at, each in reversed(list(enumerate(classes)))}
    return [index.get((row.label, row.sublabel), first[row.label]) for row in rows]
