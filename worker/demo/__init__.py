"""The local stack that a demonstration and the tests run on, without anything installed."""
