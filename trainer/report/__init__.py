"""One self-contained HTML page about a run: what it can do, where it errs, how it was made."""
