"""Commands that work next to the running workers: classify, compare, verify, replay."""
