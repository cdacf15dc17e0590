"""The recipe: every setting of a training, frozen, from file, environment and flags."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from trainer.errors import BadInput
from worker.contract.assignments import split_assignment
from worker.contract.renamed import explain_renamed

Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]

RENAMED = {"canary_per_label": "probes_per_label"}
"""Settings that had another name before, old to new."""

_LOCAL = {"base", "dataset", "run"}
_ENVIRONMENT = "CLERK_TRAINER_"


def _split_names(given: object) -> object:
    """Let a list be written in one word, as flags and the environment have it: ``a,b``."""
    if not isinstance(given, str):
        return given
    words = given.strip().removeprefix("[").removesuffix("]").split(",")
    return [name for word in words if (name := word.strip().strip("\"'"))]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_names)]


class Recipe(BaseSettings):
    """Settings of one training. Flags win over ``CLERK_TRAINER_*`` variables, those over the file.

    ``config/trainer.toml`` says what each setting means. Relative paths start at the working
    directory.
    """

    model_config = SettingsConfigDict(
        env_prefix=_ENVIRONMENT, extra="forbid", frozen=True, validate_default=True
    )

    name: Name
    base: Path
    base_name: Name
    base_revision: Name
    dataset: Path
    run: Path

    instruction: Name
    list_labels: bool = True
    descriptions: bool = False
    prefix_block: Annotated[int, Field(ge=0)] = 0
    max_message_tokens: Annotated[int, Field(ge=16)] = 512

    rank: Count = 16
    alpha: Positive = 32
    dropout: Fraction = 0.05
    lora_layers: Names = ()
    adapter_dtype: Literal["bfloat16", "float32"] = "bfloat16"

    device: str = "auto"
    base_dtype: Literal["bfloat16", "float32"] = "float32"
    base_bits: Literal[4, 16] = 16
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    attention: Literal["sdpa", "eager"] = "sdpa"
    threads: Annotated[int, Field(ge=0)] = 0
    share_prefix: bool = True
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    memory_check: bool = True

    seed: int = 1
    per_label: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 4
    patience: Count = 2
    keep_by: Literal["loss", "macro_f1"] = "loss"
    batch_size: Count = 16
    micro_batch_size: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_share: Fraction = 0.06
    max_grad_norm: Positive = 1.0
    label_smoothing: Fraction = 0.0
    ema_decay: Fraction = 0.0
    sublabel_weight: Annotated[float, Field(ge=0)] = 0.0
    sublabel_learning_rate: Positive = 1e-2
    checkpoint_every_s: Positive = 120.0

    review_precision: Share = 0.95
    review_floor: Fraction = 0.5
    off_label_quantile: Share = 0.995
    probes_per_label: Annotated[int, Field(ge=0)] = 5

    def to_record(self) -> dict[str, Any]:
        """Return the settings for a manifest: plain JSON without this machine's folders."""
        return self.model_dump(mode="json", exclude=_LOCAL)


def load_recipe(path: Path, flags: Mapping[str, Any]) -> Recipe:
    """Read a recipe file; ``flags`` win over it. Raises BadInput in one line."""
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: cannot read the recipe: {error}") from error

    class FromFile(Recipe):
        """The same settings, with this file as their last source."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

    _refuse_renamed_variables()
    try:
        return FromFile(**flags)
    except ValidationError as error:
        problems = "; ".join(
            f"{_place(path, flags, problem['loc'])}: {_what(problem['loc'], problem['msg'])}"
            for problem in error.errors()
        )
        raise BadInput(problems) from error


def _what(location: tuple[int | str, ...], message: str) -> str:
    """Name the new setting where an old name was given, else say what pydantic says."""
    return explain_renamed(".".join(map(str, location)), RENAMED) or message


def _refuse_renamed_variables() -> None:
    """Raise BadInput for a variable of an old name, which would go unread."""
    for variable in os.environ:
        name = variable.lower().removeprefix(_ENVIRONMENT.lower())
        explained = explain_renamed(name, RENAMED) if name != variable.lower() else None
        if explained:
            raise BadInput(f"{variable} in the environment: {explained}")


def _place(path: Path, flags: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Say where a setting was given: the flag, else the variable, else the file."""
    name = ".".join(map(str, location))
    setting = str(location[0]) if location else ""
    if setting in flags:
        return f"given as a flag: {name}"
    wanted = _ENVIRONMENT + setting.upper()
    variable = next((one for one in os.environ if one.upper() == wanted), None)
    return f"{variable} in the environment" if variable else f"{path}: {name}"


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Turn ``["rank=8", ...]`` into a mapping. Raises BadInput."""
    pairs: dict[str, str] = {}
    for assignment in assignments:
        key, value = split_assignment(assignment, "--set", error=BadInput)
        pairs[key] = value.strip()
    return pairs
