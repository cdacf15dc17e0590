"""What a running worker shows of itself: metrics, health, what it is, traces."""
