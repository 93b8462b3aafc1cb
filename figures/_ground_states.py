"""Where ground states of drawn instances generalise best: `python -m figures._ground_states` writes ground_states.csv."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import replicajax as rj
from replicajax.amp import lowest_codeword

PATH = Path(__file__).with_name("ground_states.csv")
SIZE, INSTANCES, BATCH = 100, 256, 64
SWEEPS = {1: 100, 2: 200, 3: 400}
RATIOS = np.exp(np.linspace(-0.3, 0.3, 7))


class Least(NamedTuple):
    width: float
    standard_error: float
    agreed: float
    """Share of searches whose runs ended in the same codeword."""


def best_width(task: rj.LinearRegression, bits: int, centre: float) -> Least:
    """The same instances at seven widths about `centre`; where their mean error is least, by a cubic in log width."""

    @jax.jit
    def errors(width, keys):
        def one(key):
            X, y, teacher = rj.draw(task, SIZE, key)
            found = lowest_codeword(X, y, rj.uniform(bits, width), sweeps=SWEEPS[bits], key=key)
            return jnp.mean((teacher - found.weights) ** 2), found.agreement

        return jax.vmap(one)(keys)

    with jax.enable_x64(False):
        batches = jax.random.split(jax.random.key(bits), INSTANCES).reshape(-1, BATCH)
        found = [[errors(np.float32(centre * ratio), keys) for keys in batches] for ratio in RATIOS]
    error, agreed = (np.array([np.concatenate([b[i] for b in row]) for row in found]) for i in (0, 1))

    def least(error):
        fit = np.polynomial.Polynomial.fit(np.log(RATIOS), error.mean(1), 3)
        places = fit.deriv().roots()
        (place,) = (x.real for x in places if abs(x.imag) < 1e-9 and fit.deriv(2)(x.real) > 0)
        return np.exp(place)

    left_out = [least(np.delete(error, np.arange(i, INSTANCES, 16), 1)) for i in range(16)]
    spread = np.sqrt(15 * np.var(left_out))
    return Least(centre * least(error), centre * spread, (agreed == 1).mean())


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    task = rj.LinearRegression(2.0, noise=0.1)
    lines = ["alpha,bits,width,standard_error"]
    for bits in SWEEPS:
        of_theory = float(rj.optimal_width(task, bits, jnp.inf, breaking=1).width)
        found = best_width(task, bits, of_theory)
        lines.append(f"{task.alpha:g},{bits},{found.width:.4f},{found.standard_error:.4f}")
        print(lines[-1], f"one step {of_theory:.4f}, agreed {found.agreed:.3f}", flush=True)
    PATH.write_text("\n".join(lines) + "\n")
