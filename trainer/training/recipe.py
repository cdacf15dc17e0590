"""The recipe: every setting of a training, frozen, from file, environment and flags."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from trainer.errors import BadInput

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

_LOCAL = {"base", "out", "run_dir"}
_FILES = ("data", "holdout", "taxonomy")


class Recipe(BaseSettings):
    """Settings of one training. Flags win over ``CLERK_TRAINER_*`` variables, those over the file.

    ``config/trainer.toml`` says what each setting means. Relative paths start at the working
    directory.
    """

    model_config = SettingsConfigDict(
        env_prefix="CLERK_TRAINER_", extra="forbid", frozen=True, validate_default=True
    )

    name: Annotated[str, Field(min_length=1)]
    base: Path
    base_name: Annotated[str, Field(min_length=1)]
    base_revision: Annotated[str, Field(min_length=1)]
    taxonomy: Path
    data: Path
    holdout: Path
    out: Path
    run_dir: Path

    instruction: Annotated[str, Field(min_length=1)]
    list_labels: bool = True
    descriptions: bool = False
    prefix_block: Annotated[int, Field(ge=0)] = 0
    max_message_tokens: Annotated[int, Field(ge=16)] = 512

    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    adapter_dtype: Literal["bfloat16", "float32"] = "bfloat16"

    device: str = "auto"
    base_dtype: Literal["bfloat16", "float32"] = "float32"
    autocast: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    threads: Annotated[int, Field(ge=0)] = 0
    share_prefix: bool = True
    gradient_checkpointing: bool = False

    seed: int = 1
    validation_share: Share = 0.15
    epochs: Count = 4
    patience: Count = 2
    batch_size: Count = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.06
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0

    review_precision: Share = 0.95
    review_floor: Annotated[float, Field(ge=0, lt=1)] = 0.5
    off_label_quantile: Share = 0.995

    def to_record(self) -> dict[str, Any]:
        """Return the settings for a manifest: plain JSON, file names without their folders, and
        without the folders that say something about this machine only."""
        record = self.model_dump(mode="json", exclude=_LOCAL)
        for name in _FILES:
            record[name] = Path(record[name]).name
        return record

    @model_validator(mode="after")
    def _check_memory_settings(self) -> Self:
        if self.gradient_checkpointing and self.share_prefix:
            raise ValueError("gradient_checkpointing needs share_prefix = false")
        return self


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

    try:
        return FromFile(**flags)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors()
        )
        raise BadInput(f"{path}: {problems}") from error


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Turn ``["rank=8", ...]`` into a mapping. Raises BadInput."""
    pairs: dict[str, str] = {}
    for one in assignments:
        key, sign, value = one.partition("=")
        if not sign or not key.strip():
            raise BadInput(f"--set {one}: write it as key=value")
        pairs[key.strip()] = value.strip()
    return pairs
