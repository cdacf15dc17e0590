"""Steering: whether a sentence that a customer adds can choose the label."""
