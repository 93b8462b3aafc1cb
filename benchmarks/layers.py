"""GPTQ against the loop one would write, and its predicted error against running it."""

from time import perf_counter

import jax
import numpy as np
from scipy.linalg import solve_triangular

import replicajax as rj
from benchmarks.phase_diagram import best_of

L = rj.layers
OUTPUTS, INPUTS = 1024, 4096


def plain(W: np.ndarray, H: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Column after column, in numpy: Cholesky's factor of the inverse, and an update of all later columns each time."""
    n, units = len(H), np.sqrt((W**2).mean(1, keepdims=True))
    damped = H + 0.01 * np.mean(np.diag(H)) * np.eye(n)
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    U = solve_triangular(upper, np.eye(n))
    left, out, cuts = W / units, np.empty_like(W), (levels[1:] + levels[:-1]) / 2
    for i in range(n):
        out[:, i] = levels[np.searchsorted(cuts, left[:, i])]
        left[:, i + 1 :] -= np.outer(left[:, i] - out[:, i], U[i, i + 1 :] / U[i, i])
    return out * units


def _layer(rng: np.random.Generator, outputs: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    X = rng.normal(size=(inputs + 64, inputs)) * np.arange(1, inputs + 1) ** -0.5
    return rng.normal(size=(outputs, inputs)), X.T @ X / len(X)


def report() -> None:
    rng, book = np.random.default_rng(0), rj.uniform(4, 2.5)
    W, H = _layer(rng, OUTPUTS, INPUTS)
    found = np.asarray(L.gptq(W, H, book))
    start = perf_counter()
    expected = plain(W, H, np.asarray(book.levels))
    slow = perf_counter() - start
    fast = best_of(lambda: L.gptq(W, H, book), 2)
    same = np.isclose(found, expected, rtol=1e-9).mean()
    print(f"GPTQ, {OUTPUTS} x {INPUTS}, 4 bits, float64")
    print(f"  a loop in numpy    {slow:7.2f} s")
    print(f"  layers.gptq        {fast:7.2f} s   {slow / fast:.1f} times faster, {same:.4%} of the weights the same")
    W, H = _layer(rng, 4096, 1024)
    run = best_of(lambda: L.gptq(W, H, book), 2)
    print("GPTQ of 4096 rows, 1024 inputs: predicted, against run")
    print(f"  layers.gptq                         {run * 1e3:9.1f} ms")
    law, eigenvalues = L.Layer(H), np.linalg.eigvalsh(H)
    for name, layer in {
        "gptq_error, rotated, from eigenvalues": L.Layer(eigenvalues, rotated=True),
        "gptq_error, of a law, from H": law,
        "gptq_error, of these 4096 rows": L.Layer(H, weights=W),
    }.items():
        predicted = best_of(lambda layer=layer: L.gptq_error(layer, book), 3)
        print(f"  {name:37s} {predicted * 1e3:7.2f} ms   {run / predicted:8.1f} times faster")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report()
