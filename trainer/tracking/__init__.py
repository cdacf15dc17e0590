"""Send figures of trainings and evaluations to MLflow or TensorBoard."""
