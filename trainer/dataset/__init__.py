"""From an export of labelled messages to an immutable dataset."""
