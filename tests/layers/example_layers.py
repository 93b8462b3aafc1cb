"""Layers whose answers are known, and the algorithms as anyone would write them."""

import numpy as np

import replicajax as rj

f = rj.formats

LAWS = {
    "normal": (f.Normal(), lambda rng, shape: rng.normal(size=shape)),
    "laplace": (f.Laplace(), lambda rng, shape: rng.laplace(size=shape)),
    "t5": (f.StudentT(5.0), lambda rng, shape: rng.standard_t(5, size=shape)),
}
WIDTHS = {2: 1.5, 3: 2.1, 4: 2.7, 8: 4.5}


def power_law(inputs: int, exponent: float) -> np.ndarray:
    eigenvalues = np.arange(1, inputs + 1.0) ** -exponent
    return eigenvalues / eigenvalues.mean()


def turned(eigenvalues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """H with these eigenvalues and axes at random."""
    Q, R = np.linalg.qr(rng.normal(size=(eigenvalues.size, eigenvalues.size)))
    Q = Q * np.sign(np.diag(R))
    return Q * eigenvalues @ Q.T


def plain_gptq(
    W: np.ndarray, H: np.ndarray, levels: np.ndarray, scales: np.ndarray, damping: float, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Column by column, the inverse of what is left of H made anew from the last one.  Weights and codes."""
    W, n = W.copy(), len(H)
    left = list(order)
    codes = np.zeros(W.shape, int)
    damped = H + damping * np.mean(np.diag(H)) * np.eye(n)
    while left:
        i, rest = left[0], left[1:]
        inverse = np.linalg.inv(damped[np.ix_(left, left)])
        scaled = W[:, i] / scales[:, i]
        codes[:, i] = np.abs(scaled[:, None] - levels).argmin(1)
        error = W[:, i] - scales[:, i] * levels[codes[:, i]]
        W[:, rest] -= np.outer(error, inverse[0, 1:] / inverse[0, 0])
        left = rest
    return scales * levels[codes], codes
