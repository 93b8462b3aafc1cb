"""Cost of one saddle point: against its own map evaluations, its gradient, and the loop a user would write."""

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

import replicajax as rj
from replicajax.models import Fields, weight_averages

CASES = {"2 bits, beta 5": (2, 1.5, 5.0), "3 bits, beta 20": (3, 2.0, 20.0), "2 bits, beta inf": (2, 1.5, np.inf)}


def interleaved(*calls: Callable[[], object], seconds: float = 2.0) -> list[float]:
    """Median seconds of each call, taken in turns so that drift hits all alike."""
    for call in calls:
        jax.block_until_ready(call())
    times: list[list[float]] = [[] for _ in calls]
    end = perf_counter() + seconds
    while perf_counter() < end or len(times[0]) < 5:
        for call, log in zip(calls, times, strict=True):
            start = perf_counter()
            jax.block_until_ready(call())
            log.append(perf_counter() - start)
    return [median(log) for log in times]


def numpy_loop(alpha, noise, levels, beta, nodes=2049, damping=0.5, tolerance=1e-9) -> float:
    """The fixed-grid damped iteration of theory 1.1 that one writes first."""
    z = np.linspace(-8.5, 8.5, nodes)
    weight = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    q, chi = 0.0, 1.0
    m = 0.0
    for _ in range(5000):
        L, R = alpha / (1 + chi), 1 - 2 * m + q + noise
        s = np.sqrt(L**2 + alpha * R / (1 + chi) ** 2)
        if np.isinf(beta):
            t = L * (levels[1:] + levels[:-1]) / 2 / s
            p = np.diff(np.concatenate([[0.0], ndtr(t), [1.0]]))
            new_chi = np.sum(np.diff(levels) * np.exp(-(t**2) / 2)) / np.sqrt(2 * np.pi) / s
            new_q = p @ levels**2
        else:
            e = beta * (s * z[:, None] * levels - L * levels**2 / 2)
            p = np.exp(e - e.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            mean = p @ levels
            new_chi = beta * weight @ (p @ levels**2 - mean**2)
            new_q = weight @ mean**2
        new_m = L * new_chi
        change = max(abs(new_chi - chi), abs(new_q - q), abs(new_m - m))
        chi, q, m = (damping * old + (1 - damping) * new for old, new in ((chi, new_chi), (q, new_q), (m, new_m)))
        if change < tolerance:
            break
    return 1 - 2 * m + q


def report() -> None:
    task = rj.LinearRegression(2.0, 1.0, 0.1)
    print("one saddle point, float64, single calls (a batch amortises the dispatch)")
    head = f"{'':18s}{'steps':>6s}{'solve/ms':>10s}{'solve/map':>11s}{'grad/solve':>12s}{'numpy/solve':>13s}{'|eg gap|':>10s}"
    print(head)
    for name, case in CASES.items():
        print(f"{name:18s}{row(task, *case)}")
    print("\nnumpy: a damped iteration on 2049 nodes to 1e-9, as one writes it first")


def row(task: rj.LinearRegression, bits: int, width: float, beta: float) -> str:
    book = rj.uniform(bits, width)

    def eg(width):
        return rj.solve(task, rj.uniform(bits, width), jnp.asarray(beta)).generalization_error

    solve, gradient = jax.jit(eg), jax.jit(jax.value_and_grad(eg))
    kernel = jax.jit(lambda fields: weight_averages(task, book, fields, jnp.asarray(beta)).rounding[2:4])
    w, fields = jnp.asarray(width), Fields(*(jnp.asarray(v) for v in (1.0, 0.5, 1.0)))
    loop = partial(numpy_loop, float(task.alpha), float(task.noise), np.asarray(book.levels), beta)
    t_solve, t_gradient, t_kernel, t_numpy = interleaved(
        lambda: solve(w), lambda: gradient(w), lambda: kernel(fields), loop
    )
    steps, gap = int(rj.solve(task, book, beta).steps), abs(loop() - float(solve(w)))
    return (
        f"{steps:6d}{1e3 * t_solve:10.3f}{t_solve / t_kernel:11.1f}{t_gradient / t_solve:12.2f}"
        f"{t_numpy / t_solve:13.1f}{gap:10.1e}"
    )
