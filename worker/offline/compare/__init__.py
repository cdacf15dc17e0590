"""Two adapters on the same messages: where they agree, and where they do not."""
