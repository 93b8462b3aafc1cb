"""The lower convex hull of points in a plane, as far as it falls."""

import numpy as np


def falling_hull(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of its corners, x increasing and y falling; points that are not finite in y, or on a chord, are none."""
    hull: list[int] = []
    for c in np.lexsort((y, x)):
        if not np.isfinite(y[c]) or (hull and y[c] >= y[hull[-1]]):
            continue
        while len(hull) > 1:
            a, b = hull[-2:]
            if (y[a] - y[b]) * (x[c] - x[b]) > (y[b] - y[c]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(int(c))
    return hull
