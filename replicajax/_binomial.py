"""The error bar of a share of rows."""

import math


def standard_error(share: float, rows: int) -> float:
    """As if one more row were right and one more wrong, so that it is never 0."""
    p = (share * rows + 1) / (rows + 2)
    return math.sqrt(p * (1 - p) / rows)
