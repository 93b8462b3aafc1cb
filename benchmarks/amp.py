"""Cost of one AMP iteration in units of the two products with X it cannot do without."""

import jax
import jax.numpy as jnp

import replicajax as rj
from benchmarks.saddle import interleaved

SIZE, ALPHA, STEPS = 4000, 2.0, 20


def report() -> None:
    print(f"\none AMP iteration, N = {SIZE}, M = {int(ALPHA * SIZE)}")
    print(f"{'':24s}{'products/ms':>12s}{'iteration/ms':>13s}{'ratio':>7s}")
    task = rj.LinearRegression(ALPHA, 1.0, 0.1)
    for dtype in (jnp.float64, jnp.float32):
        X, y, w0 = rj.draw(task, SIZE, jax.random.key(0), dtype=dtype)
        for bits in (2, 4, 8):
            print(f"{f'{bits} bits, {jnp.dtype(dtype).name}':24s}{row(X, y, w0, bits)}")
    print(
        "products: X a and Xᵀ g (as g X, the faster way), jitted; iteration: a 20th of a call of 20, checks and end included"
    )


def row(X, y, w0, bits: int) -> str:
    """AMP's closing two products with X are charged to its iterations."""
    book, beta = rj.uniform(bits, 1.5), jnp.asarray(5.0)
    forward, adjoint = jax.jit(lambda X, a: X @ a), jax.jit(lambda X, g: g @ X)

    def products():
        return forward(X, w0), adjoint(X, y)

    def iterations():
        return rj.amp(X, y, book, beta, steps=STEPS, tolerance=0.0).weights

    bare, whole = interleaved(products, iterations, seconds=8.0)
    return f"{1e3 * bare:12.2f}{1e3 * whole / STEPS:13.2f}{whole / STEPS / bare:7.2f}"
