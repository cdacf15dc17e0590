"""The recipe: the settings of a training, from file, environment and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trainer.artifacts.training import TRAINING
from trainer.dataset.folder import MANIFEST, read_manifest
from trainer.errors import BadInput
from trainer.model.bases import AUTO, Wanted, base_to_train, describe_source
from trainer.tracking.session import TrackerName
from worker.common.settings import ProgramSettings, SettingsLoader, read_toml, split_assignment

RecipeKind = Literal["lora-code", "encoder", "embedding-linear"]
"""The kind of model: LoRA layers on an instruct model that answers with a label's code; a small
encoder with a linear head; logistic regression over frozen sentence embeddings."""


class _Only:
    """Marks a setting that exists only for some kinds of model."""

    def __init__(self, *kinds: RecipeKind) -> None:
        self.kinds = kinds


_CODES = _Only("lora-code")
_ENCODER = _Only("encoder")
_HEADS = _Only("encoder", "embedding-linear")
_GRADIENTS = _Only("lora-code", "encoder")

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]

_LOCAL = {"base", "dataset", "run"}


def _split_names(given: object) -> object:
    """Accept a list written as ``a,b``, which the loader takes for a list of one."""
    if not isinstance(given, list):
        return given
    words = [word.strip() for each in given for word in str(each).split(",")]
    return [word for word in words if word]


Names = Annotated[tuple[str, ...], BeforeValidator(_split_names)]
OnnxFiles = Annotated[tuple[Literal["fp32", "int8"], ...], BeforeValidator(_split_names)]

_SUBLABEL_SHARE = 0.5
"""The finer labels' share of a head's loss with ``sublabel_weight = "auto"``."""


class Recipe(ProgramSettings):
    """Settings of one training. Flags win over ``CLERK_TRAINER_*`` variables, those over the file.

    ``config/trainer-cpu.toml`` explains each setting, ``config/trainer-encoder.toml`` those of
    encoders. Names are those of transformers and PEFT, if they have one. Relative paths
    start at the working directory. A setting of another ``kind`` of model is refused.
    ``load_recipe`` finds the base if that is "auto", and its name and revision if they are empty.
    """

    kind: RecipeKind = "lora-code"
    base: Path = Path(AUTO)
    base_name: str = ""
    base_revision: str = ""
    dataset: Path
    run: Path

    instruction: Annotated[str, _CODES] = ""
    list_labels: Annotated[bool, _CODES] = True
    descriptions: Annotated[bool, _CODES] = False
    prefix_block: Annotated[int, Field(ge=0), _CODES] = 0
    max_message_tokens: Annotated[int, Field(ge=16)] = 512

    tuning: Annotated[Literal["whole", "lora"], _ENCODER] = "whole"
    pooling: Annotated[Literal["auto", "mean", "cls"], _HEADS] = "auto"
    message_prefix: Annotated[str, _HEADS] = AUTO
    onnx: Annotated[OnnxFiles, _HEADS] = ("fp32", "int8")

    lora_rank: Annotated[Count, _GRADIENTS] = 16
    lora_alpha: Annotated[Positive, _GRADIENTS] = 32
    lora_dropout: Annotated[Fraction, _GRADIENTS] = 0.05
    lora_target_modules: Annotated[Names, _GRADIENTS] = ()
    adapter_dtype: Annotated[Literal["bfloat16", "float32"], _GRADIENTS] = "bfloat16"

    device: str = "auto"
    base_dtype: Annotated[Literal["bfloat16", "float32"], _CODES] = "float32"
    load_in_4bit: Annotated[bool, _CODES] = False
    serve_in_4bit: Annotated[bool, _CODES] = False
    mixed_precision: Annotated[Literal["auto", "bf16", "no"], _GRADIENTS] = "auto"
    attn_implementation: Annotated[Literal["auto", "sdpa", "eager", "flex_attention"], _CODES] = (
        "auto"
    )
    threads: Annotated[int, Field(ge=0)] = 0
    prompt_layout: Annotated[Literal["auto", "packed", "cached", "whole"], _CODES] = "auto"
    gradient_checkpointing: Annotated[bool | Literal["auto"], _GRADIENTS] = "auto"
    memory_check: bool = True

    seed: int = 1
    per_label: Annotated[int, Field(ge=0)] = 0
    steering_augmentation: Fraction = 0.4
    epochs: Annotated[Count, _GRADIENTS] = 4
    early_stopping_patience: Annotated[Count, _GRADIENTS] = 2
    metric_for_best_model: Annotated[Literal["loss", "macro_f1"], _GRADIENTS] = "loss"
    batch_size: Annotated[Count, _GRADIENTS] = 16
    micro_batch_size: Annotated[int, Field(ge=0), _GRADIENTS] = 0
    learning_rate: Annotated[Positive, _GRADIENTS] = 1e-3
    head_learning_rate: Annotated[Positive, _ENCODER] = 2e-3
    weight_decay: Annotated[float, Field(ge=0), _GRADIENTS] = 0.0
    warmup_ratio: Annotated[Fraction, _GRADIENTS] = 0.06
    label_smoothing: Annotated[Fraction, _GRADIENTS] = 0.0
    distillation_weight: Annotated[Fraction, _GRADIENTS] = 0.0
    teacher_bases: Annotated[Names, _GRADIENTS] = ()
    sublabel_weight: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    checkpoint_every_s: Annotated[Positive, _GRADIENTS] = 120.0
    tracking: TrackerName = "none"
    tracking_project: Name = "filing-clerk"

    review_precision: Share = 0.95
    review_precision_by: Literal["lower", "point"] = "lower"
    review_floor: Fraction = 0.5
    probes_per_label: Annotated[int, Field(ge=0)] = 5

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        # Only settings that were given: defaults exist for settings of every kind.
        strange = sorted(name for name in self.model_fields_set if not concerns(name, self.kind))
        if strange:
            raise ValueError(
                f"{', '.join(strange)}: not a setting of kind {self.kind!r}: leave it out"
            )
        if concerns("instruction", self.kind) and not self.instruction:
            raise ValueError(f"instruction: kind {self.kind!r} needs one")
        if self.teacher_bases and not self.distillation_weight:
            raise ValueError("teacher_bases: set distillation_weight too, such as 0.7")
        self._check_sublabel_weight()
        if self.prompt_layout == "cached" and self.gradient_checkpointing is True:
            raise ValueError(
                "gradient_checkpointing: not with prompt_layout = 'cached', because a cache cannot "
                "be computed twice: leave prompt_layout out, or set it to 'whole'"
            )
        return self

    def _check_sublabel_weight(self) -> None:
        weight, is_share = self.sublabel_weight, concerns("head_learning_rate", self.kind)
        if is_share and weight != "auto" and not 0 <= weight < 1:
            raise ValueError(
                f"sublabel_weight: with kind {self.kind!r} it is the finer labels' share of the "
                "loss: at least 0 and below 1"
            )
        if weight == "auto" and not is_share:
            raise ValueError(f"sublabel_weight: kind {self.kind!r} takes a number, 0 for none")

    def sublabel_share(self, sublabels: Sequence[str]) -> float:
        """Return ``sublabel_weight`` as a number: "auto" is a half if there are finer labels.
        Raises BadInput if a weight is set and there are none."""
        if self.sublabel_weight == "auto":
            return _SUBLABEL_SHARE if sublabels else 0.0
        if self.sublabel_weight and len(sublabels) < 2:
            raise BadInput(
                "sublabel_weight is set, but the dataset has no finer labels: prepare it with "
                "--sublabel-column, or set sublabel_weight=0"
            )
        return self.sublabel_weight

    @property
    def has_head(self) -> bool:
        """Whether a linear head answers, instead of the base's vocabulary."""
        return self.kind in _HEADS.kinds

    @property
    def weights_dtype(self) -> str:
        """The precision of the stored weights."""
        return "float32" if self.kind == "embedding-linear" else self.adapter_dtype

    def to_record(self) -> dict[str, Any]:
        """Return the settings for a manifest, as plain JSON: without this machine's folders and
        settings of other kinds of model."""
        foreign = {name for name in type(self).model_fields if not concerns(name, self.kind)}
        record = self.model_dump(mode="json", exclude=_LOCAL | foreign)
        if "teacher_bases" in record:  # by their names
            bases = [Path(given).name.partition("@")[0] for given in self.teacher_bases]
            record["teacher_bases"] = bases
        return record


