"""filing-clerk's worker: support messages in from Kafka, one label of a fixed set out."""

from worker.common.version import __version__ as __version__
