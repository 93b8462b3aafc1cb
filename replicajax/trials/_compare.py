"""One harness for theory, message passing and sampling: the same drawn instances, side by side, with error bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from replicajax import _checks
from replicajax.amp import StateEvolution, amp, gibbs, parallel_tempering, state_evolution
from replicajax.codebooks import Codebook
from replicajax.models import Design, LinearRegression, draw
from replicajax.replica import Solution, solve


class AMPTrials(eqx.Module):
    """AMP on each instance; entry t of a trajectory is the weights after t iterations."""

    errors: Float[Array, "instances steps+1"]
    """|w0 − a_t|²/N."""
    estimates: Float[Array, "instances steps+1"]
    """AMP's own estimate of the test error."""
    susceptibilities: Float[Array, "instances steps+1"]
    rounded_errors: Float[Array, " instances"]
    """|w0 − quantized|²/N at the end."""
    rounded_estimates: Float[Array, " instances"]
    """AMP's own estimate of the test error of the quantized weights."""
    converged: Bool[Array, " instances"]
    steps: Float[Array, " instances"]


class SampledTrials(eqx.Module):
    """A sampler on each instance, at the beta asked for."""

    errors: Float[Array, " instances"]
    """|w0 − <w>|²/N, from products of different chains so that sampling noise adds no bias."""
    energies: Float[Array, " instances"]
    """<H>/N."""
    spreads: Float[Array, " instances"]
    """R-hat of the energy."""


class Score(NamedTuple):
    """A measured mean beside its prediction."""

    name: str
    theory: float
    mean: float
    standard_error: float

    @property
    def z(self) -> float:
        return (self.mean - self.theory) / self.standard_error


class Comparison(eqx.Module):
    """Theory and measurements of one (task, codebook, beta); prints itself as a table of z-scores."""

    solution: Solution
    state_evolution: StateEvolution
    amp: AMPTrials
    sampled: SampledTrials | None
    size: int = eqx.field(static=True)
    design: str = eqx.field(static=True)

    def scores(self) -> list[Score]:
        """AMP's error after each recorded iteration, what it converged to where it did, the sampler's error and energy."""
        last = self.state_evolution.generalization_error.shape[0]
        rows = [
            _score(f"AMP eg, iteration {t}", self.state_evolution.generalization_error[t], self.amp.errors[:, t])
            for t in range(last)
        ]
        s, trials = self.solution, self.amp
        kept = np.asarray(trials.converged)
        if kept.sum() > 1:
            rows += [
                _score("AMP eg, converged", s.generalization_error, trials.errors[kept, -1]),
                _score("AMP eg, rounded weights", s.rounded_error, trials.rounded_errors[kept]),
                _score("AMP V, converged", s.susceptibility, trials.susceptibilities[kept, -1]),
                _score("AMP's estimated test error", s.test_error, trials.estimates[kept, -1]),
                _score("same, rounded weights", s.rounded_error + s.task.noise, trials.rounded_estimates[kept]),
            ]
        if self.sampled is not None:
            rows.append(_score("sampled eg", s.generalization_error, self.sampled.errors))
            rows.append(_score("sampled energy", s.training_error, self.sampled.energies))
        return rows

    @property
    def estimate_ratio(self) -> Float[Array, " instances"]:
        """AMP's estimate of its test error over the true one, instance by instance."""
        return self.amp.estimates[:, -1] / (self.amp.errors[:, -1] + self.solution.task.noise)

    def __str__(self) -> str:
        s, trials = self.solution, self.amp
        state = "stable" if s.stable else "UNSTABLE"
        lines = [
            f"{s.task}",
            f"{s.codebook}, beta {s.beta:.6g}: replicon {s.replicon:.4g}, {state}",
            f"{len(trials.converged)} instances of {self.size} weights, {self.design} design; "
            f"AMP converged on {int(trials.converged.sum())}",
            f"  {'':<28s}{'theory':>12s}{'measured':>12s}{'±':>10s}{'z':>7s}",
        ]
        lines += [
            f"  {r.name:<28s}{r.theory:12.6f}{r.mean:12.6f}{r.standard_error:10.6f}{r.z:7.2f}" for r in self.scores()
        ]
        ratio = np.asarray(self.estimate_ratio)
        lines.append(f"  AMP's estimated over true test error: {ratio.mean():.4f} (each ± {ratio.std(ddof=1):.4f})")
        if self.sampled is not None:
            lines.append(f"  sampler's R-hat: at most {float(self.sampled.spreads.max()):.3f}")
        return "\n".join(lines)


