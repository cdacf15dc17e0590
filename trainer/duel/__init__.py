"""The adapter against whatever is cheaper, on the same hold-out."""
