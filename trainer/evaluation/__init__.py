"""Measure an adapter on the sealed hold-out, by the worker's contract."""
