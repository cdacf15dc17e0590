"""Adapters that were published before the manifest's names changed stay what they are.

``schema1`` holds an adapter that was written by the code of before, with every kind of value that
a manifest can hold. The digests here are what that code computed: they never change.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import ENCODERS
from worker.contract import (
    MANIFEST_NAME,
    REDACTION,
    AdapterRefused,
    Manifest,
    Probe,
    load_adapter,
    read_manifest,
    verify_tokens,
    write_manifest,
)
from worker.contract.store import Pointer, find_adapter, load_stored, write_pointer

OLD = Path(__file__).parent / "schema1"
DIGEST = "70e6a5e6d52623c98b7f5b1b269cfa502124e68e456d0bbbcd14c892bfdf69d1"

Mutate = Callable[[dict[str, Any]], object]


def whole_numbers(data: dict[str, Any]) -> None:
    """Integers where the fields are floats: they counted as floats."""
    data["lora"]["alpha"] = 2
    data["calibration"].update(temperature=2, nll=1, ece=0)
    data["thresholds"].update(review_confidence=1, review_off_label_mass=1)
    data["reference"]["label_shares"]["other"] = 0
    data["reference"]["confidence"]["0.5"] = 1
    data["reference"]["off_label_mass"]["0.95"] = 1


def without_optional_keys(data: dict[str, Any]) -> None:
    """Absent keys: they counted as their defaults, or not at all."""
    for key in ("reference", "data", "metrics", "versions"):
        del data[key]
    del data["calibration"]["nll"], data["calibration"]["ece"]
    del data["thresholds"]["review_off_label_mass"]
    del data["prompt"]["masking"], data["prompt"]["normalization"]
    del data["taxonomy"]["description"], data["taxonomy"]["labels"][0]["description"]
    for golden in data["golden"]:
        del golden["truncated"]


def with_nulls(data: dict[str, Any]) -> None:
    """Null where a key could be left out."""
    data["reference"] = None
    data["prompt"]["masking"] = None
    data["calibration"]["nll"] = None
    data["thresholds"]["review_confidence"] = None


def mutated(directory: Path, mutate: Mutate) -> Manifest:
    data = json.loads((OLD / MANIFEST_NAME).read_text(encoding="utf-8"))
    mutate(data)
    (directory / MANIFEST_NAME).write_text(json.dumps(data), encoding="utf-8")
    return read_manifest(directory)


def test_an_old_adapter_is_verified_under_its_digest() -> None:
    """Its files, its tokens and its identity, by today's code."""
    manifest = load_adapter(OLD)
    verify_tokens(manifest, ENCODERS, OLD)
    assert manifest.digest == DIGEST


def test_an_old_adapter_is_served_from_its_store(tmp_path: Path) -> None:
    """The directory's name, the pointer and the manifest agree as they did."""
    shutil.copytree(OLD, tmp_path / DIGEST)
    write_pointer(
        tmp_path, Pointer(DIGEST, "old-toy", "2026-11-25T15:39:02Z", None, "ann@desk", None)
    )
    assert find_adapter(tmp_path).directory == tmp_path / DIGEST
    assert load_stored(tmp_path, DIGEST).digest == DIGEST


def test_the_old_names_are_read_as_the_new_ones() -> None:
    """A redacting adapter redacts, and its probes are tried."""
    manifest = read_manifest(OLD)
    assert manifest.prompt.redaction == REDACTION
    assert manifest.reference is not None
    assert manifest.reference.probes == (
        Probe("wo ist mein Päckchen?", "delivery"),
        Probe("I was charged twice", "billing"),
    )
    assert manifest.data["masking"] == "pii-2", "the record for people stays as it was"


@pytest.mark.parametrize(
    ("mutate", "digest"),
    [
        (whole_numbers, "b46e12a84174a479d7b8ac80629a56b0c9f71347d7c45c487e197ce5cdb3dafb"),
        (without_optional_keys, "af26e283be116f3279ce93a266609a7d3b3c7e83ed4b69edde6aeb726c1998e5"),
        (with_nulls, "6646b8d82f794d2cb55f5ad02dd1eb859d86eae80b79a3ec73af019b8c284d03"),
    ],
)
def test_every_way_of_writing_schema_1_keeps_its_digest(
    mutate: Mutate, digest: str, tmp_path: Path
) -> None:
    """Schema 1 took the digest over fields as they were read: its rules stay."""
    assert mutated(tmp_path, mutate).digest == digest


def test_an_old_adapter_that_is_altered_has_another_digest(tmp_path: Path) -> None:
    """Reading by new names does not loosen the identity."""
    altered = mutated(tmp_path, lambda data: data["reference"]["canary"][0].update(label="other"))
    assert altered.digest != DIGEST


@pytest.mark.parametrize(
    ("mutate", "problem"),
    [
        (lambda d: d["reference"].update(probes=[]), "schema 1 has the key 'probes'"),
        (lambda d: d["prompt"].update(redaction="pii-2"), "schema 1 has the key 'redaction'"),
        (lambda d: d.update(prompt="?"), "manifest.prompt must be an object"),
        (lambda d: d.update(reference=[]), "manifest.reference must be an object"),
        (lambda d: d.pop("prompt"), r"manifest lacks \['prompt'\]"),
        (lambda d: d["metrics"].update(f1=float("nan")), "not JSON compliant"),
    ],
)
def test_what_is_no_manifest_of_schema_1_is_refused(
    mutate: Mutate, problem: str, tmp_path: Path
) -> None:
    """By the file and the difference, as for the present schema."""
    with pytest.raises(AdapterRefused, match=problem):
        mutated(tmp_path, mutate)


def test_an_old_manifest_that_is_written_again_is_of_the_present_schema(tmp_path: Path) -> None:
    """It is another adapter then; what it says is the same."""
    old = read_manifest(OLD)
    data = json.loads(write_manifest(tmp_path, old).read_text(encoding="utf-8"))
    assert data["schema_version"] == 3
    assert data["kind"] == "lora-code"
    assert "probes" in data["reference"]
    assert "redaction" in data["prompt"]
    new = read_manifest(tmp_path)
    assert new == old
    assert new.digest != DIGEST
    assert new.digest == replace(old).digest, "a copy in memory is what would be written"
