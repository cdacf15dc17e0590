"""The base that an adapter was trained on: described by its files, and any other one refused."""

import json
from pathlib import Path

import pytest

from tests.support.published import Published
from worker.contract import AdapterRefused, describe_base, verify_base
from worker.contract.base import config_digest


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
    published.refused(path, "a weight file that the adapter's base does not have")


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
