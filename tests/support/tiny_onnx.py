"""A tiny encoder with a head, generated as ONNX and laid out as a trainer does.

Embeddings, a hidden layer, the mean over the tokens, a head: enough for everything that an engine
does with a real one, in a few milliseconds. The weights are drawn from a seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.support.published import digests
from tests.support.toy_adapter import toy_taxonomy
from worker.contract import (
    BaseModel,
    Calibration,
    Encoders,
    GoldenLogits,
    Head,
    HeadOutput,
    Manifest,
    OnnxModel,
    PromptSpec,
    Reference,
    Thresholds,
    make_golden,
    write_manifest,
)
from worker.contract.digest import sha256_file
from worker.contract.text import NORMALIZATION
from worker.engine.model_files import load_encoders

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
HIDDEN = 16
SHA = "0" * 64


def write_tiny_encoder(directory: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write an adapter of kind ``encoder`` into a new directory; ``changes`` replace fields of
    its manifest. Returns the directory."""
    directory.mkdir(parents=True)
    write_tokenizer(directory / "tokenizer.json")
    encoders = load_encoders(directory)
    spec = tiny_spec(encoders)
    golden = make_golden(spec, encoders)
    model = TinyModel(seed, Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab_size())
    labels = changes.get("taxonomy", toy_taxonomy()).names
    outputs = tiny_outputs(labels)
    model.write(directory / "model.onnx", len(outputs))
    (directory / "model.safetensors").write_bytes(b"not looked into by ONNX Runtime")
    logits = tuple(
        GoldenLogits(at, model.logits(one.ids, len(outputs))) for at, one in enumerate(golden)
    )
    base = BaseModel("tiny", "1", SHA, sha256_file(directory / "tokenizer.json"), {})
    given: dict[str, Any] = {
        "name": f"tiny-encoder-{seed}",
        "created_at": "2024-05-06T07:08:09Z",
        "kind": "encoder",
        "base": base,
        "taxonomy": toy_taxonomy(),
        "prompt": spec,
        "calibration": Calibration(1.0, 100),
        "thresholds": Thresholds(0.0, None, None),
        "golden": golden,
        "files": digests(directory),
        "head": Head(
            outputs,
            "mean",
            False,
            "energy",
            model.vocabulary,
            0,
            ("model.safetensors",),
            logits,
            (OnnxModel("model.onnx", "fp32", 1e-4),),
        ),
        "reference": Reference(dict.fromkeys(labels, 1 / len(labels)), {}, {}, {"0.95": 0.0}),
    }
    write_manifest(directory, Manifest(**given | changes))
    return directory


def tiny_outputs(labels: tuple[str, ...]) -> tuple[HeadOutput, ...]:
    """Two outputs for the first label and one for each other."""
    finer = [HeadOutput(f"{labels[0]}.{part}", labels[0]) for part in "ab"]
    return (*finer, *(HeadOutput(label, label) for label in labels[1:]))


def tiny_spec(encoders: Encoders, max_message_tokens: int = 48) -> PromptSpec:
    """``[CLS]`` message ``[SEP]``, as for a BERT."""
    prefix, suffix, marker = "[CLS]", "[SEP]", " ... "
    return PromptSpec(
        prefix,
        suffix,
        marker,
        tuple(encoders.control(prefix)),
        tuple(encoders.control(suffix)),
        tuple(encoders.plain(marker)),
        max_message_tokens,
        NORMALIZATION,
    )


def write_tokenizer(path: Path) -> None:
    """Write a WordPiece tokenizer of single letters, with BERT's special tokens."""
    letters = [chr(code) for code in range(33, 127)]
    names = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {name: at for at, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(path))


class TinyModel:
    """Random weights in float32."""

    def __init__(self, seed: int, vocabulary: int) -> None:
        draw = np.random.default_rng(seed)
        self.vocabulary = vocabulary
        self.embeddings = draw.normal(size=(vocabulary, HIDDEN)).astype(np.float32)
        self.inner = (draw.normal(size=(HIDDEN, HIDDEN)) / 4).astype(np.float32)
        self.head = draw.normal(size=(HIDDEN, 64)).astype(np.float32)

    def logits(self, ids: Any, outputs: int) -> tuple[float, ...]:
        """The logits that the file must give."""
        hidden = np.tanh(self.embeddings[list(ids)] @ self.inner)
        return tuple((hidden.mean(axis=0) @ self.head[:, :outputs]).tolist())

    def write(self, path: Path, outputs: int, **names: str) -> None:
        """Write the ONNX file; ``names`` replace those of its inputs and its output."""
        ids, mask = names.get("ids", "input_ids"), names.get("mask", "attention_mask")
        logits = names.get("logits", "logits")
        weights: dict[str, np.ndarray[Any, Any]] = {
            "embeddings": self.embeddings,
            "inner": self.inner,
            "head": self.head[:, :outputs],
            "middle": np.array([1], dtype=np.int64),
            "last": np.array([2], dtype=np.int64),
        }
        nodes = [
            helper.make_node("Gather", ["embeddings", ids], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "inner"], ["mapped"]),
            helper.make_node("Tanh", ["mapped"], ["hidden"]),
            helper.make_node("Cast", [mask], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "last"], ["each"]),
            helper.make_node("Mul", ["hidden", "each"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["each", "middle"], ["count"], keepdims=0),
            helper.make_node("Div", ["sum", "count"], ["pooled"]),
            helper.make_node("MatMul", ["pooled", "head"], [logits]),
        ]
        shape = ["messages", "tokens"]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in (ids, mask)],
            [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["messages", outputs])],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
