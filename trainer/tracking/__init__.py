"""Send figures of trainings and evaluations to a tracker: MLflow or Trackio."""
