"""Where AMP stops converging at N = 4000, against the replicon line (slow)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import replicajax as rj

SIZE, INSTANCES = 4000, 20
RATIOS = np.array([0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25])
CASES = {
    "1 bit": (1.5, 0.1, rj.uniform(1, 1.0)),
    "2 bits": (1.5, 0.1, rj.uniform(2, 2.0)),
    "power levels": (1.0, 0.2, rj.power(2, 2.0, 1.5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_convergence_ends_at_the_replicon_line(name):
    alpha, noise, book = CASES[name]
    task = rj.LinearRegression(alpha, 1.0, noise)
    critical = brentq(lambda beta: float(rj.solve(task, book, jnp.asarray(beta)).replicon), 0.1, 300.0, xtol=1e-8)
    betas = jnp.asarray(critical * RATIOS, jnp.float32)

    @jax.jit
    def converged(X, y):
        return jax.vmap(lambda beta: rj.amp(X, y, book, beta, steps=1000, tolerance=1e-5).converged)(betas)

    runs = []
    for i in range(INSTANCES):
        X, y, _ = rj.draw(task, SIZE, jax.random.key(1000 + i), dtype=jnp.float32)
        runs.append(np.asarray(converged(X, y)))
    fraction = dict(zip(RATIOS.tolist(), np.mean(runs, axis=0).tolist(), strict=True))
    print(f"\n{name}: replicon 0 at beta {critical:.4f}; fraction converged at multiples of it {fraction}")
    assert fraction[0.9] > 0.5 > fraction[1.1]
    assert fraction[1.25] == 0
