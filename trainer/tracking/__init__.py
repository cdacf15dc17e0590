"""Figures of trainings and evaluations for a tracker: MLflow or Trackio."""
