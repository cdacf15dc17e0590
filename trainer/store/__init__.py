"""The adapter store: publish, roll back, list."""
