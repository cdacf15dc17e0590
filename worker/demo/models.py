"""The demo's models and sample messages, which were written for it: none is from a customer."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from worker.common.base_model import ensure_base_model
from worker.common.cache import cache_folder, made_once
from worker.contract.manifest import read_manifest
from worker.demo.encoder_files import complete

_STORE = "demo-adapters"


ModelName = Literal["adapter", "encoder", "cascade"]
"""The model that the demo's worker serves; each ships in a directory of this name."""


@dataclass(frozen=True, slots=True)
class DemoModel:
    """The directories of an adapter and of its base, if it needs one; ``starts`` describes the
    engines."""

    adapter: Path
    base: Path | None
    starts: str

    def settings(self) -> Mapping[str, str]:
        """Return the worker's settings for it, with values in TOML syntax."""
        base = {} if self.base is None else {"model.base": f"'{self.base}'"}
        return {**base, "model.adapter": f"'{self.adapter}'"}


def default_model() -> ModelName:
    """Return the model of a demo that names none: as much as is installed can serve."""
    return "adapter" if find_spec("vllm") else "encoder"


def ensure_model(name: ModelName, on_event: Callable[[str], None] = lambda _: None) -> DemoModel:
    """Return a model of the demo. The first time its missing parts are made: the adapter's base in
    half a minute, the encoder's ONNX files in seconds. Raises BaseModelError."""
    if name == "adapter":
        starts = "vLLM with the base model and the adapter (~20 s)"
        return DemoModel(shipped_dir(name), ensure_base_model(on_event=on_event), starts)
    store = cache_folder() / _STORE
    encoder = _ensure_encoder(store, on_event)
    if name == "encoder":
        return DemoModel(encoder, None, "ONNX Runtime with the encoder (~2 s)")
    base = ensure_base_model(on_event=on_event)
    _ensure_copy(store, shipped_dir("adapter"))
    cascade = _ensure_copy(store, shipped_dir(name))
    return DemoModel(cascade, base, "ONNX Runtime with the encoder, and vLLM behind it (~20 s)")


def _ensure_encoder(store: Path, on_event: Callable[[str], None]) -> Path:
    """Return the complete encoder, under its digest; the shipped one lacks large files."""
    shipped = shipped_dir("encoder")

    def make(scratch: Path) -> None:
        on_event("making the encoder's ONNX files (once, about 5 s)")
        complete(shipped, scratch)

    return made_once(store / read_manifest(shipped).digest, make)


def _ensure_copy(store: Path, shipped: Path) -> Path:
    """Return a copy of a shipped adapter under its digest, where a cascade finds its stages."""

    def make(scratch: Path) -> None:
        shutil.copytree(shipped, scratch, dirs_exist_ok=True)

    return made_once(store / read_manifest(shipped).digest, make)


@dataclass(frozen=True, slots=True)
class Sample:
    """A message and its true label; None if no label fits, or it is not ``known``."""

    id: str
    message: str
    label: str | None
    known: bool = True


def shipped_dir(name: str) -> Path:
    """Return a shipped directory: of a model, or of the data files train, holdout and out_of_scope
    (.jsonl). Encoder and cascade need ``ensure_model`` to be complete."""
    return Path(str(resources.files("worker.demo").joinpath(name)))


def adapter_dir() -> Path:
    """Return the directory of the shipped adapter."""
    return shipped_dir("adapter")


def read_samples(name: str) -> list[Sample]:
    """Read a shipped data file."""
    lines = shipped_dir("data").joinpath(name).read_text(encoding="utf-8").splitlines()
    stem = name.removesuffix(".jsonl")
    return [
        Sample(f"{stem}-{number}", row["message"], row.get("label"))
        for number, row in enumerate(map(json.loads, lines), 1)
    ]


# Lines of holdout.jsonl that come first: a new user reads only the first lines of the demo, so they
# are short messages with one clear topic each.
_OPENING = (220, 87, 108, 106, 29, 190, 322, 113, 313, 76)


def demo_samples(count: int) -> list[Sample]:
    """Choose messages that no shipped model was trained on: ten plain ones, then the others in
    random order, one in twenty of all out of scope."""
    draw = random.Random(7)  # noqa: S311 - a shuffle, not cryptography
    known = read_samples("holdout.jsonl")
    opening = [known[line - 1] for line in _OPENING]
    rest = [sample for sample in known if sample not in opening]
    odd = read_samples("out_of_scope.jsonl")
    draw.shuffle(rest)
    draw.shuffle(odd)
    strange = min(len(odd), max(1, count // 20))
    others = _cycle(opening + rest, count - strange)[len(opening) :] + odd[:strange]
    draw.shuffle(others)
    return [*opening, *others][:count]


def _cycle(samples: list[Sample], count: int) -> list[Sample]:
    """Take ``count`` samples; start over, with new ids, if there are fewer."""
    chosen = []
    for number in range(count):
        one, again = samples[number % len(samples)], number // len(samples)
        chosen.append(Sample(f"{one.id}.{again}", one.message, one.label) if again else one)
    return chosen
