"""The kind ``lora-code``: LoRA layers on an instruct model that answers with a label's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from trainer.model.device import Compute
from trainer.model.forward import Layout
from trainer.model.lora_model import LoraModel, load_as_served, load_lora_model
from trainer.model.scoring import Scorer
from trainer.training.adapter import Parts, write_lora, write_rest
from trainer.training.arithmetic import attention_of, layout_of, planned_bf16, served_layout
from trainer.training.inputs import Inputs, read_code_inputs, verify_rows
from trainer.training.learner import Validator
from trainer.training.loop import make_loop
from trainer.training.memory import MemoryPlan, plan_memory, read_shape
from trainer.training.objective import CodeObjective
from trainer.training.parts import Result, Training
from trainer.training.recipe import Recipe
from trainer.training.teacher import ask_teacher
from worker.contract import Manifest, describe_base, make_golden


class LoraCode:
    """Train an adapter that answers with codes."""

    def prepare(self, recipe: Recipe, compute: Compute, console: Console) -> Training:
        """See ``Kind``."""
        inputs = read_code_inputs(recipe)
        verify_rows(inputs, console)
        teacher = ask_teacher(recipe, inputs, compute.device, console)
        shape = read_shape(recipe.base, recipe.lora_target_modules)
        plan = plan_memory(
            shape,
            recipe,
            compute.device,
            prefix_tokens=len(inputs.spec.prefix_ids),
            longest_tokens=inputs.longest_prompt,
            bf16=planned_bf16(recipe, compute),
        )
        torch.manual_seed(recipe.seed)
        base = describe_base(recipe.base, recipe.base_name, recipe.base_revision)
        model = _load(recipe, compute, plan)
        layout = layout_of(recipe, on_gpu=compute.device.type == "cuda")
        validator = _make_validator(layout, compute, inputs, model)
        objective = CodeObjective(
            model,
            torch.tensor(inputs.spec.prefix_ids, device=model.device),
            inputs.label_ids,
            inputs.sublabels,
            layout=layout,
            label_smoothing=recipe.label_smoothing,
            sublabel_weight=recipe.sublabel_share(inputs.sublabels),
            teacher=teacher,
        )
        loop = make_loop(model, inputs, objective, recipe, compute)
        return Training(
            recipe, compute, inputs, base, shape.weights, plan, model, validator, loop, teacher
        )

    def as_served(self, training: Training) -> Training:
        """Return the training with the base in the precision in which workers hold it."""
        recipe, compute, inputs, model = _of(training)
        if recipe.serve_in_4bit == recipe.load_in_4bit:
            return training
        # Rounding to 4 bits shifts every score, and the temperature is fitted on scores.
        model.release()  # both bases at once may not fit
        served = load_as_served(
            recipe.base,
            model.lora,
            device=str(compute.device),
            in_4bit=recipe.serve_in_4bit,
            dropout=recipe.lora_dropout,
        )
        validator = _make_validator(served_layout(recipe), compute, inputs, served)
        return replace(training, model=served, validator=validator)

    def write(
        self, training: Training, result: Result, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write weights, PEFT's config and the manifest."""
        recipe, _, inputs, model = _of(training)
        parts = Parts(
            files=write_lora(training, result, model.adapter_config(recipe.base_name)),
            golden=make_golden(inputs.spec, inputs.tokenizer.encoders),
            lora=model.lora,
            codes=inputs.codes,
            data=training.taught,
        )
        name, base = training.name, training.base
        made = write_rest(recipe, inputs, result, parts, name=name, base=base, outcome=outcome)
        return made, result


def _of(training: Training) -> tuple[Recipe, Compute, Inputs, LoraModel]:
    assert isinstance(training.model, LoraModel)
    return training.recipe, training.compute, training.inputs, training.model


def _load(recipe: Recipe, compute: Compute, plan: MemoryPlan) -> LoraModel:
    return load_lora_model(
        recipe.base,
        rank=recipe.lora_rank,
        alpha=recipe.lora_alpha,
        dropout=recipe.lora_dropout,
        base_dtype=recipe.base_dtype,
        load_in_4bit=recipe.load_in_4bit,
        target_modules=recipe.lora_target_modules,
        attn_implementation=attention_of(recipe, on_gpu=compute.device.type == "cuda"),
        device=str(compute.device),
        gradient_checkpointing=plan.gradient_checkpointing,
    )


def _make_validator(
    layout: Layout, compute: Compute, inputs: Inputs, model: LoraModel
) -> Validator:
    scorer = Scorer(model, inputs.spec.prefix_ids, inputs.codes, layout)
    scorer.verify([row.prompt for row in inputs.validation])
    return Validator(scorer, inputs.validation, inputs.labels, compute)
