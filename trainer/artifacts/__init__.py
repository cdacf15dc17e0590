"""What the trainer writes and reads back: one model for each file, shared by writer and readers."""
