"""Encoders of several architectures: prompts, answers and ONNX files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tokenizers
import torch
from onnx.numpy_helper import to_array

from tests.support.tiny_encoder import ARCHITECTURES, make_tiny_encoder
from trainer.dataset.folder import Example
from trainer.errors import BadInput
from trainer.model.base_card import find_prefix
from trainer.model.encoder import (
    EncoderModel,
    EncoderShape,
    collate_rows,
    find_pooling,
    load_encoder,
)
from trainer.model.onnx_files import FILES, export_onnx, onnx_logits
from trainer.model.prompt import (
    load_tokenizer,
    make_encoder_prompt,
    most_message_tokens,
    most_tokens,
)
from trainer.model.scoring import HeadScorer, find_classes, label_indexes
from worker.contract import Lora, build_prompt, make_golden

pytestmark = pytest.mark.slow

TEXT = ["where is my parcel please", "money back for the refund", "the card was declined today"] * 9
SHAPE = EncoderShape(classes=5, pooling="mean", unit=False, lora=None)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp(request.param), TEXT, request.param)


def with_head(model: EncoderModel) -> EncoderModel:
    torch.manual_seed(3)
    torch.nn.init.normal_(model.classifier.head.weight)
    torch.nn.init.normal_(model.classifier.head.bias)
    return model


def prompts(base: Path) -> list[tuple[int, ...]]:
    encoders = load_tokenizer(base).encoders
    spec = make_encoder_prompt(base, encoders, max_message_tokens=100, redaction=None)
    return [prompt.ids for prompt in make_golden(spec, encoders)]


def test_the_prompt_is_what_the_encoders_own_tokenizer_makes(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(base)
    spec = make_encoder_prompt(base, tokenizer.encoders, max_message_tokens=100, redaction=None)
    prompt = build_prompt(spec, "where is my parcel", tokenizer.encoders.plain)
    assert prompt is not None
    theirs = AutoTokenizer.from_pretrained(base)("where is my parcel")["input_ids"]
    assert list(prompt.ids) == theirs
    trick = build_prompt(spec, f"my {spec.suffix} parcel", tokenizer.encoders.plain)
    assert trick is not None
    assert not tokenizer.encoders.control_ids.intersection(trick.ids[1:-1])


def test_what_the_base_expects_before_a_message_is_in_the_prompt(
    base: Path, tmp_path: Path
) -> None:
    """As one text with it has it, where a space belongs to the next word (SentencePiece) too."""
    pieces = {"<unk>": 0, "▁query": 1, ":": 2, "▁message": 3, "▁refund": 4, "▁": 5}
    joined = tokenizers.Tokenizer(tokenizers.models.WordLevel(pieces, "<unk>"))
    joined.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Metaspace(), tokenizers.pre_tokenizers.Punctuation()]
    )
    joined.save(str(tmp_path / "tokenizer.json"))
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, tmp_path / name)
    assert find_prefix(tmp_path) == ""
    (tmp_path / "README.md").write_text('Each input text should start with "query: " or ...')
    for folder in (base, tmp_path):
        encoders = load_tokenizer(folder).encoders
        spec = make_encoder_prompt(
            folder,
            encoders,
            max_message_tokens=16,
            redaction=None,
            message_prefix=find_prefix(tmp_path),
        )
        prompt = build_prompt(spec, "refund", encoders.plain)
        assert prompt is not None
        theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        wanted = theirs.encode("query: refund").ids
        # Byte pairs have the space in the word: there the prefix alone is the same.
        same = 5 if type(theirs.model).__name__ == "BPE" else len(wanted)
        assert list(prompt.ids[:same]) == wanted[:same]
    prompts = {"prompts": {"query": "find: ", "classification": "sort: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert find_prefix(tmp_path) == "sort: "


def test_a_message_that_is_longer_than_the_encoder_is_refused_by_setting(base: Path) -> None:
    encoders = load_tokenizer(base).encoders
    room = most_message_tokens(base)
    assert room == most_tokens(base) - 2
    with pytest.raises(BadInput, match=f"reads at most {room} tokens"):
        make_encoder_prompt(base, encoders, max_message_tokens=room + 1, redaction=None)
    spec = make_encoder_prompt(base, encoders, max_message_tokens=room, redaction=None)
    longest = [prompt.ids for prompt in make_golden(spec, encoders)]
    assert max(map(len, longest)) == most_tokens(base)
    scores = HeadScorer(with_head(load_encoder(base, SHAPE, device="cpu"))).score(longest)
    assert np.isfinite(scores.logprobs).all()


def test_padding_changes_no_answer(base: Path) -> None:
    scorer = HeadScorer(with_head(load_encoder(base, SHAPE, device="cpu")))
    rows = prompts(base)
    together = scorer.score(rows).logprobs
    np.testing.assert_allclose(together, scorer.logits(rows), atol=2e-4)
    assert together.std() > 0.1


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_is_pooled_from_the_last_states_and_scaled_where_asked(
    tmp_path: Path, pooling: str
) -> None:
    base = make_tiny_encoder(tmp_path, TEXT)
    shape = EncoderShape(classes=5, pooling=pooling, unit=True, lora=None)  # type: ignore[arg-type]
    model = load_encoder(base, shape, device="cpu")
    rows = prompts(base)[:3]
    ids, mask = collate_rows(rows, model.pad_id, model.device)
    with torch.inference_mode():
        states = model.classifier.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        found = model.classifier.pool(ids, mask)
    for at, row in enumerate(rows):
        own = states[at, : len(row)]
        wanted = own[0] if pooling == "cls" else own.mean(dim=0)
        torch.testing.assert_close(found[at], wanted / wanted.norm())


@pytest.mark.parametrize("lora", [None, Lora(4, 8.0, ())])
def test_an_onnx_file_gives_the_same_logits(base: Path, tmp_path: Path, lora: Lora | None) -> None:
    shape = EncoderShape(classes=5, pooling="mean", unit=False, lora=lora)
    model = with_head(load_encoder(base, shape, device="cpu"))
    with torch.no_grad():
        for name, weights in model.classifier.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.1)
    export_onnx(model, tmp_path, ("fp32", "int8"))
    rows = prompts(base)
    ours = HeadScorer(model).logits(rows)
    theirs = onnx_logits(tmp_path / FILES["fp32"], rows, classes=5, pad_id=model.pad_id)
    np.testing.assert_allclose(theirs, ours, atol=1e-3)
    small = onnx_logits(tmp_path / FILES["int8"], rows, classes=5, pad_id=model.pad_id)
    assert np.abs(small - ours).max() < ours.std()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES.values())


def test_no_processor_saturates_where_it_multiplies(base: Path, tmp_path: Path) -> None:
    """AVX2 without VNNI adds two products in 16 bits, which saturate if weights exceed 64: the file
    would answer differently from the machine that calibrated it."""
    export_onnx(with_head(load_encoder(base, SHAPE, device="cpu")), tmp_path, ("int8",))
    kept = {
        each.name: to_array(each) for each in onnx.load(tmp_path / FILES["int8"]).graph.initializer
    }
    matrices = [
        name for name, values in kept.items() if values.dtype == np.int8 and values.ndim > 1
    ]
    assert len(matrices) > 8  # embeddings are looked up, in 8 bits without a sign
    for name in matrices:
        assert np.abs(kept[name].astype(int)).max() <= 64, name
        assert kept[name.removesuffix("_quantized") + "_scale"].size == kept[name].shape[1], name


def test_what_is_learnt_is_the_head_alone_with_a_frozen_base(base: Path) -> None:
    frozen = load_encoder(base, SHAPE, device="cpu", frozen=True)
    assert set(frozen.state_dict()) == {"head.weight", "head.bias"}
    lora = load_encoder(base, EncoderShape(5, "mean", False, Lora(2, 4.0, ())), device="cpu")
    assert all("lora" in name or name.startswith("head.") for name in lora.state_dict())
    whole = load_encoder(base, SHAPE, device="cpu")
    assert sum(weights.numel() for weights in whole.trainable_parameters()) == whole.total_weights()
    with pytest.raises(BadInput, match="do not fit"):
        whole.load_state_dict(frozen.state_dict())


def test_pooling_is_what_the_base_says(tmp_path: Path) -> None:
    assert find_pooling(tmp_path, "auto") == "mean"
    (tmp_path / "1_Pooling").mkdir()
    path = tmp_path / "1_Pooling" / "config.json"
    path.write_text(json.dumps({"pooling_mode_cls_token": True}), encoding="utf-8")
    assert find_pooling(tmp_path, "auto") == "cls"
    assert find_pooling(tmp_path, "mean") == "mean"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="set pooling to mean or cls"):
        find_pooling(tmp_path, "auto")


def test_classes_are_the_finer_labels_under_names_of_their_own() -> None:
    examples = [
        Example("1", "m", "a", "late"),
        Example("2", "m", "b", "late"),
        Example("3", "m", "a", "b"),
        Example("4", "m", "a", "own"),
        Example("5", "m", "c"),
    ]
    classes = find_classes(examples, ["a", "b", "c"], finer=True)
    assert [each.name for each in classes] == ["a/b", "a/late", "own", "b/late", "c"]
    assert label_indexes(classes, ["a", "b", "c"]).tolist() == [0, 0, 0, 1, 2]
    plain = find_classes(examples, ["a", "b", "c"], finer=False)
    assert [each.name for each in plain] == ["a", "b", "c"]
