"""From a dataset to an adapter."""
