"""filing-clerk's desk: where people see what the machine was unsure of, decide, and teach it."""

__version__ = "0.1.0"
