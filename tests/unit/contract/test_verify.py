"""Every check before an adapter may label: each refusal names the file and the difference."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import ENCODERS, encode_control, encode_plain, toy_manifest
from worker.contract import (
    AdapterRefused,
    Code,
    Encoders,
    FileDigest,
    GoldenPrompt,
    Manifest,
    describe_base,
    verify_adapter,
    verify_base,
    verify_tokens,
    write_manifest,
)
from worker.contract.base import config_digest
from worker.contract.digest import sha256_file
from worker.contract.verify import GOLDEN_MESSAGES

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Published:
    """A base and an adapter on disk, as a trainer leaves them."""

    base: Path
    adapter: Path
    manifest: Manifest

    def verify(self, encoders: Encoders = ENCODERS, *, weights: bool = True) -> Manifest:
        return verify_adapter(self.adapter, self.base, encoders, weights=weights)

    def refused(self, path: Path, problem: str, encoders: Encoders = ENCODERS) -> None:
        with pytest.raises(AdapterRefused, match=problem) as caught:
            self.verify(encoders)
        assert caught.value.path == path
        assert str(path) in str(caught.value)

    def rewrite(self, **changes: object) -> None:
        write_manifest(self.adapter, replace(self.manifest, **changes))  # type: ignore[arg-type]


@pytest.fixture
def published(tmp_path: Path) -> Published:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "config.json").write_text('{"model_type": "toy", "transformers_version": "5.0"}')
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"base weights")
    (adapter / WEIGHTS).write_bytes(b"lora weights")
    (adapter / "adapter_config.json").write_text("{}")
    files = {
        path.name: FileDigest(sha256_file(path), path.stat().st_size) for path in adapter.iterdir()
    }
    manifest = toy_manifest(base=describe_base(base, "toy-base", "main"), files=files)
    write_manifest(adapter, manifest)
    return Published(base, adapter, manifest)


def test_an_adapter_as_published_is_served(published: Published) -> None:
    """Nothing is refused without a reason, and the golden prompts exercise the tokenizer."""
    assert published.verify() == published.manifest
    assert len(published.manifest.golden) == len(GOLDEN_MESSAGES)
    assert any(one.truncated for one in published.manifest.golden)


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


# The base.


def test_a_base_of_another_shape_is_refused(published: Published) -> None:
    """Another config is another model, whatever it is called."""
    path = published.base / "config.json"
    path.write_text('{"model_type": "other"}')
    published.refused(path, r"sha256 .* should be .*; the adapter was trained on toy-base \(main\)")


def test_who_wrote_a_config_does_not_matter(published: Published) -> None:
    """The same model saved by another version of a library is the same model."""
    path = published.base / "config.json"
    path.write_text('{\n "transformers_version": "6", "_name_or_path": "/x", "model_type": "toy"}')
    assert published.verify() == published.manifest


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": NaN}'])
def test_a_config_that_is_none_is_refused(published: Published, content: str) -> None:
    """With the file's name, and no traceback."""
    path = published.base / "config.json"
    path.write_text(content)
    published.refused(path, "cannot read the base's config")
    path.unlink()
    published.refused(path, "cannot read the base's config")


def test_another_tokenizer_is_refused(published: Published) -> None:
    """Other ids would be sent than the adapter was trained on."""
    path = published.base / "tokenizer.json"
    path.write_text('{"x": 1}')
    published.refused(path, "sha256 is .* and should be")
    path.unlink()
    published.refused(path, "missing; the adapter was trained on toy-base")


def test_other_base_weights_are_refused(published: Published) -> None:
    """A LoRA on top of other weights labels at random, and nobody would notice."""
    path = published.base / "model.safetensors"
    path.write_bytes(b"BASE weights")
    published.refused(path, "sha256 is .* and should be")
    assert published.verify(weights=False) == published.manifest
    path.write_bytes(b"more base weights")
    with pytest.raises(AdapterRefused, match="is 17 bytes and should be 12"):
        published.verify(weights=False)
    path.unlink()
    published.refused(path, "missing")


def test_a_further_weight_file_in_the_base_is_refused(published: Published) -> None:
    """An engine would load it."""
    path = published.base / "model-00002.safetensors"
    path.write_bytes(b"x")
    published.refused(path, "a weight file the adapter's base lacks")


def test_a_base_that_is_not_there_is_refused(published: Published, tmp_path: Path) -> None:
    """A volume that is not mounted is told as that."""
    with pytest.raises(AdapterRefused, match="no such base model directory"):
        verify_base(tmp_path / "nowhere", published.manifest.base)


def test_only_a_base_of_safetensors_with_a_fast_tokenizer_can_be_described(
    published: Published,
) -> None:
    """The trainer is told before it trains."""
    (published.base / "tokenizer.json").unlink()
    with pytest.raises(AdapterRefused, match=r"tokenizer\.json: missing"):
        describe_base(published.base, "toy", "main")
    (published.base / "model.safetensors").unlink()
    with pytest.raises(AdapterRefused, match="holds no"):
        describe_base(published.base, "toy", "main")


def test_the_config_digest_is_of_its_meaning(published: Published) -> None:
    """Order and blanks do not count, values do."""
    path = published.base / "config.json"
    before = config_digest(path)
    path.write_text(json.dumps({"transformers_version": "9", "model_type": "toy"}, indent=8))
    assert config_digest(path) == before
    path.write_text('{"model_type": "toy", "hidden_size": 1}')
    assert config_digest(path) != before


# The tokenizer.


def shifted(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    return lambda text: [one + (one == 10 + ord("b")) for one in encode(text)]


def test_a_golden_prompt_tokenized_otherwise_is_refused(published: Published) -> None:
    """A library that splits text in another way is noticed before the first message."""
    other = Encoders(encode_control, shifted(encode_plain), ENCODERS.control_ids)
    published.refused(
        published.base / "tokenizer.json",
        r"tokenizes golden prompt 1 otherwise .* first difference at token \d+",
        other,
    )


def test_each_fixed_part_is_compared(published: Published) -> None:
    """Prefix, suffix and the mark of shortening."""
    where = published.base / "tokenizer.json"
    spec = published.manifest.prompt
    for part, ids in (
        ("prefix", {"prefix_ids": (*spec.prefix_ids, 99)}),
        ("suffix", {"suffix_ids": (99, *spec.suffix_ids[1:])}),
    ):
        manifest = replace(published.manifest, prompt=replace(spec, **ids))
        with pytest.raises(AdapterRefused, match=f"tokenizes the prompt's {part} otherwise"):
            verify_tokens(manifest, ENCODERS, where)
    manifest = replace(published.manifest, prompt=replace(spec, marker_ids=(99,)))
    with pytest.raises(AdapterRefused, match="tokenizes the shortening mark otherwise"):
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
    published.refused(published.base / "tokenizer.json", "golden prompt 0 otherwise")
