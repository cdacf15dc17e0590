"""The verdict follows its printed rules, also when they say: ship the baseline."""

from __future__ import annotations

import pytest

from trainer.duel.verdict import PairedResult, recommend

WEAK = PairedResult("tfidf", "baseline", 0.80, 0.10, 0.001)
CLOSE = PairedResult("combined", "baseline", 0.89, 0.01, 0.40)
CLOSER = PairedResult("embeddings-sublabels", "baseline", 0.895, 0.005, 0.60)
HOSTED = PairedResult("hosted", "recorded", 0.95, -0.05, 0.001)
HOSTED_EQUAL = PairedResult("hosted", "recorded", 0.91, -0.01, 0.50)
BEATEN_BASE = PairedResult("base-prompted", "base", 0.30, 0.60, 1e-9)


def test_an_adapter_that_beats_every_baseline_is_deployed() -> None:
    found = recommend([WEAK, BEATEN_BASE], 0.90, 0.03)
    assert found.candidate == "adapter"
    assert "tfidf, reaches 80.0%" in found.reason


def test_a_baseline_that_cannot_be_told_apart_is_shipped_the_best_of_them() -> None:
    found = recommend([WEAK, CLOSE, CLOSER], 0.90, 0.03)
    assert found.candidate == "embeddings-sublabels"
    assert "cannot be told" in found.reason
    assert "3.0%" in found.reason


def test_a_candidate_that_is_better_is_shipped_whatever_else_holds() -> None:
    found = recommend([CLOSE, HOSTED], 0.90, 0.03)
    assert found.candidate == "hosted"
    assert "leave the house" in found.reason


def test_a_hosted_model_that_is_only_equal_does_not_displace_the_adapter() -> None:
    found = recommend([WEAK, HOSTED_EQUAL], 0.90, 0.03)
    assert found.candidate == "adapter"
    assert "hosted (91.0%)" in found.reason


@pytest.mark.parametrize(("p", "wanted"), [(0.049, "adapter"), (0.05, "tfidf")])
def test_significance_starts_below_five_percent(p: float, wanted: str) -> None:
    assert (
        recommend([PairedResult("tfidf", "baseline", 0.8, 0.1, p)], 0.9, 0.03).candidate == wanted
    )
