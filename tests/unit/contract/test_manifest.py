"""What a manifest says, and that all of it is the adapter's identity."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.toy_adapter import toy_manifest, toy_spec
from worker.contract import (
    REDACTION,
    Calibration,
    Manifest,
    Reference,
    Thresholds,
    read_manifest,
    write_manifest,
)
from worker.contract.manifest_digest import manifest_digest


def test_the_digest_moves_with_every_part() -> None:
    """No part of an adapter can change under the same identity."""
    manifest = toy_manifest()
    others = [
        toy_manifest(name="toy-2"),
        toy_manifest(thresholds=Thresholds(0.61, 0.5)),
        toy_manifest(calibration=Calibration(1.1, 100)),
        toy_manifest(metrics={"accuracy": 0.5}),
        toy_manifest(prompt=toy_spec(33)),
    ]
    assert len({manifest.digest, *(other.digest for other in others)}) == 6
    assert toy_manifest().digest == manifest.digest


def test_redaction_is_part_of_the_identity_and_adapters_from_before_keep_theirs(
    tmp_path: Path,
) -> None:
    """A manifest without the key loads, with the digest it was deployed under; one that redacts
    says so and is another adapter."""
    plain = toy_manifest()
    path = write_manifest(tmp_path, plain)
    assert "redaction" not in json.loads(path.read_text())["prompt"]
    assert read_manifest(tmp_path).prompt.redaction is None
    assert read_manifest(tmp_path).digest == manifest_digest(json.loads(path.read_text()))
    redaction = toy_manifest(prompt=replace(toy_spec(), redaction=REDACTION))
    write_manifest(tmp_path, redaction)
    assert read_manifest(tmp_path) == redaction
    assert redaction.digest != plain.digest


def test_the_day_of_the_prompt_is_part_of_the_identity_where_there_is_one(tmp_path: Path) -> None:
    """A base whose template prints a date has it recorded; others keep their digests."""
    plain = toy_manifest()
    assert "prompt_date" not in json.loads(write_manifest(tmp_path, plain).read_text())["prompt"]
    dated = toy_manifest(prompt=replace(toy_spec(), prompt_date="2026-01-01"))
    write_manifest(tmp_path, dated)
    assert read_manifest(tmp_path) == dated
    assert dated.digest != plain.digest


def test_a_reference_is_part_of_the_identity_and_names_known_labels(tmp_path: Path) -> None:
    """Expected shares travel with the adapter; a manifest without a reference has no key for it."""
    plain = toy_manifest()
    assert "reference" not in json.loads(write_manifest(tmp_path, plain).read_text())
    label = plain.taxonomy.names[0]
    reference = Reference({label: 1.0}, {"0.05": 0.4}, {})
    carrying = toy_manifest(reference=reference)
    write_manifest(tmp_path, carrying)
    assert read_manifest(tmp_path) == carrying
    assert carrying.digest != plain.digest
    with pytest.raises(ValueError, match="labels that are not there: \\['nowhere'\\]"):
        toy_manifest(reference=replace(reference, label_shares={"nowhere": 1.0}))


def test_choice_adapters_need_no_codes() -> None:
    """An adapter trained elsewhere answers in words."""
    manifest = toy_manifest(decoding="choice", codes={})
    assert isinstance(manifest, Manifest)
