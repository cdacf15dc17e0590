"""One ONNX file in memory. The only file that imports ONNX Runtime, and NumPy for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.contract import AdapterRefused
from worker.errors import SettingsError

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_OUTPUT = "logits"


class Session:
    """A graph as ``OnnxModel`` describes it. Safe to run from several threads.

    The constructor raises AdapterRefused for any other, and SettingsError where ONNX Runtime is not
    installed.
    """

    def __init__(self, path: Path, outputs: int) -> None:
        try:
            import numpy as np
            import onnxruntime
        except ImportError as error:
            raise SettingsError(
                "ONNX Runtime is not installed: pip install 'filing-clerk[encoder]'"
            ) from error
        self._np: Any = np
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library raises many kinds
            raise AdapterRefused(path, f"ONNX Runtime cannot load it: {kind_of(error)}") from error
        names = {one.name for one in self._session.get_inputs()}
        given = {one.name: one.shape for one in self._session.get_outputs()}
        if not {"input_ids", "attention_mask"} <= names <= _INPUTS or _OUTPUT not in given:
            raise AdapterRefused(
                path,
                f"takes {sorted(names)} and gives {sorted(given)}; it has to take input_ids and "
                f"attention_mask and give {_OUTPUT}",
            )
        width = given[_OUTPUT][-1]
        if isinstance(width, int) and width != outputs:
            raise AdapterRefused(path, f"gives {width} logits and the head has {outputs} outputs")
        self._has_types = "token_type_ids" in names

    def run(self, prompt_ids: Sequence[int]) -> tuple[float, ...]:
        """Return the logits of one prompt."""
        np = self._np
        ids = np.array([prompt_ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if self._has_types:
            inputs["token_type_ids"] = np.zeros_like(ids)
        (logits,) = self._session.run([_OUTPUT], inputs)
        return tuple(logits[0].tolist())


def kind_of(error: Exception) -> str:
    """Name an error without its text, which may hold token ids."""
    return type(error).__name__
