"""The command passes the model of names on, and refuses a proposal without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.support.propose_world import NAME_RULES
from trainer.dataset.folder import Dataset, open_dataset, open_holdout, write_dataset
from trainer.dataset.names import load_names
from trainer.errors import BadInput
from trainer.propose import steps
from trainer.propose.steps import Request, propose
from trainer.training.inputs import Inputs
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TEXT = "zq wholly unlike any other kx, Ann Example"


class TrainingBegins(Exception):
    """As far as these tests go."""


def begin(*_given: Any, **_named: Any) -> None:
    raise TrainingBegins


def test_a_proposal_learns_no_name_and_claims_what_it_did(
    tmp_path: Path, sealed: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("presidio_analyzer", reason="see test_the_lock_has_presidio")
    model = tmp_path / "names.yaml"
    model.write_text(NAME_RULES, encoding="utf-8")
    held = open_holdout(sealed, purpose="test", subject="test")
    claim = {**load_names(str(model)).facts, "messages": 999, "marked": 99}
    base = write_dataset(
        tmp_path / "base", name="b", taxonomy=sealed.taxonomy, names_redaction=claim,
        splits={"train": sealed.train, "validation": sealed.validation, "holdout": held},
    )  # fmt: skip
    monkeypatch.setattr(steps, "_open_before", lambda _: (base, SimpleNamespace(digest="ab" * 32)))
    monkeypatch.setattr(steps, "train", begin)
    save_answers(tmp_path / "d.csv", [Answer("live", message_sha256(TEXT), "accept")])
    line = {"id": "live", "message": TEXT, "label": sealed.taxonomy.names[0]}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    recipe: Any = SimpleNamespace(to_record=lambda: {"kind": "encoder"}, base=None)
    request = Request(
        store=tmp_path, datasets=(), decisions=(tmp_path / "d.csv",),
        messages=(tmp_path / "m.jsonl",), out=tmp_path / "proposal", recipe=recipe,
        rules=None, canary_share=0.05, least_decisions=1, current_base="unused",  # type: ignore[arg-type]
    )  # fmt: skip
    quiet = Console(quiet=True)
    with pytest.raises(BadInput, match=r"names\.yaml.*give it with --redact-names"):
        propose(request, quiet)
    with pytest.raises(TrainingBegins):
        propose(replace(request, redact_names=str(model)), quiet)
    new = open_dataset(request.out / steps.NEW)
    [learnt] = [each.message for each in new.train if each.id == "live"]
    assert learnt.endswith("kx, [name]")
    inputs: Any = Inputs(new, None, None, (), ())  # type: ignore[arg-type]
    said = inputs.to_record()["names_redaction"]
    total = len(new.train) + len(new.validation) + len(held)
    assert (said["messages"], said["marked"]) == (total, 1)
