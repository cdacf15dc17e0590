"""Statistics of a labelling: figures of merit, calibration, thresholds, paired tests."""
