"""What one writes without a library for `replicajax optimize --alpha 2 --noise 0.1 --bits 1-4`: numpy and scipy, nothing else.

The damped iteration of theory 1.1 on a grid of 513 fields, a scan of 25 widths, and scipy's bounded minimiser; to 1e-6.
"""

import numpy as np
from scipy.optimize import minimize_scalar

ALPHA, NOISE, BETA = 2.0, 0.1, 10.0
z = np.linspace(-8.5, 8.5, 513)
weight = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)


def error(width: float, bits: int) -> float:
    levels = np.linspace(-width, width, 2**bits)
    m, q, chi = 0.0, 0.0, 1.0
    for _ in range(2000):
        L, R = ALPHA / (1 + chi), 1 - 2 * m + q + NOISE
        s = np.sqrt(L**2 + ALPHA * R / (1 + chi) ** 2)
        e = BETA * (s * z[:, None] * levels - L * levels**2 / 2)
        p = np.exp(e - e.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        mean = p @ levels
        new = BETA * weight @ (p @ levels**2 - mean**2)
        change = abs(new - chi)
        q, chi = weight @ mean**2, (chi + new) / 2
        m = L * chi
        if change < 1e-7:
            break
    return 1 - 2 * m + q


for bits in range(1, 5):
    scan = np.geomspace(0.2, 6.0, 25)
    i = int(np.argmin([error(w, bits) for w in scan]))
    bounds = scan[max(i - 1, 0)], scan[min(i + 1, 24)]
    found = minimize_scalar(error, bounds=bounds, args=(bits,), method="bounded", options={"xatol": 1e-6})
    print(bits, found.x, found.fun)  # pyright: ignore[reportAttributeAccessIssue]
