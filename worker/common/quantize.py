"""An encoder's ONNX file with 8-bit weights, as trainings and the demo make it."""

from __future__ import annotations

import logging
from pathlib import Path


def quantize(whole: Path, quantized: Path) -> None:
    """Write a float32 graph with weights of 7 bits (``QInt8``) and a scale for each column.
    Activations are quantized as it runs, to 8 bits. The same file and library versions give the
    same bytes on every processor. Raises ImportError without onnx and onnxruntime."""
    # 7 bits (reduce_range), because a processor without VNNI instructions (only AVX2) adds two
    # products in 16 bits, which saturate with 8-bit weights (255 * 127 * 2 > 32,767, but
    # 255 * 64 * 2 is not). It would answer differently from the one that calibrated the file: of
    # 660 messages 40 had another label than in float32, with 7 bits 25.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # hides the advice to preprocess, which is for images
    try:
        quantize_dynamic(
            whole, quantized, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
        )
    finally:
        root.setLevel(level)
