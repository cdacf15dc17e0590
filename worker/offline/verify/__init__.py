"""Proving that each input record has exactly one result."""
