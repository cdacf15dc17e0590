"""Statistics of classification: metrics, calibration, thresholds, paired tests."""
