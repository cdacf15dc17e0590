"""Compare the adapter with cheaper candidates on the same hold-out."""
