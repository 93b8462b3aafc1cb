"""What one writes without a library for the table of `replicajax formats`: scipy's laws and quadrature.

Errors of cube-root, integer and NF4-like codebooks of 3 to 5 bits, element-wise and in blocks of 64 by the largest, for one
law named on the command line; to 1e-5.
"""

import sys
from typing import Any

import numpy as np
from scipy import stats
from scipy.integrate import quad

LAWS: dict[str, Any] = {
    "normal": stats.norm(),
    "laplace": stats.laplace(scale=0.5**0.5),
    "student-t": stats.t(5, scale=0.6**0.5),
}
ROOTS: dict[str, Any] = {
    "normal": stats.norm(scale=3**0.5),
    "laplace": stats.laplace(scale=3 / 2**0.5),
    "student-t": stats.t(1, scale=3**0.5),
}
law, root, B = LAWS[sys.argv[1]], ROOTS[sys.argv[1]], 64


def distortion(levels: np.ndarray, reach: float) -> float:
    edges = np.concatenate([[-reach], np.clip((levels[1:] + levels[:-1]) / 2, -reach, reach), [reach]])
    pieces = zip(edges[:-1], edges[1:], levels, strict=True)
    return sum(quad(lambda x, a=a: (x - a) ** 2 * law.pdf(x), low, high)[0] for low, high, a in pieces)


def block(levels: np.ndarray) -> float:
    """Of the others in a block, over the law of the largest."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    low, high = (law.isf((1 - p ** (1 / B)) / 2) for p in (1e-9, 1 - 1e-7))
    top = low + (high - low) * (1 + nodes) / 2
    F = 1 - 2 * law.sf(top)
    density = B * 2 * law.pdf(top) * F ** (B - 1) * weights * (high - low) / 2
    each = np.array([distortion(levels * M, M) for M in top])
    return float(density @ (each / F) * (B - 1) / B)


for bits in (3, 4, 5):
    n = 2**bits
    cube_root = root.ppf(np.arange(1, n + 1) / (n + 1))
    integers = np.arange(n) - (n - 1) / 2
    print(bits, distortion(cube_root, np.inf) ** 0.5)
    print(bits, block(cube_root / cube_root[-1]) ** 0.5, block(integers / integers[-1]) ** 0.5)