def compare(
    task: LinearRegression,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    size: int = 1000,
    instances: int = 20,
    iterations: int = 10,
    max_iterations: int = 200,
    damping: float = 0.0,
    design: str | Design = "gaussian",
    sampler: str = "none",
    sweeps: int = 400,
    temperatures: int = 16,
    seed: int = 0,
    dtype=None,
    tick: Callable[[], None] = lambda: None,
) -> Comparison:
    """Draw instances of `task`, run AMP (and a sampler) on each, and set the results beside the theory's.

    Args:
      task, codebook, beta: what to compare; a sampler needs a finite beta.
      size: weights per instance; AMP holds alpha size² numbers at a time, a sampler size² more.
      instances: at least 2, for error bars.
      iterations: of AMP set beside state evolution.  max_iterations: of AMP in all.
      damping: of AMP; its end is state evolution's all the same, the way there is not.
      design: as in `draw`.
      sampler: "none", "gibbs" or "tempering".  sweeps, temperatures: its effort.
      seed: instance i of a seed is the same whatever the number of instances.
      dtype: of the data; the default float if None.
      tick: called after each instance, for a progress bar.

    Raises:
      TypeError, ValueError: bad arguments.
    """
    instances = _checks.integer("instances", instances, 2, 10**6)
    max_iterations = _checks.integer("max_iterations", max_iterations, 1, 10**6)
    iterations = _checks.integer("iterations", iterations, 1, max_iterations)
    _checks.choice("sampler", sampler, ["none", "gibbs", "tempering"])
    beta = _checks.positive("beta", beta, infinite=sampler == "none")
    runs, samples = [], []
    for i in range(instances):
        for_data, for_sampler = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        X, y, w0 = draw(task, size, for_data, design=design, dtype=dtype)
        found = amp(X, y, codebook, beta, ridge=task.ridge, steps=max_iterations, damping=damping, teacher=w0)
        log = found.trajectory
        rounded = jnp.mean((w0 - found.quantized) ** 2)
        runs.append(
            (
                log.generalization_error,
                log.test_error,
                log.susceptibility,
                rounded,
                found.rounded_test_error,
                found.converged,
                found.steps,
            )
        )
        if sampler == "gibbs":
            s = gibbs(X, y, codebook, beta, ridge=task.ridge, sweeps=sweeps, key=for_sampler)
            samples.append((_error(s.chain_weights, w0), s.energy, s.energy_spread))
        elif sampler == "tempering":
            effort = {"sweeps": sweeps, "temperatures": temperatures, "key": for_sampler}
            t = parallel_tempering(X, y, codebook, beta, ridge=task.ridge, **effort)
            samples.append((_error(t.chain_weights[:, -1], w0), t.energy[-1], t.energy_spread[-1]))
        jax.block_until_ready((runs[-1], samples[-1:]))
        tick()
    return Comparison(
        solution=solve(task, codebook, beta),
        state_evolution=state_evolution(task, codebook, beta, iterations),
        amp=AMPTrials(*(jnp.stack(column) for column in zip(*runs, strict=True))),
        sampled=SampledTrials(*(jnp.stack(c) for c in zip(*samples, strict=True))) if samples else None,
        size=size,
        design=design if isinstance(design, str) else getattr(design, "__name__", "custom"),
    )


def _error(chains: Float[Array, "chains columns"], w0: Float[Array, " columns"]) -> Float[Array, ""]:
    """|w0 − <w>|²/N with <w>² from products of different chains."""
    error = chains - w0
    count = chains.shape[0]
    return (jnp.sum(error.sum(0) ** 2) - jnp.sum(error**2)) / (count * (count - 1) * w0.shape[0])


def _score(name: str, theory, values) -> Score:
    values = np.asarray(values, float)
    return Score(name, float(theory), float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
