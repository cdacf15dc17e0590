"""When a training stops, which epoch it keeps, and its learning rate."""

from __future__ import annotations

from itertools import pairwise

import pytest

from trainer.artifacts.training import Epoch
from trainer.training.loop import lr_factor
from trainer.training.run_folder import best_epoch, should_stop


def epochs(*figures: tuple[float, float], raw: tuple[float, ...] = ()) -> list[Epoch]:
    """Return epochs from (loss with temperature, macro-F1); ``raw`` are the losses without it."""
    return [
        Epoch(
            number=number,
            train_loss=1.0,
            sublabel_loss=None,
            validation_loss=raw[number - 1] if raw else loss,
            validation_calibrated_loss=loss,
            validation_accuracy=f1,
            validation_macro_f1=f1,
            seconds=1.0,
            examples_per_s=1.0,
            tokens_per_s=1.0,
        )
        for number, (loss, f1) in enumerate(figures, start=1)
    ]


def test_the_lowest_loss_or_the_highest_f1_is_kept() -> None:
    """Ties go to the earlier epoch, with F1 to the lower loss."""
    some = epochs((0.5, 0.8), (0.4, 0.8), (0.6, 0.9), (0.7, 0.9))
    assert best_epoch(some, "loss") == 2
    assert best_epoch(some, "macro_f1") == 3
    assert best_epoch(epochs((0.5, 0.8), (0.5, 0.8)), "loss") == 1


def test_an_overconfident_but_more_accurate_epoch_is_kept() -> None:
    """Serving applies a temperature, so overconfidence costs nothing: the epoch of 84.1 % with the
    higher raw loss is kept, not that of 82.0 %, and training continues after it."""
    some = epochs((0.93, 0.689), (0.585, 0.82), (0.56, 0.841), raw=(0.957, 0.587, 0.64))
    assert best_epoch(some, "loss") == 3
    assert best_epoch(some, "macro_f1") == 3
    sure = epochs((0.6, 0.9), (0.5, 0.9), (0.4, 0.9), raw=(0.6, 0.7, 0.8))
    assert not should_stop(sure, 1)


def test_training_goes_on_while_either_figure_gets_better() -> None:
    """The loss often rises while the labels still improve."""
    assert not should_stop(epochs((0.5, 0.8), (0.6, 0.85), (0.7, 0.9)), 2)
    assert not should_stop(epochs((0.5, 0.8), (0.6, 0.7)), 2)
    assert should_stop(epochs((0.5, 0.8), (0.6, 0.7), (0.5, 0.8)), 2)
    assert not should_stop([], 1)


def test_the_rate_climbs_then_falls_to_zero() -> None:
    """Linear warm-up, then half a cosine."""
    rates = [lr_factor(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0)
    assert all(rate >= later for rate, later in pairwise(rates[10:]))
