"""Labels from another model: asked over HTTP, within a budget, for training only."""
