"""Measuring an adapter on the sealed hold-out, through the worker's own contract."""
