"""What people do at the desk, as functions that a page calls."""
