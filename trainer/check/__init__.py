"""Check a dataset before training."""
