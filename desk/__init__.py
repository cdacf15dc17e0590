"""filing-clerk's desk: where people see what the machine was unsure of, decide, and teach it."""

from worker.common.version import __version__ as __version__
