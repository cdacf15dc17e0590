"""Judging a dataset before money is spent."""
