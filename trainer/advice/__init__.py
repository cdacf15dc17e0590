"""What decisions say about the labels themselves, for the owner of the taxonomy."""
