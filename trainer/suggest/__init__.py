"""Before there are labels: what to label next, and which labels there could be."""
