"""Turn an export of labelled messages into an immutable dataset."""