def concerns(setting: str, kind: RecipeKind) -> bool:
    """Whether a setting exists for a kind of model."""
    marks = [mark for mark in Recipe.model_fields[setting].metadata if isinstance(mark, _Only)]
    return all(kind in mark.kinds for mark in marks)


_LOADER = SettingsLoader(Recipe, BadInput, prefix="CLERK_TRAINER_")


def load_recipe(path: Path, flags: Mapping[str, Any]) -> Recipe:
    """Return the recipe in a file; ``flags`` win over it. Raises BadInput as ``read_recipe``, and
    if the base is "auto" and not on this machine."""
    return with_base(_LOADER.combine(read_recipe(path), path, flags).settings)


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the settings in a recipe file, or those recorded in a ``training.json``. Raises
    BadInput, also for the record of an import."""
    if path.name != TRAINING.name:
        return read_toml(path, BadInput)
    record = TRAINING.read(path.parent)
    if record.imported is not None:
        raise BadInput(
            f"{path}: records an import, and how that model was trained is unknown: give a recipe "
            "such as config/trainer-encoder.toml to train one, or import it again with "
            f"clerk-trainer import {record.imported.source}"
        )
    settings = dict(record.recipe)
    # A recorded recipe names no folders. "auto" could find another copy of the base than the run's
    # own.
    if record.base.directory and Path(record.base.directory).is_dir():
        settings["base"] = record.base.directory
    return settings


def make_recipe(settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe that has no file and whose base is given. Raises BadInput."""
    return _LOADER.combine({}, None, settings).settings


def with_base(recipe: Recipe) -> Recipe:
    """Return the recipe with its base's directory, name and revision. Raises BadInput."""
    wanted = None
    if (recipe.dataset / MANIFEST).is_file():  # else the training says that it is missing
        record = read_manifest(recipe.dataset)
        train = record["files"]["train.jsonl"]["examples"]
        wanted = Wanted(train, record.get("languages", {}))
    base = base_to_train(recipe.base, recipe.kind, recipe.base_name, wanted)
    name, revision = describe_source(base)
    return recipe.model_copy(
        update={
            "base": base,
            "base_name": recipe.base_name or name,
            "base_revision": recipe.base_revision or revision,
        }
    )


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Turn ``["lora_rank=8", ...]`` into a mapping. Raises BadInput."""
    pairs: dict[str, str] = {}
    for assignment in assignments:
        key, value = split_assignment(assignment, "--set", error=BadInput)
        pairs[key] = value.strip()
    return pairs
