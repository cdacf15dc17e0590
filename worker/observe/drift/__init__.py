"""Drift: whether the messages still resemble those that the adapter was trained on."""
