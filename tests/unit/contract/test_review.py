"""The review rule: one for serving, for evaluation and for the probes."""

import pytest

from worker.contract import Decision, Thresholds, review_reasons


def decision(confidence: float, mass: float | None, score: float | None = None) -> Decision:
    return Decision("billing", confidence, {"billing": confidence}, mass, score)


@pytest.mark.parametrize(
    ("confidence", "mass", "thresholds", "reasons"),
    [
        (0.0, 1.0, Thresholds(None, None), ()),
        (0.6, 0.5, Thresholds(0.6, 0.5), ()),
        (0.599, 0.5, Thresholds(0.6, 0.5), ("low_confidence",)),
        (0.6, 0.501, Thresholds(0.6, 0.5), ("off_label_mass",)),
        (0.1, 0.9, Thresholds(0.6, 0.5), ("low_confidence", "off_label_mass")),
        (0.1, 0.9, Thresholds(None, 0.5), ("off_label_mass",)),
        (0.1, 0.9, Thresholds(0.6), ("low_confidence",)),
        (0.9, None, Thresholds(0.6, 0.0), ()),
        (0.0, 0.0, Thresholds(0.0, 0.0), ()),
    ],
)
def test_each_threshold_gives_its_own_reason(
    confidence: float, mass: float | None, thresholds: Thresholds, reasons: tuple[str, ...]
) -> None:
    """A value on its threshold passes, a threshold that is off gives no reason, and neither does
    a mass that decoding cannot see."""
    assert review_reasons(decision(confidence, mass), thresholds) == reasons


@pytest.mark.parametrize(
    ("confidence", "score", "thresholds", "reasons"),
    [
        (0.9, -4.0, Thresholds(0.6, None, -4.0), ()),
        (0.9, -3.9, Thresholds(0.6, None, -4.0), ("out_of_scope",)),
        (0.5, 7.0, Thresholds(0.6, None, -4.0), ("low_confidence", "out_of_scope")),
        (0.9, 7.0, Thresholds(0.6, None, None), ()),
        (0.9, None, Thresholds(0.6, None, -4.0), ()),
    ],
)
def test_an_out_of_scope_score_has_a_threshold_of_its_own(
    confidence: float, score: float, thresholds: Thresholds, reasons: tuple[str, ...]
) -> None:
    """It has any sign and size, and a model without a head has none."""
    assert review_reasons(decision(confidence, None, score), thresholds) == reasons


@pytest.mark.parametrize(
    ("earlier", "heard", "reasons"),
    [
        ((), 0.0, ()),
        ((("billing", 0.7),), 0.0, ()),
        ((("delivery", 0.3),), None, ()),
        ((("delivery", 0.3),), 0.0, ("disagreement",)),
        ((("delivery", 0.3),), 0.4, ()),
        ((("delivery", 0.4),), 0.4, ("disagreement",)),
        ((("billing", 0.9), ("delivery", 0.4)), 0.4, ("disagreement",)),
    ],
)
def test_an_earlier_stage_in_another_label_is_a_reason_of_its_own(
    earlier: tuple[tuple[str, float], ...], heard: float | None, reasons: tuple[str, ...]
) -> None:
    """From the confidence on that the threshold names; None turns it off."""
    thought = tuple(Decision(label, sure, {label: sure}, None) for label, sure in earlier)
    found = Decision("billing", 0.9, {"billing": 0.9}, None, None, thought)
    assert review_reasons(found, Thresholds(0.6, review_disagreement=heard)) == reasons
