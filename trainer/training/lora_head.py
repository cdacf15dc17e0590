"""The kind ``lora-head``: LoRA layers on an instruct model and a linear head on its last state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from trainer.model.device import ProcessGroup
from trainer.model.forward import Layout
from trainer.model.head_rows import HeadRow
from trainer.model.head_scoring import HeadScorer, label_indexes
from trainer.model.lora_head import LoraHeadModel, add_head
from trainer.model.lora_model import WEIGHTS, LoraModel
from trainer.training.adapter import Parts, write_lora, write_rest
from trainer.training.head import HeadShape, make_head
from trainer.training.head_inputs import read_head_inputs, verify_head_rows
from trainer.training.head_objective import HeadObjective
from trainer.training.inputs import Inputs
from trainer.training.layout import layout_of, served_layout
from trainer.training.loop import make_loop
from trainer.training.lora_code import load_trainable, reload_as_served
from trainer.training.memory import plan_memory
from trainer.training.parts import Training
from trainer.training.precision import planned_bf16
from trainer.training.recipe import Recipe
from trainer.training.result import Result
from trainer.training.shape import read_shape
from trainer.training.teacher import ask_teacher
from trainer.training.validation import Validator
from worker.contract import Manifest, describe_base, make_golden

HeadInputs = Inputs[HeadRow]


class LoraHead:
    """How a LoRA adapter with a classification head is trained."""

    def prepare(self, recipe: Recipe, group: ProcessGroup, console: Console) -> Training:
        """Read the inputs, check every row, the memory and the forward pass, and load the
        model."""
        inputs = read_head_inputs(recipe)
        verify_head_rows(inputs, console)
        teacher = ask_teacher(recipe, inputs, group, console)
        shape = read_shape(recipe.base, recipe.lora_target_modules)
        plan = plan_memory(
            replace(shape, vocabulary=len(inputs.classes)),  # what has logits: the head's classes
            recipe,
            group.device,
            prefix_tokens=len(inputs.spec.prefix_ids),
            longest_tokens=inputs.longest_prompt,
            bf16=planned_bf16(recipe, group),
        )
        torch.manual_seed(recipe.seed)
        base = describe_base(recipe.base, recipe.base_name, recipe.base_revision)
        layout = layout_of(recipe, on_gpu=group.device.type == "cuda")
        model = _put_head(load_trainable(recipe, group, plan), layout, inputs)
        validator = _make_validator(group, inputs, model)
        objective = HeadObjective(
            model,
            inputs.classes,
            inputs.labels,
            label_smoothing=recipe.label_smoothing,
            sublabel_weight=recipe.sublabel_share(inputs.sublabels),
            teacher=teacher,
        )
        loop = make_loop(model, inputs.train, objective, recipe, group)
        return Training(
            recipe, group, inputs, base, shape.weights, plan, model, validator, loop, teacher
        )

    def as_served(self, training: Training) -> Training:
        """Return the training with the base that the adapter will be served on, where it learnt on
        another."""
        recipe, group, inputs, model = _of(training)
        if recipe.serve_in_4bit == recipe.load_in_4bit:
            return training
        body = reload_as_served(recipe, group, model.body)
        served = _put_head(body, served_layout(recipe), inputs)
        validator = _make_validator(group, inputs, served)
        return replace(training, model=served, validator=validator)

    def write(
        self, training: Training, result: Result, *, created_at: str, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write weights, PEFT's config and the manifest."""
        recipe, _, inputs, model = _of(training)
        files = write_lora(training, result, model.adapter_config(recipe.base_name))
        golden = make_golden(inputs.spec, inputs.tokenizer.encoders)
        logits = HeadScorer(model).logits([prompt.ids for prompt in golden])
        config = model.body.causal_lm.config
        shape = HeadShape(
            pooling="last",
            normalize=False,
            vocabulary=int(model.body.causal_lm.get_input_embeddings().weight.shape[0]),
            pad_id=int(config.pad_token_id or 0),
        )
        parts = Parts(
            files=files,
            golden=golden,
            lora=model.lora,
            head=make_head(inputs.classes, shape, (WEIGHTS,), logits),
        )
        made = write_rest(training, result, parts, created_at=created_at, outcome=outcome)
        return made, result


def _of(training: Training) -> tuple[Recipe, ProcessGroup, HeadInputs, LoraHeadModel]:
    assert isinstance(training.model, LoraHeadModel)
    return training.recipe, training.group, training.inputs, training.model


def _put_head(body: LoraModel, layout: Layout, inputs: HeadInputs) -> LoraHeadModel:
    """Put a head on LoRA layers; the forward pass is proven on a few rows. Raises ProofFailed."""
    model = add_head(body, len(inputs.classes), inputs.spec.prefix_ids, layout=layout)
    model.verify([row.prompt for row in inputs.validation])
    return model


def _make_validator(group: ProcessGroup, inputs: HeadInputs, model: LoraHeadModel) -> Validator:
    label_of = label_indexes(inputs.classes, inputs.labels)
    return Validator(HeadScorer(model), inputs.validation, inputs.labels, group, label_of)
