"""Straight-through training solved, against simulations with error bars of 1 %; learned levels, against a search by values."""

from time import perf_counter

import jax
import numpy as np
from scipy.optimize import minimize

import replicajax as rj
from benchmarks.phase_diagram import best_of
from replicajax.trials import simulate_straight_through

TIMES = np.array([10.0, 25.0, 50.0, 100.0])
DIMENSION, RUNS = 1000, 4


def training() -> None:
    book = rj.uniform(2, 2.0)
    start = perf_counter()
    found = rj.dynamics.straight_through(book, book, 0.2, times=TIMES)
    first = perf_counter() - start
    again = best_of(lambda: rj.dynamics.straight_through(book, book, 0.2, times=TIMES), 3)
    start = perf_counter()
    run = simulate_straight_through(
        jax.random.key(0, impl="rbg"), book, book, 0.2, times=TIMES, dimension=DIMENSION, runs=RUNS
    )
    jax.block_until_ready(run.mean)
    seconds = perf_counter() - start
    bar = float((run.error / run.mean).max())
    needed = seconds * max((bar / 0.01) ** 2, 1.0)
    print(f"straight-through training to time {TIMES[-1]:g}, 2 bits for weights and inputs")
    print(
        f"  solved, the first time  {first:8.3f} s; again {again:.3f} s; errors {np.round(found.generalization_error, 4)}"
    )
    print(f"  {RUNS} runs, d = {DIMENSION}       {seconds:8.3f} s; error bars of {bar:.2%}, of 1 % in {needed:.1f} s")
    print(f"  the same bars           {needed / again:8.0f} times longer; than a first call {needed / first:.1f} times")


def levels() -> None:
    task, other = rj.LinearRegression(2.0, 1.0, 0.1), rj.LinearRegression(1.7, 1.0, 0.1)
    print("four levels at beta 5; the first call compiles, the second is of another task")
    start = perf_counter()
    rj.optimal_codebook(other, 4, 5.0)
    first = perf_counter() - start
    best = rj.optimal_codebook(task, 4, 5.0)
    again = best_of(lambda: rj.optimal_codebook(task, 4, 5.0), 2)
    calls = 0

    def error(h: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        if not 0 < h[0] < h[1]:
            return np.inf
        return float(rj.solve(task, rj.codebook([-h[1], -h[0], h[0], h[1]]), 5.0).generalization_error)

    error(np.array([0.5, 1.5]))
    start = perf_counter()
    for begun in ([0.5, 1.5], [0.6, 1.2], [0.3, 2.0], [0.2, 0.9]):
        minimize(error, begun, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13})
    plain = perf_counter() - start
    print(f"  optimal_codebook        {first:8.3f} s; again {again:.3f} s; {float(best.generalization_error):.8f}")
    print(
        f"  Nelder-Mead, as many starts {plain:4.2f} s, {calls} solves: {plain / again:.1f} times as long, without derivatives"
    )


def report() -> None:
    training()
    levels()


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report()
