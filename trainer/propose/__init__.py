"""Propose the next adapter: a new dataset version, a training, a comparison, and a decision."""
