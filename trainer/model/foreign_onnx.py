"""A classifier that comes as an ONNX file: from token ids, or from text that it tokenizes itself.

The graph keeps its nodes and weights. It gets the inputs and the output that a worker expects
(``worker.contract.head.OnnxModel``): other outputs are left out, probabilities become their
logarithms, which softmax turns back, and ``token_type_ids`` become zeros inside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from trainer.errors import BadInput
from trainer.model.bases import describe_source
from trainer.model.encoder import BASE_CONFIG, TOKENIZER
from trainer.model.foreign import ASKING, Form
from trainer.model.forward import PromptIds
from trainer.model.onnx_files import (
    FILES,
    INPUTS,
    OUTPUT,
    OnnxPrecision,
    open_session,
    require_onnx,
)
from trainer.model.prompt import most_message_tokens
from trainer.model.scoring import Floats
from trainer.progress import track
from worker.contract import BaseModel, FileDigest
from worker.contract.digest import sha256_bytes, sha256_file, sha256_json
from worker.contract.head import BYTES, TEXT_INPUT, OutOfScopeMethod, text_of
from worker.contract.verify import GOLDEN_MESSAGES

_TYPES = "token_type_ids"
_SMALLEST = 1e-12  # a probability of 0, which trees and neighbours give, has no logarithm
_TEXT_BYTES = 8192
_TOKENS = 512
_PREFIX = "imported/"
_QUANTIZED = {"DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul", "DequantizeLinear"}
_LOCALE = b"C.UTF-8"
_PAGE = "docs/import.md"


class OnnxClassifier:
    """See ``Foreign``. Its labels are ``outputs``; a graph of token ids has its ``tokenizer.json``
    next to it. The constructor raises BadInput for any other graph."""

    form: Form = "onnx"

    def __init__(self, path: Path, outputs: tuple[str, ...]) -> None:
        require_onnx()
        self.outputs = outputs
        self._path = path
        self._model = _read(path)
        self._graph = _find_ends(self._model, path)
        self.tokenizer = _byte_tokenizer() if self._graph.reads_text else _tokenizer_of(path)
        self._tokenizer = Tokenizer.from_str(self.tokenizer.decode("utf-8"))
        self._tokenizer.no_padding()
        try:
            self._session = open_session(self._model.SerializeToString())
        except Exception as error:  # the library raises many kinds
            raise BadInput(
                f"{path}: ONNX Runtime cannot load it: {_last_words(error)}: {_PAGE} has the lines "
                "that make a file which it can"
            ) from error
        self.room = self._find_room()
        self._is_probability = self._probe()
        self.base = self._describe()
        self.vocabulary = int(self._tokenizer.get_vocab_size())
        self.pad_id = self._pad_id()
        self.weights = sum(int(np.prod(each.dims)) for each in self._model.graph.initializer)
        # The energy of log-probabilities is always 0: only the largest says anything.
        self.out_of_scope: OutOfScopeMethod = "max-logit" if self._is_probability else "energy"

    @property
    def default_room(self) -> int:
        """See ``Foreign``. For a graph of text they are bytes."""
        return _TEXT_BYTES if self.room is None else min(_TOKENS, self.room)

    def original(self, texts: Sequence[str]) -> Floats:
        """See ``Foreign``."""
        return self._run([self._given(text) for text in texts])

    def logits(self, prompts: Sequence[PromptIds]) -> Floats:
        """See ``Foreign``."""
        if self._graph.reads_text:
            return self._run([self._text(text_of(prompt)) for prompt in prompts])
        return self._run([self._tokens(prompt) for prompt in prompts])

    def write(self, directory: Path, precisions: Sequence[OnnxPrecision]) -> list[OnnxPrecision]:
        """See ``Foreign``. The file's own precision is kept, whatever is asked for: its 8-bit
        arithmetic, if it has any, is not ours."""
        del precisions
        kinds = {node.op_type for node in self._model.graph.node}
        precision: OnnxPrecision = "int8" if kinds & _QUANTIZED else "fp32"
        made = _with_ends(self._model, self._graph, logarithm=self._is_probability)
        (directory / FILES[precision]).write_bytes(made)
        return [precision]

    def _run(self, given: list[dict[str, Any]]) -> Floats:
        scores = self._scores(given)
        return np.log(np.maximum(scores, _SMALLEST)) if self._is_probability else scores

    def _scores(self, given: list[dict[str, Any]]) -> Floats:
        rows = []
        for each in track(ASKING, given):
            try:
                (found,) = self._session.run([self._graph.output], each)
            except Exception as error:
                raise BadInput(
                    f"{self._path}: fails on one of the messages ({type(error).__name__}): try it "
                    "in ONNX Runtime, and export it again"
                ) from error
            rows.append(np.asarray(found, dtype=np.float64).reshape(-1))
        return np.array(rows)

    def _probe(self) -> bool:
        """Return whether the scores are probabilities. Raises BadInput for another number of them
        than labels."""
        scores = self._scores([self._given(text) for text in GOLDEN_MESSAGES])
        if scores.shape[1] != len(self.outputs):
            one = " (one for two labels: export probabilities)" if scores.shape[1] == 1 else ""
            raise BadInput(
                f"{self._path}: returns {scores.shape[1]} scores{one}, but {len(self.outputs)} "
                "labels are named: name each, in the order of the scores"
            )
        if not np.isfinite(scores).all():
            raise BadInput(f"{self._path}: returns scores that are not numbers: export it again")
        return bool((scores >= -1e-6).all() and (abs(scores.sum(axis=1) - 1) < 1e-3).all())

    def _given(self, text: str) -> dict[str, Any]:
        if self._graph.reads_text:
            return self._text(text)
        return self._tokens(self._tokenizer.encode(text).ids)

    def _text(self, text: str) -> dict[str, Any]:
        array = np.array([text], dtype=object)
        return {self._graph.inputs[0]: array[:, None] if self._graph.rank == 2 else array}

    def _tokens(self, ids: Sequence[int]) -> dict[str, Any]:
        row = np.array([ids], dtype=np.int64)
        given = dict(zip(INPUTS, (row, np.ones_like(row)), strict=True))
        return given | ({_TYPES: np.zeros_like(row)} if _TYPES in self._graph.inputs else {})

    def _find_room(self) -> int | None:
        """Return the most message tokens: by config.json, else by trial up to 512. Texts are cut
        there, as the original would."""
        folder, tokenizer = self._path.parent, self._tokenizer
        if self._graph.reads_text:
            return None
        special = int(tokenizer.num_special_tokens_to_add(False))
        if (folder / BASE_CONFIG).is_file():
            room = most_message_tokens(folder)
        else:
            room = self._try_lengths() - special
        tokenizer.enable_truncation(room + special)
        return room

    def _try_lengths(self) -> int:
        """Return the most tokens, up to 512, that the graph runs on: it fails beyond its last
        position. Raises BadInput if it fails on a letter."""
        ids = self._tokenizer.encode("a").ids
        self._scores([self._tokens(ids)])
        runs, fails = len(ids), _TOKENS + 1
        while fails - runs > 1:
            # The limit itself first: most graphs run on it, and then one try is enough.
            length = _TOKENS if fails > _TOKENS and runs == len(ids) else (runs + fails) // 2
            try:
                self._session.run([self._graph.output], self._tokens([ids[0]] * length))
            except Exception:  # noqa: BLE001 - the library raises many kinds
                fails = length
            else:
                runs = length
        return runs

    def _describe(self) -> BaseModel:
        size = self._path.stat().st_size
        name, revision = describe_source(self._path.parent)
        return BaseModel(
            name=f"{name}/{self._path.name}",
            revision=revision,
            config_sha256=sha256_json(list(self.outputs)),
            tokenizer_sha256=sha256_bytes(self.tokenizer),
            weights={self._path.name: FileDigest(sha256_file(self._path), size)},
        )

    def _pad_id(self) -> int:
        padding = json.loads(self.tokenizer).get("padding") or {}
        return int(padding.get("pad_id", 0))


@dataclass(frozen=True, slots=True)
class _Ends:
    """A graph's inputs, the rank of a text input, and the output with the scores."""

    inputs: tuple[str, ...]
    output: str
    rank: int
    is_double: bool

    @property
    def reads_text(self) -> bool:
        return not set(INPUTS) & set(self.inputs)


