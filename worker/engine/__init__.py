"""The model side: a small port, the real engine behind it and a fake one for tests."""
