"""With too few decisions the folder of a proposal is emptied, and can be used later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from trainer.dataset.folder import Dataset
from trainer.propose import steps
from trainer.propose.steps import Request, TooFewDecisions, propose
from worker.common.review_files import save_answers
from worker.contract.exchange import Answer
from worker.contract.text import message_sha256

QUIET = Console(quiet=True)


class TrainingBegins(Exception):
    """As far as these tests go."""


@pytest.fixture
def request_of(tmp_path: Path, sealed: Dataset, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes the request of a proposal about ``sealed``, of decisions on messages."""

    def begin(*_given: Any, **_named: Any) -> None:
        (tmp_path / "proposal" / steps.RUN).mkdir(exist_ok=True)
        raise TrainingBegins

    current = SimpleNamespace(digest="ab" * 32)
    monkeypatch.setattr(steps, "_open_before", lambda _: (sealed, current))
    monkeypatch.setattr(steps, "train", begin)

    def request(name: str, messages: Sequence[str], least: int = 20) -> Request:
        answers = [
            Answer(f"{name}-{at}", message_sha256(text), "accept", purpose="check", guideline="9")
            for at, text in enumerate(messages)
        ]
        decisions = tmp_path / f"{name}.csv"
        if not decisions.exists():
            save_answers(decisions, answers)
        recipe: Any = SimpleNamespace(to_record=lambda: {"kind": "encoder"}, base=None)
        return Request(
            store=tmp_path, datasets=(), decisions=(decisions,), messages=(),
            out=tmp_path / "proposal", recipe=recipe, rules=None,  # type: ignore[arg-type]
            canary_share=0.05, least_decisions=least, current_base="unused",
        )  # fmt: skip

    return request


def test_after_too_few_the_folder_is_free_for_more(request_of: Any, sealed: Dataset) -> None:
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


def test_a_training_that_has_begun_is_not_taken_away(request_of: Any, sealed: Dataset) -> None:
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
