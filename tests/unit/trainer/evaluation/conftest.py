"""A published adapter on the tiny base, and a dataset with a sealed hold-out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from trainer.dataset.examples import Example
from trainer.dataset.folder import Dataset, write_dataset
from trainer.model.prompt import make_prompt
from trainer.model.student import CONFIG, WEIGHTS, LoraModel, load_renderer
from trainer.model.tokens import load_tokenizer
from worker.contract import (
    Calibration,
    FileDigest,
    Manifest,
    Taxonomy,
    Thresholds,
    describe_base,
    make_golden,
    write_manifest,
)
from worker.contract.digest import sha256_file


class World(NamedTuple):
    """All that an evaluation takes."""

    adapter: Path
    base: Path
    dataset: Dataset
    manifest: Manifest


@pytest.fixture(scope="session")
def sealed(
    tmp_path_factory: pytest.TempPathFactory,
    taxonomy_file: Path,
    make_messages: Callable[[int, int], list[tuple[str, str]]],
) -> Dataset:
    """Return a dataset of three labels, each with two sublabels."""

    def examples(count: int, seed: int) -> list[Example]:
        return [
            Example(f"{seed}-{at}", message, label, f"{label}/{at % 2}")
            for at, (message, label) in enumerate(make_messages(count, seed))
        ]

    return write_dataset(
        tmp_path_factory.mktemp("sealed") / "dataset",
        name="tiny",
        taxonomy=Taxonomy.from_toml(taxonomy_file),
        splits={
            "train": examples(30, 1),
            "validation": examples(10, 2),
            "holdout": examples(12, 3),
        },
    )


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Path,
    sealed: Dataset,
    make_student: Callable[..., LoraModel],
) -> World:
    """Return an adapter with random weights: its answers are bad and all different."""
    directory = tmp_path_factory.mktemp("run") / "adapter"
    directory.mkdir()
    tokenizer = load_tokenizer(tiny_base)
    spec, codes = make_prompt(
        sealed.taxonomy,
        tokenizer.encoders,
        load_renderer(tiny_base),
        instruction="Answer with the letter.",
        list_labels=False,
        descriptions=False,
        max_message_tokens=64,
        prefix_block=None,
    )
    student = make_student()
    torch.manual_seed(1)
    state = {name: torch.randn_like(one) / 2 for name, one in student.state().items()}
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(student.config("tiny")), encoding="utf-8")
    manifest = Manifest(
        name="tiny-adapter",
        created_at="2026-01-01T00:00:00Z",
        base=describe_base(tiny_base, "tiny", "1"),
        taxonomy=sealed.taxonomy,
        prompt=spec,
        decoding="code",
        codes=codes,
        lora=student.lora,
        calibration=Calibration(1.5, 30),
        thresholds=Thresholds(0.6, math.nextafter(1.0, 0.0)),
        golden=make_golden(spec, tokenizer.encoders),
        files={
            name: FileDigest(sha256_file(directory / name), (directory / name).stat().st_size)
            for name in (WEIGHTS, CONFIG)
        },
        data={"digest": sealed.digest},
    )
    write_manifest(directory, manifest)
    return World(directory, tiny_base, sealed, manifest)
