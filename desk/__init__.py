"""filing-clerk's desk: where people see what the machine was unsure of, decide, and teach it."""

from worker import __version__ as __version__
