"""What runs outside of the stream: classify files of messages, and compare two adapters."""
