"""The first answer: fresh processes, against the script one would write, and every public call before anything is compiled.

A time is that of a whole process; ratios are of neighbours in one run, since absolute times drift.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

SCRIPTS = Path(__file__).parent / "scripts"
COMMAND = Path(sys.executable).parent / "replicajax"
REPEATS = 3
OPTIMIZE = "optimize --alpha 2 --noise 0.1 --bits 1-4"
LAWS = {"normal": "", "laplace": "", "student-t": "--df 5"}

_PROLOGUE = """
import sys, time
import jax
import jax.monitoring
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import replicajax as rj
from scipy.optimize import LinearConstraint
f, s = rj.formats, rj.scaling
task, book = rj.LinearRegression(2.0, 1.0, 0.1), rj.uniform(2, 1.5)
rows = np.random.default_rng(0).normal(size=(200, 50)) / 50**0.5, np.arange(200.0) % 7 / 2 - 1.5
L = rj.layers
W, H = np.random.default_rng(1).normal(size=(384, 384)), np.diag(np.arange(1, 385.0) ** -0.7)
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(seconds) if event.endswith("backend_compile_duration") else None
)
def eg(width):
    return rj.solve(task, rj.uniform(2, width), 5.0).generalization_error
even = LinearConstraint([[1.0, -2.0, 1.0, 0.0]], 0.0, 0.0)
axes = {"alpha": np.linspace(0.3, 4, 32), "width": np.linspace(0.5, 4, 32)}
def measure(call):
    compiled.clear()
    start = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(call()))
    return time.perf_counter() - start, len(compiled)
"""

CALLS = {
    "solve": "rj.solve(task, book, 5.0)",
    "its gradient": "jax.grad(eg)(1.5)",
    "jitted value_and_grad": "jax.jit(jax.value_and_grad(eg))(1.5)",
    "optimal_width, 2 bits": "rj.optimal_width(task, 2, 5.0)",
    "optimal_bits, 1 to 4": "rj.optimal_bits(task, 5.0, bits=range(1, 5))",
    "phase_diagram, 32 x 32": "rj.phase_diagram(task, 3, 20.0, axes=axes)",
    "  with gradients and optimum": "rj.phase_diagram(task, 3, 20.0, axes=axes, gradients=['width'], optimum='width')",
    "stability_line, 5 points": "rj.stability_line(task, 2, 10.0, unknown='width', between=(.2, 8.), axes={'alpha': [1, 2]})",
    "state_evolution": "rj.state_evolution(task, book, 5.0)",
    "solve, logistic loss": "rj.solve(rj.Classification(3.0, noise=0.2), book, 5.0)",
    "solve, rotated features": "rj.solve(rj.LinearRegression(2.0, noise=0.1, features=rj.Features([0.2, 2.0])), book, 5.0)",
    "one step of breaking, beta inf": "rj.solve(task, book, jnp.inf, breaking=1)",
    "  its gradient": "jax.grad(lambda w: rj.solve(task, rj.uniform(2, w), jnp.inf, breaking=1).generalization_error)(1.5)",
    "  best width": "rj.optimal_width(task, 2, jnp.inf, breaking=1)",
    "GivenData, 200 x 50": "rj.GivenData(*rows).eigenvalues",
    "  and its solve": "rj.solve(rj.GivenData(*rows), book, 5.0)",
    "  and its best width": "rj.optimal_width(rj.GivenData(*rows), 2, 5.0)",
    "  and a 32 x 32 diagram": "rj.phase_diagram(rj.GivenData(*rows), 2, axes={'beta': axes['alpha'], 'width': axes['width']})",
    "vamp, 200 x 50": "rj.vamp(*rows, book, 5.0)",
    "amp, 400 x 200": "rj.amp(*rj.draw(task, 200, jax.random.key(0))[:2], book, 5.0)",
    "gibbs, 400 x 200": "rj.gibbs(*rj.draw(task, 200, jax.random.key(0))[:2], book, 5.0)",
    "from_data": "rj.LinearRegression.from_data(np.random.default_rng(0).normal(size=(200, 9)), np.arange(200.0) % 7)",
    "error of a codebook": "f.relative_rms_error(f.Normal(), f.cube_root(f.Normal(), 4))",
    "error of NF4 in blocks": "f.relative_rms_error(f.StudentT(5.0), f.BlockFormat(f.nf4(), 64, 'absmax', 'bf16'))",
    "error of Q4_0": "f.relative_rms_error(f.StudentT(5.0), f.BlockFormat(f.integer(4), 32, 'signmax', 'fp16'))",
    "error of Q4_1": "f.relative_rms_error(f.StudentT(5.0), f.standard('Q4_1'))",
    "error of MXFP4": "f.relative_rms_error(f.StudentT(5.0), f.standard('MXFP4'))",
    "lloyd_max": "f.lloyd_max(f.Laplace(), 4)",
    "entropy_coded": "f.entropy_coded(f.Normal(), 4)",
    "fit": "rj.distributions.fit(np.random.default_rng(0).standard_t(5, 4000))",
    "quantize, 4096 weights": "f.quantize(np.random.default_rng(0).normal(size=4096), f.BlockFormat(f.nf4(), 64)).codes",
    "sgd_risk": "s.sgd_risk(s.power_law(1000, 1.5, noise=0.1), s.Precision('additive', data=0.02), 10**6, 0.05)",
    "allocate_budget": "rj.allocate_budget(lambda M: s.power_law(M, 1.5, noise=0.1), "
    "lambda b: s.of_bits('additive', b[0], reach=4.0), lambda M, N, b: M * N * b[0] ** 2, 1e11).risk.total",
    "layer: rounding_error, weights": "L.rounding_error(L.Layer(H, weights=W), book)",
    "layer: gptq_error, weights": "L.gptq_error(L.Layer(H, weights=W), book)",
    "layer: gptq_error, Laplace law": "L.gptq_error(L.Layer(H, law=f.Laplace()), book)",
    "layer: gptq_error, rotated": "L.gptq_error(L.Layer(np.diag(H), rotated=True), book)",
    "layer: optimum_error": "L.optimum_error(L.Layer(np.diag(H), rotated=True), book)",
    "layer: entropy_coded_error": "L.entropy_coded_error(L.Layer(np.diag(H), rotated=True), 3.0)",
    "layer: optimal_scale, weights": "L.optimal_scale(L.Layer(H, weights=W), book)",
    "layer: optimal_codebook, 4 levels": "rj.optimal_codebook(L.Layer(H), 4).levels",
    "optimal_codebook, 4 levels": "rj.optimal_codebook(task, 4, 5.0)",
    "  evenly spaced": "rj.optimal_codebook(task, 4, 5.0, constraints=even)",
    "rate_frontier, 2 to 4 levels": "rj.rate_frontier(task, 5.0, levels=(2, 3, 4), weights=(0.0, 0.03)).bits",
    "straight_through": "rj.dynamics.straight_through(book, book, 0.2, times=[10.0, 100.0]).generalization_error",
    "  its gradient in the step": "jax.grad(lambda s: rj.dynamics.straight_through(book, book, s, times=[10.0])"
    ".generalization_error[0])(0.2)",
    "  best width and step": "rj.dynamics.optimal_training(10.0, 2, noise=0.1).course.generalization_error",
    "layer: gptq": "L.gptq(W, H, book)",
}
AGAIN = {
    "optimal_width, 2 bits": "rj.optimal_width(task, 3, 7.0)",
    "phase_diagram, 32 x 32": "rj.phase_diagram(task, 2, 7.0, axes=axes)",
    "error of NF4 in blocks": "f.relative_rms_error(f.Laplace(), f.BlockFormat(f.integer(3), 32, 'absmax', 'bf16'))",
    "state_evolution": "rj.state_evolution(task, rj.uniform(3, 2.0), 9.0)",
    "optimal_codebook, 4 levels": "rj.optimal_codebook(rj.LinearRegression(1.5, 1.0, 0.2), 4, 7.0)",
    "straight_through": "rj.dynamics.straight_through(rj.uniform(2, 1.5), book, 0.1, times=[5.0, 60.0]).generalization_error",
}
"""Another number of bits, temperature or law: nothing more is compiled."""


def seconds(*command: str | Path, cache: str = "off", repeats: int = REPEATS) -> float:
    """Median of whole processes."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        environment = os.environ | {"REPLICAJAX_CACHE": cache}
        subprocess.run([str(part) for part in command], check=True, capture_output=True, env=environment)
        times.append(perf_counter() - start)
    return median(times)