def _read(path: Path) -> Any:
    """Return the model, with weights from files next to it. Raises BadInput."""
    import onnx

    lines = f"{_PAGE} has the lines that make one"
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf and onnx raise many kinds
        why = error.strerror if isinstance(error, OSError) else "it is not an ONNX file"
        raise BadInput(f"{path}: {why}: {lines}") from error
    if not model.graph.node:  # any bytes may parse as an empty message
        raise BadInput(f"{path}: it is not an ONNX file: {lines}")
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            # The default is en_US, which hardly any container has. Every glibc has this one, and
            # it folds case alike.
            locales = [each for each in node.attribute if each.name == "locale"]
            if not locales:
                node.attribute.extend([onnx.helper.make_attribute("locale", _LOCALE)])
            for each in locales:
                each.s = _LOCALE if each.s.startswith(b"en_US") else each.s
    return model


def _find_ends(model: Any, path: Path) -> _Ends:
    """Return where scores come from and what they are made of. Raises BadInput that says which
    graphs can be served."""
    from onnx import TensorProto

    constants = {each.name for each in model.graph.initializer}
    given = [each for each in model.graph.input if each.name not in constants]
    types = {each.name: each.type.tensor_type.elem_type for each in given}
    ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in given}
    reads_tokens = set(INPUTS) <= set(types) <= {*INPUTS, _TYPES} and set(types.values()) == {
        TensorProto.INT64
    }
    reads_text = list(types.values()) == [TensorProto.STRING] and set(ranks.values()) <= {1, 2}
    if not reads_tokens and not reads_text:
        raise BadInput(
            f"{path}: takes {', '.join(types) or 'nothing'}: it must take {' and '.join(INPUTS)} "
            f"(int64), or one text (string, a message a row): {_PAGE} has the lines that make one"
        )
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE)
    scores = {
        each.name: each.type.tensor_type.elem_type
        for each in model.graph.output
        if each.type.tensor_type.elem_type in floats
    }
    if OUTPUT in scores:
        scores = {OUTPUT: scores[OUTPUT]}
    if len(scores) != 1:
        names = ", ".join(each.name for each in model.graph.output)
        zipped = any(each.type.HasField("sequence_type") for each in model.graph.output)
        how = 'export it with options={"zipmap": False}' if zipped else f"name one {OUTPUT!r}"
        raise BadInput(
            f"{path}: returns {names}: it must return one table of scores, a row for each message "
            f"and a column for each label: {how}"
        )
    ((output, kind),) = scores.items()
    return _Ends(
        tuple(types), output, next(iter(ranks.values())), is_double=kind == TensorProto.DOUBLE
    )


