"""Charts as SVG text: pure functions from numbers to a ``Chart``, without a plotting library."""
