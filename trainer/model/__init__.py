"""Models, their tokenizers, and their training rows."""