def _with_ends(model: Any, ends: _Ends, *, logarithm: bool) -> bytes:
    """Return the same model with the inputs and the output that a worker expects, serialized."""
    from onnx import TensorProto, compose, helper, numpy_helper

    # A prefix for every name, because "logits" or "text" may already be the name of an inner value.
    made = compose.add_prefix(model, _PREFIX)
    graph = made.graph
    before, after, constants = [], [], []
    if ends.reads_text:
        inputs = [helper.make_tensor_value_info(TEXT_INPUT, TensorProto.STRING, ["messages"])]
        shape = np.array([-1] if ends.rank == 1 else [-1, 1], dtype=np.int64)
        constants.append(numpy_helper.from_array(shape, "shape"))
        inner = f"{_PREFIX}{ends.inputs[0]}"
        before.append(helper.make_node("Reshape", [TEXT_INPUT, "shape"], [inner]))
    else:
        dims = ["messages", "tokens"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name in INPUTS]
        before += [helper.make_node("Identity", [name], [f"{_PREFIX}{name}"]) for name in INPUTS]
        if _TYPES in ends.inputs:
            zeros = [INPUTS[0], INPUTS[0]]
            before.append(helper.make_node("Sub", zeros, [f"{_PREFIX}{_TYPES}"]))
    last = f"{_PREFIX}{ends.output}"
    if ends.is_double:
        after.append(helper.make_node("Cast", [last], ["float"], to=TensorProto.FLOAT))
        last = "float"
    if logarithm:
        constants.append(numpy_helper.from_array(np.array(_SMALLEST, dtype=np.float32), "smallest"))
        after.append(helper.make_node("Max", [last, "smallest"], ["above"]))
        after.append(helper.make_node("Log", ["above"], [OUTPUT]))
    else:
        after.append(helper.make_node("Identity", [last], [OUTPUT]))
    nodes = [*before, *graph.node, *after]
    kept = {each.name for each in graph.initializer}
    _replace(graph.node, nodes)
    _replace(graph.input, [*inputs, *(each for each in graph.input if each.name in kept)])
    scores = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["messages", None])
    _replace(graph.output, [scores])
    graph.initializer.extend(constants)
    if not any(each.domain in {"", "ai.onnx"} for each in made.opset_import):
        made.opset_import.extend([helper.make_opsetid("", 13)])
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def _replace(field: Any, values: list[Any]) -> None:
    copies = [type(each).FromString(each.SerializeToString()) for each in values]
    del field[:]
    field.extend(copies)


def _tokenizer_of(path: Path) -> bytes:
    file = path.with_name(TOKENIZER)
    try:
        content = file.read_bytes()
        Tokenizer.from_str(content.decode("utf-8"))
    except OSError as error:
        raise BadInput(
            f"{file}: {error.strerror}: a graph of token ids needs it next to it: "
            f"tokenizer.save_pretrained({path.parent}) writes one"
        ) from error
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"{file}: not a tokenizer this version can read: {error}") from error
    return content


def _byte_tokenizer() -> bytes:
    """Return a ``tokenizer.json`` whose tokens are the bytes of UTF-8, with the byte as the id: see
    ``worker.contract.head.text_of``."""
    # GPT-2's characters for bytes: printable ones stand for themselves, the others follow 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(BYTES) if byte not in printable]
    vocabulary = {chr(byte): byte for byte in printable}
    vocabulary |= {chr(BYTES + place): byte for place, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str()).encode("utf-8")


def _last_words(error: Exception) -> str:
    """Return the end of ONNX Runtime's message, which starts with places in its own source."""
    return " ".join(str(error).split())[-160:] or type(error).__name__
