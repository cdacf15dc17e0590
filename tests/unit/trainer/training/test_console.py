"""What a person sees of a training, on a terminal and in a log."""

from __future__ import annotations

import pytest
from rich.console import Console

from tests.support.trainer_world import training_json
from trainer.artifacts.training import TrainingRecord
from trainer.training.console import PlainProgress, describe_review, make_progress


def test_what_a_threshold_sends_to_review_and_what_its_certainty_costs() -> None:
    """Where both thresholds are one, the first alone."""
    record = training_json()
    earlier = describe_review(TrainingRecord.model_validate(record, strict=False))
    assert earlier == ("review: 5.0% of validation goes to a person, 96.0% of the rest are right")
    record["validation"] |= {"point_accepted_share": 0.98}
    told = describe_review(TrainingRecord.model_validate(record, strict=False))
    assert told.startswith(f"{earlier} (2.0% if the threshold were chosen by the point value")
    record["validation"] |= {"accepted_share": 0.0, "accepted_precision": None}
    nothing = describe_review(TrainingRecord.model_validate(record, strict=False))
    assert nothing.startswith("review: 100.0% of validation goes to a person (2.0% if")


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = make_progress(Console(force_terminal=False))
    assert isinstance(progress, PlainProgress)
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done [here]")
    assert capsys.readouterr().out == "epoch 1/3  done [here]\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = make_progress(Console(force_terminal=True, width=100))
    progress.start(1, 3, 4)
    progress.advance(2, 0.5, 1.0)
    progress.finish("done")
    assert "epoch 1/3  done" in capsys.readouterr().out
