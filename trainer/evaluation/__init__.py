"""Measuring a labelling: figures, calibration, contenders, verdicts."""
