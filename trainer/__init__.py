"""The offline trainer: from hand-checked messages to an adapter that carries its own contract."""

from worker.common.version import __version__ as __version__
