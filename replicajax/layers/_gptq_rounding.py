"""GPTQ as what makes the codes of a file."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from replicajax.formats import BlockFormat, quantize
from replicajax.formats._tensor import StoredTensor
from replicajax.layers._gptq import gptq_tensor


def gptq_rounding(
    moments: Callable[[str, tuple[int, ...]], Any] | Mapping[str, Any], damping: float = 0.01, order: str = "natural"
) -> Callable[[str, np.ndarray, Any], StoredTensor]:
    """For `formats.measure_formats(rounding=)` and `formats.quantize_file(rounding=)`.

    Matrices whose inputs have a second moment, in formats of codebooks that keep no outliers, get codes from GPTQ; all others
    are rounded to nearest.

    Args:
      moments: (inputs, inputs) by the name of a layer's weights: a mapping, or called with a name and shape (None if unknown).
      damping, order: as in `gptq_error`.
    """
    read = (lambda name, shape: moments.get(name)) if isinstance(moments, Mapping) else moments

    def rounding(name: str, array: np.ndarray, fmt: Any) -> StoredTensor:
        rule = getattr(fmt, "rounding", fmt)
        known = array.ndim == 2 and isinstance(rule, BlockFormat) and not getattr(fmt, "outliers", 0)
        H = read(name, array.shape) if known else None
        return quantize(array, fmt) if H is None else gptq_tensor(array, H, rule, damping, order)

    return rounding
