"""Exact risk of SGD against the simulation that reaches 1% error bars; and a trillion steps."""

from time import perf_counter

import jax
import numpy as np

from benchmarks.phase_diagram import best_of
from replicajax import scaling
from replicajax.trials import simulate_sgd

STEPS, RUNS = 100_000, 16


def report() -> None:
    problem = scaling.power_law(200, 1.5, noise=0.1)
    precision = scaling.Precision("additive", data=1e-3, parameter=1e-4, output=1e-2)
    step = 0.5 * scaling.step_limit(problem, precision)
    exact = scaling.sgd_risk(problem, precision, STEPS, step)
    fast = best_of(lambda: scaling.sgd_risk(problem, precision, STEPS, step).total, 20)
    scan = best_of(lambda: scaling.sgd_risk(problem, precision, STEPS, step, method="scan").total, 3)
    simulate_sgd(problem, precision, STEPS, float(step), runs=RUNS)  # compiled
    start = perf_counter()
    found = simulate_sgd(problem, precision, STEPS, float(step), runs=RUNS)
    slow = perf_counter() - start
    # Error bars of 1% of risk − noise; the spread of one run says how many it takes.
    excess = float(exact.excess)
    needed = max((found.error * np.sqrt(RUNS) / (0.01 * excess)) ** 2, 1.0)
    slow *= max(needed, 1.0) / RUNS
    print(f"risk of SGD: {float(problem.size):.0f} features, {STEPS:,} steps, errors at three sites")
    z = (found.mean - float(exact.total)) / found.error
    print(f"  simulation to 1% of the excess    {slow:9.2f} s   ({needed:.1f} runs; z of {RUNS}: {z:+.1f})")
    print(f"  exact, step by step               {scan:9.4f} s   {slow / scan:8,.0f} times faster")
    print(f"  exact, in stages                  {fast:9.4f} s   {slow / fast:8,.0f} times faster")
    large = scaling.power_law(1000, 1.5, noise=0.1)
    start = perf_counter()
    scaling.sgd_risk(large, precision, 10**12, step).total.block_until_ready()
    print(f"  10^12 steps, 1000 features: {perf_counter() - start:.2f} s compiling included,", end=" ")
    print(f"{best_of(lambda: scaling.sgd_risk(large, precision, 10**12, step).total, 5):.4f} s after that")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report()
