"""filing-clerk's worker: support messages in from Kafka, one label of a fixed set out."""

__version__ = "0.1.0"
