"""Points a second of a phase diagram: a loop in numpy, solvers off the shelf under vmap, and `phase_diagram`.

The case: 3 bits, signal 1, noise 0.1, beta 20, 64 x 64 values of alpha 0.3 to 4 and width 0.5 to 4, float64.  All find
the same fixed point to 1e-9; the fixed grids have 2049 nodes because fewer do not reach 1e-9 everywhere.  Accuracy is
against mpmath: 50 points at which (1) of `replica._equations` is evaluated with 30 digits.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import mpmath
import numpy as np
import optimistix as optx

import replicajax as rj
from benchmarks.saddle import interleaved, numpy_loop
from replicajax.numerics import JAX
from replicajax.replica import solve_many
from replicajax.replica._batch import outcomes
from replicajax.replica._equations import Numbers, Rule, Shared, State, equations, padded, problems
from replicajax.replica._pool import Pool
from replicajax.replica._teacher import mixtures

ALPHA, WIDTH, BETA, NOISE, LEVELS = np.linspace(0.3, 4, 64), np.linspace(0.5, 4, 64), 20.0, 0.1, np.linspace(-1, 1, 8)
NODES, SAMPLE, TOLERANCE = 2049, 50, 3e-10


def best_of(call: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest call, the first (which compiles) left out."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = perf_counter()
        jax.block_until_ready(call())
        times.append(perf_counter() - start)
    return min(times)


def plain_map(order, alpha, width, nodes=NODES):
    """(m, q, chi) to (m, q, chi) on a fixed grid: what one writes first, in JAX."""
    m, q, chi = order
    z = jnp.linspace(-8.5, 8.5, nodes)
    weight = jnp.exp(-(z**2) / 2) * (z[1] - z[0]) / jnp.sqrt(2 * jnp.pi)
    L, R, levels = alpha / (1 + chi), 1 - 2 * m + q + NOISE, width * LEVELS
    s = jnp.sqrt(L**2 + alpha * R / (1 + chi) ** 2)
    p = jax.nn.softmax(BETA * (s * z[:, None] * levels - L * levels**2 / 2), axis=1)
    mean = p @ levels
    chi = BETA * weight @ (p @ levels**2 - mean**2)
    return jnp.stack([L * chi, weight @ mean**2, chi])


START = np.array([0.0, 0.0, 1.0])


def vmapped_loop(alpha, width):
    def step(carry):
        order, _, n = carry
        new = plain_map(order, alpha, width)
        return (order + new) / 2, jnp.abs(new - order).max(), n + 1

    order, change, _ = jax.lax.while_loop(lambda c: (c[1] > TOLERANCE) & (c[2] < 5000), step, (START, jnp.inf, 0))
    return order, change <= TOLERANCE


def newton(alpha, width):
    residual = lambda order, _: plain_map(order, alpha, width) - order  # noqa: E731
    found = optx.root_find(residual, optx.Newton(TOLERANCE, TOLERANCE), START, max_steps=256, throw=False)
    return found.value, found.result == optx.RESULTS.successful


def damped(alpha, width):
    half = lambda order, _: (plain_map(order, alpha, width) + order) / 2  # noqa: E731
    found = optx.fixed_point(half, optx.FixedPointIteration(TOLERANCE, TOLERANCE), START, max_steps=2000, throw=False)
    return found.value, found.result == optx.RESULTS.successful


def anderson(alpha, width):
    solver = jaxopt.AndersonAcceleration(lambda order: plain_map(order, alpha, width), tol=TOLERANCE, maxiter=500)
    order, state = solver.run(jnp.asarray(START))
    return order, state.error <= TOLERANCE


def exact(alpha: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, float]:
    """eg at the solution of (1) in mpmath: ours, corrected by one Newton step; and the largest correction."""
    n = alpha.size
    tasks = jax.vmap(lambda a: rj.LinearRegression(a, 1.0, NOISE))(alpha)
    books = jax.vmap(lambda w: rj.codebook(w * jnp.asarray(LEVELS)))(width)
    tasks, books = jax.tree.map(np.asarray, (tasks, books))
    found, at = solve_many(tasks, books, np.full(n, BETA)), outcomes(tasks, books, np.full(n, BETA))
    state, ((f_L, f_t), (g_L, g_t)) = at.state, at.jacobian
    corrected = []
    for i in range(n):
        f, g = _residual(float(alpha[i]), float(width[i]), float(state.log_L[i]), float(state.log_t[i]))
        d_log_t = (g_L[i] * f - f_L[i] * g) / (f_L[i] * g_t[i] - f_t[i] * g_L[i])
        corrected.append(found.generalization_error[i] + alpha[i] * np.exp(state.log_t[i]) * d_log_t)
    corrected = np.array(corrected)
    return corrected, float(np.abs(corrected - found.generalization_error).max())


def _residual(alpha: float, width: float, log_L: float, log_t: float) -> tuple[float, float]:
    """(1) with 30 digits, the integrals cut at the thresholds where the integrand is steep."""
    with mpmath.workdps(30):
        L, t = mpmath.exp(log_L), mpmath.exp(log_t)
        s, levels = L * mpmath.sqrt(1 + t), [mpmath.mpf(float(width * level)) for level in LEVELS]

        def averages(h):
            top = max(h * a - L * a * a / 2 for a in levels)
            p = [mpmath.exp(BETA * (h * a - L * a * a / 2 - top)) for a in levels]
            mean = mpmath.fdot(p, levels) / mpmath.fsum(p)
            return mean, mpmath.fdot(p, [(a - mean) ** 2 for a in levels]) / mpmath.fsum(p)

        far = 9 * s
        thresholds = [L * (a + b) / 2 for a, b in pairwise(levels)]
        cuts: list = [-far, *(c for c in thresholds if abs(c) < far), far]
        cuts = sorted({*cuts, *((a + b) / 2 for a, b in pairwise(cuts))})
        density = lambda h: mpmath.npdf(h, 0, s)  # noqa: E731
        q: Any = mpmath.quad(lambda h: density(h) * averages(h)[0] ** 2, cuts)
        chi: Any = mpmath.quad(lambda h: BETA * density(h) * averages(h)[1], cuts)
        R = 1 - 2 * L * chi + q + mpmath.mpf(NOISE)
        f, g = log_L + mpmath.log(1 + chi) - mpmath.log(alpha), log_t - mpmath.log(R / alpha)
        return float(f), float(g)


def task() -> rj.LinearRegression:
    """Made when asked for: at import float64 may not be on yet."""
    return rj.LinearRegression(1.0, 1.0, NOISE)


def report() -> None:
    grid = {"alpha": ALPHA, "width": WIDTH}
    alphas, widths = (x.ravel() for x in np.meshgrid(ALPHA, WIDTH, indexing="ij"))
    sample = np.random.default_rng(0).choice(alphas.size, SAMPLE, replace=False)
    sample[0] = alphas.size - 1  # the hardest corner for a fixed grid
    a, w = alphas[sample], widths[sample]
    truth, _ = exact(a, w)

    print("phase diagram, 3 bits, beta 20, 64 x 64 points, float64; error of eg against mpmath on 50 points")
    print(f"{'':42s}{'points/s':>10s}{'ours /':>9s}{'error':>10s}{'unsolved':>10s}")
    start = perf_counter()
    full = rj.phase_diagram(task(), 3, BETA, axes=grid)
    first = perf_counter() - start
    start = perf_counter()
    rj.phase_diagram(task(), 3, BETA, axes={"alpha": ALPHA[:9] + 0.01, "width": WIDTH[:9] + 0.01})
    again = perf_counter() - start
    ours = alphas.size / best_of(lambda: rj.phase_diagram(task(), 3, BETA, axes=grid).generalization_error.values)
    eg = full.generalization_error.values.ravel()
    row("phase_diagram, every observable", ours, ours, np.abs(eg[sample] - truth).max(), int((~full.converged).sum()))

    def loop(nodes):
        return np.array(
            [numpy_loop(x, NOISE, y * LEVELS, BETA, nodes, tolerance=TOLERANCE) for x, y in zip(a, w, strict=True)]
        )

    for nodes in (257, NODES):
        start = perf_counter()
        found = loop(nodes)
        row(f"numpy loop, {nodes} nodes", SAMPLE / (perf_counter() - start), ours, np.abs(found - truth).max(), 0)
    for name, solver in {
        "vmap of a damped loop": vmapped_loop,
        "vmap of optimistix Newton": newton,
        "vmap of optimistix damped iteration": damped,
        "vmap of jaxopt Anderson": anderson,
    }.items():
        many = jax.jit(jax.vmap(solver))
        seconds = best_of(lambda many=many: many(a, w), 1)
        (m, q, _), ok = many(a, w)[0].T, np.asarray(many(a, w)[1])
        error = np.abs(1 - 2 * m + q - truth)[ok].max()
        row(f"{name}, {NODES} nodes", SAMPLE / seconds, ours, error, int((~ok).sum()))
    print(f"({SAMPLE} points for the slow ones; the whole grid for phase_diagram)")

    more = {"alpha": np.linspace(0.3, 4, 256), "width": np.linspace(0.5, 4, 256)}
    cold = rj.phase_diagram(task(), 3, np.inf, axes=more)
    for name, beta in (("beta 20", BETA), ("beta = inf", np.inf)):
        seconds = best_of(lambda beta=beta: rj.phase_diagram(task(), 3, beta, axes=more).generalization_error.values, 2)
        print(f"256 x 256 points, {name:10s} {256**2 / seconds:10,.0f} points/s")
    print(
        f"  (beta = inf: {float(cold.interpolates.mean()):.0%} of them interpolate and are solved at finite temperature)"
    )
    print(f"first call {first:.1f} s with compilation; another set of axes of the same bits {again:.2f} s")
    broken()
    print(f"cost in units of (map evaluations x one jitted map on the batch): {multiple_of_kernel():.2f}")
    print(f"one pathological point among 100,000: {pathological():+.1%} of the time")
    code = "from benchmarks.phase_diagram import large; large()"
    print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())


def broken(points: int = 1024) -> None:
    """One step of breaking at beta = inf, points a second, the second time."""
    rng = np.random.default_rng(0)

    def once(seed: int) -> float:
        axes = {"alpha": np.sort(rng.uniform(0.8, 4, points // 32)), "width": np.sort(rng.uniform(0.5, 3, 32))}
        start = perf_counter()
        found = rj.phase_diagram(rj.LinearRegression(2.0, 1.0, NOISE), 2, np.inf, axes=axes, breaking=1)
        assert found.converged.all(), seed
        return points / (perf_counter() - start)

    print(f"one step of breaking, beta = inf, 2 bits: {[once(seed) for seed in range(3)][-1]:,.0f} points/s")


def row(name: str, rate: float, ours: float, error: float, unsolved: int) -> None:
    print(f"{name:42s}{rate:10,.0f}{ours / rate:9,.0f}{error:10.1e}{unsolved:10d}", flush=True)


def batch(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    tasks = jax.vmap(lambda a: rj.LinearRegression(a, 1.0, NOISE))(rng.uniform(0.3, 4, n))
    books = jax.vmap(lambda w: rj.codebook(w * jnp.asarray(LEVELS)))(rng.uniform(0.5, 4, n))
    return jax.tree.map(np.asarray, (tasks, books, np.full(n, BETA)))


def multiple_of_kernel(n: int = 16384) -> float:
    """Time of `solve_many` over (mean map evaluations x time of one evaluation of (1) on all points)."""
    problem = batch(n)
    tasks, books, betas = problem
    found = outcomes(*problem)
    shared = Shared.of(books.levels, centred=True)

    def one_map(shared, numbers, teacher, levels, betas, log_L, log_t):
        p = problems(JAX, numbers, teacher, levels, shared.count, betas, betas < 0)
        return equations(p, State(log_L, log_t), Rule(JAX, shared, True, everything=False)).residual

    numbers = Numbers(*(getattr(tasks, name) for name in Numbers._fields))
    inputs = numbers, mixtures(tasks), padded(books.levels), betas, found.state.log_L, found.state.log_t
    kernel = jax.tree_util.Partial(one_map, shared)
    everything = np.ones(n, bool)
    t_map = best_of(lambda: Pool(1).run(kernel, inputs, everything))
    return best_of(lambda: solve_many(*problem)) / (float(found.steps.mean()) * t_map)


def pathological(n: int = 100_000) -> float:
    """Extra time when one point sits where 2 bits cross over between two branches and Newton's method gets lost."""
    tasks, books, betas = batch(n)
    books = jax.vmap(lambda w: rj.codebook(w * jnp.linspace(-1, 1, 4)))(books.levels[:, -1])
    tasks, books = jax.tree.map(np.array, (tasks, books))
    clean = jax.tree.map(np.array, (tasks, books, betas))
    tasks.alpha[n // 2], betas[n // 2] = 0.93251927, 122.98571174
    books.levels[n // 2] *= 2.9577711 / books.levels[n // 2, -1]
    assert solve_many(tasks, books, betas).steps[n // 2] > 100
    with_it, without = interleaved(lambda: solve_many(tasks, books, betas), lambda: solve_many(*clean), seconds=30.0)
    return with_it / without - 1


def large(n: int = 3000, beta: float = np.inf) -> None:
    """Resident memory of a large grid with every observable, 0.93 GiB of results among it, in a process of its own."""
    jax.config.update("jax_enable_x64", True)
    start = perf_counter()
    axes = {"alpha": np.linspace(0.3, 4, n), "width": np.linspace(0.5, 4, n)}
    sweep = rj.phase_diagram(task(), 3, beta, axes=axes)
    solved = int(sweep.converged.values.sum()) / n**2
    seconds, peak = perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{n} x {n} points at beta = {beta:g}: {n**2 / seconds:,.0f} points/s, {solved:.4%} solved, peak {peak:.2f} GiB"
    )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report()