def commands() -> None:
    print("a command in a fresh process, and the numpy/scipy script for the same answer; seconds")
    print(f"{'':44s}{'script':>8s}{'no cache':>10s}{'/ script':>10s}{'cached':>8s}{'/ script':>10s}")
    with TemporaryDirectory() as cache:
        script = seconds(sys.executable, SCRIPTS / "widths.py")
        row(OPTIMIZE, script, OPTIMIZE.split(), cache)
        for law, rest in LAWS.items():
            script = seconds(sys.executable, SCRIPTS / "formats.py", law, repeats=1)
            words = f"formats --distribution {law} {rest} --bits 3-5"
            row(words, script, words.split(), cache)
    help_, jax_, ours = (
        seconds(*words, repeats=5)
        for words in (
            (COMMAND, "--help"),
            (sys.executable, "-c", "import jax"),
            (sys.executable, "-c", "import jax, replicajax as rj; rj.solve"),
        )
    )
    print(f"--help {help_:.2f} s; import jax {jax_:.2f} s; with replicajax and its solver {ours - jax_:.2f} s more\n")


def row(name: str, script: float, words: Sequence[str], cache: str) -> None:
    cold = seconds(COMMAND, *words, repeats=1 if script > 5 else REPEATS)
    seconds(COMMAND, *words, cache=cache, repeats=1)
    warm = seconds(COMMAND, *words, cache=cache)
    print(f"{name:44s}{script:8.2f}{cold:10.2f}{cold / script:10.2f}{warm:8.2f}{warm / script:10.2f}", flush=True)


def report() -> None:
    commands()
    print("first calls, each in a fresh process after importing; then with other bits, temperature or law")
    print(f"{'':32s}{'programs':>9s}{'seconds':>9s}{'again':>12s}{'seconds':>9s}")
    for name, call in CALLS.items():
        again = f"; print(*measure(lambda: {AGAIN[name]}))" if name in AGAIN else ""
        code = f"{_PROLOGUE}\nprint(*measure(lambda: {call})){again}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:32s}  failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = [line.split() for line in done.stdout.strip().splitlines()[-2 if again else -1 :]]
        first, *rest = [(int(n), float(t)) for t, n in found]
        later = "".join(f"{n:12d}{t:9.2f}" for n, t in rest)
        print(f"{name:32s}{first[0]:9d}{first[1]:9.2f}{later}", flush=True)


if __name__ == "__main__":
    report()
