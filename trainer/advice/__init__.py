"""Advice about the labels themselves, from reviewers' decisions, for the taxonomy's owner."""
