"""The similarity from which two messages are near-duplicates."""

from __future__ import annotations

SIMILARITY = 0.7
"""The Jaccard index of two messages' four-letter shingles. Measured on ten thousand bank support
messages: the pairs above it are rewordings ("what do I do if my card is stolen", "... was stolen"),
about one in a hundred of them with different labels, and no cluster is larger than ten messages. At
0.6 there are chains of up to 47 messages, at 0.5 of a thousand."""
