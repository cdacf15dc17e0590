"""Adapters that were published before the manifest named a kind stay what they are.

``schema2`` holds an adapter that was written by the code of before, with every kind of value that
its manifest can hold. The digest here is what that code computed: it never changes.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import ENCODERS
from worker.contract import (
    MANIFEST_NAME,
    AdapterRefused,
    load_adapter,
    read_manifest,
    verify_tokens,
    write_manifest,
)

OLD = Path(__file__).parent / "schema2"
DIGEST = "f7f1a77968de451bf8d02c4ae01b93f138b7388ee0832c58a22fbd01dc74003a"


def test_an_adapter_of_before_is_served_under_its_digest() -> None:
    """Files, tokens and digest are verified; what it was is ``lora-code``."""
    manifest = load_adapter(OLD)
    verify_tokens(manifest, ENCODERS, OLD)
    assert manifest.digest == DIGEST
    assert (manifest.kind, manifest.decoding, manifest.head) == ("lora-code", "code", None)
    assert manifest.needs_base
    assert manifest.reference is not None
    assert manifest.reference.out_of_scope == {}


def test_written_again_it_is_of_the_present_schema(tmp_path: Path) -> None:
    """It is another adapter then; what it says is the same."""
    old = read_manifest(OLD)
    data = json.loads(write_manifest(tmp_path, old).read_text(encoding="utf-8"))
    assert (data["schema_version"], data["kind"]) == (3, "lora-code")
    new = read_manifest(tmp_path)
    assert new == old
    assert new.digest != DIGEST
    assert new.digest == replace(old).digest


@pytest.mark.parametrize("key", ["kind", "head"])
def test_keys_of_schema_3_are_refused(key: str, tmp_path: Path) -> None:
    """They meant nothing when it was written: somebody has put them there since."""
    shutil.copytree(OLD, tmp_path / "adapter")
    path = tmp_path / "adapter" / MANIFEST_NAME
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, key: "lora-code"}), encoding="utf-8")
    with pytest.raises(AdapterRefused, match=f"schema 2 has the key '{key}'"):
        read_manifest(path.parent)
