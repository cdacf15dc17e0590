"""The page about a dataset, before anything is trained."""
