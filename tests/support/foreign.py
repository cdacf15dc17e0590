"""Tiny classifiers as they come from elsewhere: a Hugging Face folder, and ONNX files.

They learn the messages of ``tests.support.tiny_messages`` well enough to have opinions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.support.tiny_encoder import make_tiny_encoder
from tests.support.tiny_messages import WORDS, make_messages
from trainer.model.device import quiet_transformers

LABELS = tuple(WORDS)


def make_huggingface(
    directory: Path, architecture: str = "bert", *, names: Sequence[str] = LABELS, steps: int = 60
) -> Path:
    """Write a sequence classifier of two layers, trained for a second, into a new directory."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pairs = make_messages(40, 7)
    base = make_tiny_encoder(
        directory.with_name(f"{directory.name}-base"), [text for text, _ in pairs], architecture
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    numbers = {name: at for at, name in enumerate(names)}
    quiet_transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = AutoModelForSequenceClassification.from_pretrained(
            base, id2label=dict(enumerate(names)), label2id=numbers
        )
    torch.manual_seed(0)
    given = tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt")
    given.pop("token_type_ids", None)
    truth = torch.tensor([LABELS.index(label) for _, label in pairs])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**given, labels=truth).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


class _Probabilities(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask, types = given
        logits = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        probabilities = torch.softmax(logits + 0 * types.sum(), dim=1)
        return probabilities.argmax(dim=1), probabilities


def make_token_onnx(folder: Path, path: Path) -> Path:
    """Write a BERT classifier's folder as SetFit writes ONNX: three inputs, and the most probable
    class and the probabilities as outputs. Its tokenizer goes next to it, its config does not."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids = torch.ones(2, 5, dtype=torch.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Probabilities(model.eval()),
            (ids, ids, ids * 0),
            str(path),
            input_names=list(names),
            output_names=["label", "probabilities"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names}
            | {"label": {0: "rows"}, "probabilities": {0: "rows"}},
            opset_version=17,
            dynamo=False,
        )
    (path.parent / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    return path


def make_text_onnx(path: Path, *, zipped: bool = False, double: bool = False) -> Path:
    """Write a classifier of text as skl2onnx writes a pipeline: a column of strings, lower case,
    words, counts, a linear classifier; its outputs are the label and the probabilities."""
    words = [word for words in WORDS.values() for word in words]
    weights = np.array(
        [[2.0 if word in WORDS[label] else -0.5 for word in words] for label in LABELS]
    )
    nodes = [
        helper.make_node("Reshape", ["text", "flat"], ["rows"]),
        helper.make_node(
            "StringNormalizer",
            ["rows"],
            ["lower"],
            case_change_action="LOWER",
            is_case_sensitive=0,
            locale="en_US",
        ),
        helper.make_node(
            "Tokenizer",
            ["lower"],
            ["words"],
            domain="com.microsoft",
            mark=0,
            mincharnum=1,
            pad_value="#",
            tokenexp=r"[\pL\pN_]{2,}",
        ),
        helper.make_node(
            "TfIdfVectorizer",
            ["words"],
            ["counts"],
            mode="TF",
            min_gram_length=1,
            max_gram_length=1,
            max_skip_count=0,
            ngram_counts=[0],
            ngram_indexes=list(range(len(words))),
            pool_strings=words,
        ),
        helper.make_node(
            "LinearClassifier",
            ["counts"],
            ["label", "scores" if zipped else "probabilities"],
            domain="ai.onnx.ml",
            classlabels_strings=list(LABELS),
            coefficients=weights.flatten().tolist(),
            intercepts=[0.1, 0.0, -0.1],
            multi_class=1,
            post_transform="SOFTMAX",
        ),
    ]
    scores = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])
    if zipped:
        nodes.append(
            helper.make_node(
                "ZipMap",
                ["scores"],
                ["probabilities"],
                domain="ai.onnx.ml",
                classlabels_strings=list(LABELS),
            )
        )
        kind = helper.make_map_type_proto(
            TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
        scores = helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind))
    if double:
        nodes.append(helper.make_node("Cast", ["probabilities"], ["exact"], to=TensorProto.DOUBLE))
        scores = helper.make_tensor_value_info("exact", TensorProto.DOUBLE, [None, 3])
    graph = helper.make_graph(
        nodes,
        "pipeline",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [None, 1])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, [None]), scores],
        [numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat")],
    )
    opsets = [
        helper.make_opsetid("", 17),
        helper.make_opsetid("ai.onnx.ml", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
