"""Long runs of made-up input."""
