"""Combine two trained adapters into a cascade, from their answers to the same messages."""
