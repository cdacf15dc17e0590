"""A cascade's manifest and its stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import cascade_of, toy_manifest
from worker.contract import (
    AdapterRefused,
    Decision,
    Manifest,
    Reference,
    Thresholds,
    read_manifest,
    write_manifest,
)
from worker.contract.verify import prompted_by, verify_files

SMALL, LARGE = toy_manifest(name="small"), toy_manifest(name="large")


def decision(label: str, confidence: float, **more: Any) -> Decision:
    return Decision(label, confidence, {label: confidence}, None, **more)


def place(store: Path, *manifests: Manifest) -> Path:
    """Write adapters side by side; return the directory of the last."""
    for manifest in manifests:
        (store / manifest.digest).mkdir()
        write_manifest(store / manifest.digest, manifest)
    return store / manifests[-1].digest


def test_a_cascade_reads_back_with_the_prompt_of_its_first_stage(tmp_path: Path) -> None:
    made = cascade_of(SMALL, LARGE)
    where = place(tmp_path, SMALL, LARGE, made)
    again = read_manifest(where)
    assert again == made
    assert again.digest == made.digest
    assert (again.answers_with, again.needs_base) == ("stages", False)
    assert prompted_by(where, again) == (tmp_path.resolve() / SMALL.digest, SMALL)
    assert prompted_by(where, SMALL) == (where, SMALL)
    assert verify_files(where) == made
    alone = json.loads((tmp_path / SMALL.digest / "manifest.json").read_text())
    assert "stages" not in alone


FIRST, LAST = cascade_of(SMALL, LARGE).stages


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"stages": (LAST,)}, "1 entries"),
        ({"stages": (LAST, FIRST)}, "every stage but the last"),
        ({"stages": (FIRST, replace(LAST, digest=FIRST.digest))}, "names an adapter twice"),
        ({"stages": (replace(FIRST, digest="../" + "a" * 61), LAST)}, "not a digest"),
        ({"stages": (replace(FIRST, sure_from=0.0), LAST)}, "sure_from is 0.0"),
        ({"lora": LARGE.lora}, "kind 'cascade' has no lora"),
        ({"reference": Reference({}, {}, {"0.95": 0.1})}, "a cascade has no quantiles"),
    ],
)
def test_malformed_cascades_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        cascade_of(SMALL, LARGE, **changes)


def test_a_stage_is_sure_by_confidence_and_by_what_fits() -> None:
    stage = replace(
        cascade_of(SMALL, LARGE, sure_from=0.8).stages[0], thresholds=Thresholds(None, None, 1.0)
    )
    assert stage.is_sure(decision("billing", 0.8, out_of_scope=1.0))
    assert not stage.is_sure(decision("billing", 0.79, out_of_scope=0.0))
    assert not stage.is_sure(decision("billing", 0.99, out_of_scope=1.1))
    assert cascade_of(SMALL, LARGE).stages[1].is_sure(decision("billing", 0.1))


@pytest.mark.parametrize("which", ["missing", "another digest", "another taxonomy", "prompt"])
def test_a_cascade_whose_stages_are_not_those_it_was_made_of_is_refused(
    which: str, tmp_path: Path
) -> None:
    made = cascade_of(SMALL, LARGE)
    if which == "missing":
        where, problem = place(tmp_path, SMALL, made), "missing: publish it, it is stage large"
    elif which == "another digest":
        where, problem = place(tmp_path, SMALL, LARGE, made), "stored under another"
        write_manifest(tmp_path / LARGE.digest, replace(LARGE, name="altered"))
    elif which == "another taxonomy":
        taxonomy = replace(LARGE.taxonomy, version="2")
        made = cascade_of(SMALL, LARGE, taxonomy=taxonomy)
        where, problem = place(tmp_path, SMALL, LARGE, made), "another kind or taxonomy"
    else:
        made = cascade_of(SMALL, LARGE, golden=SMALL.golden[:1])
        where, problem = place(tmp_path, SMALL, LARGE, made), "differs from its first stage"
    with pytest.raises(AdapterRefused, match=problem):
        verify_files(where)
