"""The model, its tokenizer, and the rows that go into it."""
