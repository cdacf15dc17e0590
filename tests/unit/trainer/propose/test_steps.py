"""The steps up to the training: names in new messages, and too few decisions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
from trainer.propose.steps import Request, TooFewDecisions, propose
from trainer.training.inputs import Inputs
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256

QUIET = Console(quiet=True)


class TrainingBegins(Exception):
    """As far as these tests go."""


RequestOf = Callable[..., Request]


@pytest.fixture
def request_of(tmp_path: Path, sealed: Dataset, monkeypatch: pytest.MonkeyPatch) -> RequestOf:
    """Return a function (name, messages) -> the request of a proposal about ``sealed`` or another
    dataset, of decisions on these messages."""

    def begin(*_given: Any, **_named: Any) -> None:
        (tmp_path / "proposal" / steps.RUN).mkdir(exist_ok=True)
        raise TrainingBegins

    monkeypatch.setattr(steps, "train", begin)

    def request(
        name: str, messages: Sequence[str], least: int = 20, dataset: Dataset = sealed
    ) -> Request:
        current = SimpleNamespace(digest="ab" * 32)
        monkeypatch.setattr(steps, "_open_before", lambda _: (dataset, current))
        decisions = tmp_path / f"{name}.csv"
        if not decisions.exists():
            save_answers(
                decisions,
                [
                    Answer(f"{name}-{at}", message_sha256(text), "accept", purpose="check")
                    for at, text in enumerate(messages)
                ],
            )
        recipe: Any = SimpleNamespace(to_record=lambda: {"kind": "encoder"}, base=None)
        return Request(
            store=tmp_path, datasets=(), decisions=(decisions,), messages=(),
            out=tmp_path / "proposal", recipe=recipe, rules=None,  # type: ignore[arg-type]
            canary_share=0.05, least_decisions=least, current_base="unused",
        )  # fmt: skip

    return request


def test_after_too_few_the_folder_is_free_for_more(request_of: RequestOf, sealed: Dataset) -> None:
    known = [row.message for row in sealed.train]
    strange = [f"nobody knows message {number}" for number in range(30)]
    for request in (
        request_of("five", known[:5]),
        request_of("few-that-say-something", [*known[:5], *strange]),
    ):
        with pytest.raises(TooFewDecisions, match="5 decisions"):
            propose(request, QUIET)
        assert list(request.out.iterdir()) == []
    with pytest.raises(TrainingBegins):
        propose(request_of("enough", known), QUIET)


def test_a_training_that_has_begun_is_not_taken_away(
    request_of: RequestOf, sealed: Dataset
) -> None:
    known = [row.message for row in sealed.train]
    request = request_of("enough", known)
    with pytest.raises(TrainingBegins):
        propose(request, QUIET)
    made = sorted(path.name for path in request.out.iterdir())
    with pytest.raises(TooFewDecisions):
        propose(request_of("enough", known, least=1000), QUIET)
    assert sorted(path.name for path in request.out.iterdir()) == made == [
        steps.NEW, steps.REQUEST, steps.RUN,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_proposal_learns_no_name_and_claims_what_it_did(
    tmp_path: Path, sealed: Dataset, request_of: RequestOf
) -> None:
    pytest.importorskip("presidio_analyzer", reason="see test_the_lock_has_presidio")
    model = tmp_path / "names.yaml"
    model.write_text(NAME_RULES, encoding="utf-8")
    held = open_holdout(sealed, purpose="test", subject="test")
    base = write_dataset(
        tmp_path / "base", name="b", taxonomy=sealed.taxonomy,
        names_redaction={**load_names(str(model)).facts, "messages": 999, "marked": 99},
        splits={"train": sealed.train, "validation": sealed.validation, "holdout": held},
    )  # fmt: skip
    text = "zq wholly unlike any other kx, Ann Example"
    line = {"id": "live", "message": text, "label": sealed.taxonomy.names[0]}
    (tmp_path / "m.jsonl").write_text(json.dumps(line), encoding="utf-8")
    request = request_of("named", [text], least=1, dataset=base)
    request = replace(request, messages=(tmp_path / "m.jsonl",))
    with pytest.raises(BadInput, match=r"names\.yaml.*give it with --redact-names"):
        propose(request, QUIET)
    with pytest.raises(TrainingBegins):
        propose(replace(request, redact_names=str(model)), QUIET)
    new = open_dataset(request.out / steps.NEW)
    [learnt] = [each.message for each in new.train if each.id == "live"]
    assert learnt.endswith("kx, [name]")
    said: Any = Inputs(new, None, None, (), (), ()).to_record()["names_redaction"]  # type: ignore[arg-type]
    total = len(new.train) + len(new.validation) + len(held)
    assert (said["messages"], said["marked"]) == (total, 1)
