"""Every check before an adapter may label: each refusal names the file and the difference."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.published import WEIGHTS, Published, publish_encoder
from tests.support.toy_adapter import ENCODERS, LABELS, encode_control, encode_plain, toy_head
from worker.contract import (
    AdapterRefused,
    Code,
    Encoders,
    FileDigest,
    GoldenPrompt,
    tokenizer_directory,
    verify_tokens,
)
from worker.contract.digest import sha256_file
from worker.contract.verify import GOLDEN_MESSAGES


def test_an_adapter_as_published_is_served(published: Published) -> None:
    """Nothing is refused without a reason, and the golden prompts exercise the tokenizer."""
    assert published.verify() == published.manifest
    assert len(published.manifest.golden) == len(GOLDEN_MESSAGES)
    assert any(golden.truncated for golden in published.manifest.golden)


# The adapter's files.


def test_a_missing_file_is_named(published: Published) -> None:
    """Half a copy is not served."""
    (published.adapter / WEIGHTS).unlink()
    published.refused(published.adapter / WEIGHTS, "missing; adapter toy-1 is altered")


def test_an_altered_file_is_named_with_both_digests(published: Published) -> None:
    """Weights of the same length that are not these weights."""
    path = published.adapter / WEIGHTS
    wanted = published.manifest.files[WEIGHTS].sha256
    path.write_bytes(b"LORA weights")
    found = sha256_file(path)
    published.refused(path, f"sha256 is {found[:16]}… and should be {wanted[:16]}…")


def test_a_cut_file_is_told_by_its_size(published: Published) -> None:
    """An interrupted copy is the usual cause, and its size says so."""
    (published.adapter / WEIGHTS).write_bytes(b"lora")
    published.refused(published.adapter / WEIGHTS, "is 4 bytes and should be 12")


@pytest.mark.parametrize("name", ["README.md", "more.safetensors", ".hidden", "tokenizer.json"])
def test_a_file_that_the_manifest_does_not_name_is_refused(published: Published, name: str) -> None:
    """An engine reads whatever lies in the directory: so nothing may lie there unseen."""
    (published.adapter / name).write_bytes(b"x")
    published.refused(published.adapter / name, "is not named in the manifest")


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "run.py", "weights"])
def test_only_weights_and_json_may_be_in_an_adapter(published: Published, name: str) -> None:
    """A pickle runs code when it is loaded: it is refused even when it is listed."""
    path = published.adapter / name
    path.write_bytes(b"x")
    published.rewrite(files={**published.manifest.files, name: FileDigest(sha256_file(path), 1)})
    published.refused(path, "only safetensors and JSON files")


@pytest.mark.parametrize(
    "name", ["../base/config.json", "/etc/x.json", "a/b.json", "manifest.json"]
)
def test_a_manifest_names_files_of_its_own_directory_only(published: Published, name: str) -> None:
    """Neither a path out of it nor the manifest itself."""
    published.rewrite(files={**published.manifest.files, name: FileDigest("0" * 64, 1)})
    published.refused(published.adapter / "manifest.json", "names a file it may not")


# The tokenizer.


def shifted(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    return lambda text: [id_ + (id_ == 10 + ord("b")) for id_ in encode(text)]


def test_a_golden_prompt_tokenized_differently_is_refused(published: Published) -> None:
    """A library that splits text in another way is noticed before the first message."""
    other = Encoders(encode_control, shifted(encode_plain), ENCODERS.control_ids)
    published.refused(
        published.base / "tokenizer.json",
        r"tokenizes golden prompt 1 differently .* first difference at token \d+",
        other,
    )


def test_each_fixed_part_is_compared(published: Published) -> None:
    """Prefix, suffix and the mark of shortening."""
    where = published.base / "tokenizer.json"
    spec = published.manifest.prompt
    for part, other in (
        ("the prompt's prefix", replace(spec, prefix_ids=(*spec.prefix_ids, 99))),
        ("the prompt's suffix", replace(spec, suffix_ids=(99, *spec.suffix_ids[1:]))),
        ("the shortening mark", replace(spec, marker_ids=(99,))),
    ):
        manifest = replace(published.manifest, prompt=other)
        with pytest.raises(AdapterRefused, match=f"tokenizes {part} differently"):
            verify_tokens(manifest, ENCODERS, where)


def test_codes_of_several_tokens_are_refused(published: Published) -> None:
    """The engine is asked for one token: a label that needs two could never be answered."""
    codes = {**published.manifest.codes, "other": Code("no", 10 + ord("n"))}
    published.rewrite(codes=codes)
    published.refused(published.base / "tokenizer.json", "label 'other' has the code 'no'")


def test_choice_adapters_are_not_asked_for_codes(published: Published) -> None:
    """They answer in words, and the words are checked one by one."""
    published.rewrite(decoding="choice", codes={})
    assert published.verify().decoding == "choice"


def test_a_tokenizer_that_lets_a_message_use_control_tokens_is_refused(
    published: Published,
) -> None:
    """A customer must not be able to type the end of the message."""
    message = "a</s>b"
    spec = published.manifest.prompt
    ids = (*spec.prefix_ids, *encode_control(message), *spec.suffix_ids)
    published.rewrite(golden=(GoldenPrompt(message, ids),))
    leaky = Encoders(encode_control, encode_control, ENCODERS.control_ids)
    published.refused(
        published.base / "tokenizer.json", r"turns message text into control tokens \[2\]", leaky
    )


def test_an_empty_golden_message_is_refused_rather_than_skipped(published: Published) -> None:
    """A golden prompt that proves nothing is no proof."""
    published.rewrite(golden=(GoldenPrompt(" ", (1, 2, 3)),))
    published.refused(published.base / "tokenizer.json", "golden prompt 0 differently")


# Encoders.


def test_an_encoder_that_carries_its_model_needs_no_base(tmp_path: Path) -> None:
    """Its tokenizer is beside it, and what the head names is verified like every other file."""
    published = publish_encoder(tmp_path)
    shutil.rmtree(published.base)
    assert published.verify() == published.manifest
    where = tokenizer_directory(published.adapter, published.manifest, None)
    assert where == published.adapter
    (published.adapter / "model.int8.onnx").write_bytes(b"model.INT8.onnx")
    published.refused(published.adapter / "model.int8.onnx", "sha256 is")


def test_an_encoder_without_an_onnx_file_needs_its_base(tmp_path: Path) -> None:
    """What was trained is not the whole model then."""
    published = publish_encoder(tmp_path, head=toy_head(LABELS, onnx=()))
    assert published.verify() == published.manifest
    shutil.rmtree(published.base)
    published.refused(published.adapter, "needs its base, toy-base, beside it")


def test_an_onnx_file_that_no_head_names_is_refused(tmp_path: Path) -> None:
    """Only what is checked against golden scores may be loaded."""
    published = publish_encoder(tmp_path)
    other = published.adapter / "other.onnx"
    other.write_bytes(b"x")
    published.rewrite(
        files={**published.manifest.files, "other.onnx": FileDigest(sha256_file(other), 1)}
    )
    published.refused(other, "the ONNX files that its head names")
