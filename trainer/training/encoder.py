"""The kinds ``encoder`` and ``embedding-linear``: a small encoder with a linear head, fine-tuned,
or frozen under logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from trainer.model.device import ProcessGroup
from trainer.model.encoder import EncoderModel, EncoderShape, find_pooling, load_encoder
from trainer.model.head_rows import HeadRow
from trainer.model.head_scoring import HeadScorer, label_indexes
from trainer.training.encoder_adapter import write_encoder
from trainer.training.encoder_memory import plan_encoder_memory
from trainer.training.head_inputs import read_head_inputs, verify_head_rows
from trainer.training.head_objective import HeadObjective
from trainer.training.inputs import Inputs
from trainer.training.linear_fit import LinearFit
from trainer.training.loop import TrainLoop, make_loop
from trainer.training.memory import MemoryPlan
from trainer.training.parts import Training
from trainer.training.precision import planned_bf16
from trainer.training.recipe import Recipe
from trainer.training.result import Result
from trainer.training.shape import read_shape
from trainer.training.teacher import ask_teacher
from trainer.training.validation import Validator
from worker.contract import Lora, Manifest, describe_base


class Encoder:
    """How an encoder is trained, whole or by LoRA, or logistic regression fitted over its frozen
    embeddings."""

    def prepare(self, recipe: Recipe, group: ProcessGroup, console: Console) -> Training:
        """Read the inputs, check every row and the memory, load the model, and try which
        arithmetic is faster, where there is some to learn by."""
        inputs, plan, model = _load(recipe, group, console)
        if recipe.kind == "embedding-linear":
            group.bf16 = False
            return _training(recipe, group, inputs, plan, model, LinearFit(model, inputs))
        teacher = ask_teacher(recipe, inputs, group, console)
        objective = HeadObjective(
            model,
            inputs.classes,
            inputs.labels,
            label_smoothing=recipe.label_smoothing,
            sublabel_weight=recipe.sublabel_share(inputs.sublabels),
            teacher=teacher,
        )
        loop = make_loop(model, inputs.train, objective, recipe, group)
        return replace(_training(recipe, group, inputs, plan, model, loop), teacher=teacher)

    def as_served(self, training: Training) -> Training:
        """Return the training as it is: it learns in float32, which is what is served."""
        return training

    def write(
        self, training: Training, result: Result, *, created_at: str, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write weights, tokenizer, ONNX files and the manifest."""
        return write_encoder(training, result, created_at=created_at, outcome=outcome)


def _load(
    recipe: Recipe, group: ProcessGroup, console: Console
) -> tuple[Inputs[HeadRow], MemoryPlan, EncoderModel]:
    inputs = read_head_inputs(recipe)
    verify_head_rows(inputs, console)
    plan = plan_encoder_memory(
        read_shape(recipe.base, recipe.lora_target_modules),
        recipe,
        group.device,
        longest_tokens=inputs.longest_prompt,
        classes=len(inputs.classes),
        bf16=planned_bf16(recipe, group),
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
        device=str(group.device),
        dropout=recipe.lora_dropout,
        frozen=frozen,
        gradient_checkpointing=plan.gradient_checkpointing,
    )
    return inputs, plan, model


def _training(
    recipe: Recipe,
    group: ProcessGroup,
    inputs: Inputs[HeadRow],
    plan: MemoryPlan,
    model: EncoderModel,
    loop: TrainLoop | LinearFit,
) -> Training:
    label_of = label_indexes(inputs.classes, inputs.labels)
    return Training(
        recipe=recipe,
        group=group,
        inputs=inputs,
        base=describe_base(recipe.base, recipe.base_name, recipe.base_revision),
        total_weights=model.total_weights(),
        plan=plan,
        model=model,
        validator=Validator(HeadScorer(model), inputs.validation, inputs.labels, group, label_of),
        loop=loop,
    )
