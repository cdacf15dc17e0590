"""The sample messages that ship with the project: written for it, no customer's words."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

_DATA = "data"


@dataclass(frozen=True, slots=True)
class Sample:
    """A message, and the label it should get; None where no label fits."""

    id: str
    message: str
    label: str | None


def data_file(name: str) -> Path:
    """Return the path of a shipped data file: train, holdout or out_of_scope (.jsonl)."""
    return Path(str(resources.files("worker.demo").joinpath(_DATA, name)))


def shipped_dir(name: str) -> Path:
    """Return the directory of a model that ships with the project: adapter, encoder or cascade. The
    encoder's and the cascade's are not whole (``worker.demo.models``)."""
    return Path(str(resources.files("worker.demo").joinpath(name)))


def adapter_dir() -> Path:
    """Return the directory of the adapter that ships with the project."""
    return shipped_dir("adapter")


def read_samples(name: str) -> list[Sample]:
    """Read a shipped data file."""
    lines = data_file(name).read_text(encoding="utf-8").splitlines()
    stem = name.removesuffix(".jsonl")
    return [
        Sample(f"{stem}-{number}", row["message"], row.get("label"))
        for number, row in enumerate(map(json.loads, lines), 1)
    ]


def demo_samples(count: int, seed: int = 7) -> list[Sample]:
    """Choose messages the adapter was never trained on, one in twenty of them out of scope."""
    draw = random.Random(seed)  # noqa: S311 - a shuffle, no secret
    known = read_samples("holdout.jsonl")
    odd = read_samples("out_of_scope.jsonl")
    draw.shuffle(known)
    draw.shuffle(odd)
    strange = min(len(odd), max(1, count // 20))
    chosen = _cycle(known, count - strange) + odd[:strange]
    draw.shuffle(chosen)
    return chosen


def _cycle(samples: list[Sample], count: int) -> list[Sample]:
    """Take ``count``, beginning again, under new ids, when there are not that many."""
    chosen = []
    for number in range(count):
        one, again = samples[number % len(samples)], number // len(samples)
        chosen.append(Sample(f"{one.id}.{again}", one.message, one.label) if again else one)
    return chosen
