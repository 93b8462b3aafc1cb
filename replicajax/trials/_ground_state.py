"""Ground states of drawn instances, taken to infinite size: what theory at zero temperature has to meet.

Nothing of the theory goes into them, replica symmetry neither kept nor broken: each instance is searched by replica exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from replicajax import _checks
from replicajax.amp import LowestCodeword, exhaustive, lowest_codeword
from replicajax.codebooks import Codebook
from replicajax.models import Taught, covariance, draw
from replicajax.trials._controls import Drawn, Estimate, controlled_mean, controls
from replicajax.trials._extrapolate import Extrapolated, extrapolate

_TOGETHER = 64
"""Instances in one call of the compiled search."""
_RELIABLE = 0.9
"""Share of instances on which searches must agree."""
_CODEWORDS, _ENUMERATED = 2**16, 16
"""Most codewords of an instance that is searched exhaustively, and how many instances are."""
_SAME = 1e-4
"""Relative difference of energies that counts as rounding, in single precision."""


class SizeTrials(NamedTuple):
    """Instances of one size."""

    size: int
    energies: Float[np.ndarray, " instances"]
    """Ground-state energy H/N."""
    errors: Float[np.ndarray, " instances"]
    """Generalisation error of the ground state."""
    energy: Estimate
    error: Estimate
    agreement: float
    """Share of instances on which all searches ended at the same energy."""
    excess: float
    """Mean energy of a search over that of the best: more than the bias that is left."""

    @property
    def reliable(self) -> bool:
        """At least 9 of 10 instances are agreed on, and what bias is left is below half a standard error."""
        return self.agreement >= _RELIABLE and self.excess <= self.energy.standard_error / 2


class Enumerated(NamedTuple):
    """Instances small enough to try every codeword of."""

    size: int
    instances: int
    exact: float
    """Share of them whose ground state the search found."""


class GroundStates(eqx.Module):
    """Energies and errors of ground states at several sizes and at N = inf; prints itself."""

    task: Taught
    codebook: Codebook
    trials: tuple[SizeTrials, ...]
    energy: Extrapolated
    """From the reliable sizes, or from all if those are fewer than two."""
    error: Extrapolated
    enumerated: Enumerated

    @property
    def reliable(self) -> bool:
        """At least two sizes are, so that only they are used."""
        return sum(each.reliable for each in self.trials) > 1

    def __str__(self) -> str:
        lines = [
            f"{self.task}",
            f"{self.codebook}, beta inf",
            f"  {'N':>5s}{'instances':>11s}{'energy':>24s}{'eg':>24s}{'agreed':>8s}{'excess':>10s}",
        ]
        for at in self.trials:
            poor = "" if at.reliable else "  UNRELIABLE"
            lines.append(
                f"  {at.size:5d}{len(at.energies):11d}{at.energy!s:>24s}{at.error!s:>24s}{at.agreement:8.3f}"
                f"{at.excess:10.1e}{poor}"
            )
        checked = self.enumerated
        return "\n".join(
            [
                *lines,
                f"  energy at N = inf: {self.energy}",
                f"  eg at N = inf:     {self.error}",
                f"  exact on {checked.exact:.3g} of {checked.instances} instances of {checked.size} weights",
            ]
        )


def ground_state(
    task: Taught,
    codebook: Codebook,
    *,
    sizes: Sequence[int] = (20, 40, 80),
    instances: int | Sequence[int] = 64,
    sweeps: int | Sequence[int] | None = None,
    temperatures: int = 12,
    searches: int = 2,
    key: PRNGKeyArray | None = None,
) -> GroundStates:
    """Search drawn instances of `task` for their ground states, and extrapolate energy and generalisation error.

    Means are freed of the luck of the draw by control variates (`_controls`), where instances are many.  Where many codewords
    share the least energy, as with losses that are 0 beyond a margin, the error is that of one of them.

    Args:
      task, codebook: what to search; of any loss, the task's.
      sizes: weights per instance, at least two of them; a spectrum keeps its shares at multiples of its eigenvalues.
      instances: of each size, from 2; or one number for each size.
      sweeps: of each rung, or one number for each size; four times the size if None.
      temperatures, searches: as in `lowest_codeword`.
      key: of `jax.random`; key 0 if None.

    Raises:
      TypeError, ValueError: bad arguments.
    """
    _checks.instance("task", task, Taught, "rj.LinearRegression(2.0, noise=0.1)")
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    sizes = [_checks.integer("sizes", size, 2, 10**5) for size in sizes]
    if len(set(sizes)) < max(2, len(sizes)):
        raise ValueError(f"sizes must be at least two different numbers, to extrapolate from, got {sizes}")
    counts = _each("instances", instances, sizes, 2)
    lengths = [4 * size for size in sizes] if sweeps is None else _each("sweeps", sweeps, sizes, 1)
    effort = {"temperatures": temperatures, "searches": searches}
    key = jax.random.key(0) if key is None else key
    trials = tuple(
        _trials(task, codebook, size, count, {**effort, "sweeps": length}, jax.random.fold_in(key, size))
        for size, count, length in zip(sizes, counts, lengths, strict=True)
    )
    reliable = [at for at in trials if at.reliable]
    used = reliable if len(reliable) > 1 else trials
    energy, error = (
        extrapolate([at.size for at in used], [getattr(at, name) for at in used]) for name in ("energy", "error")
    )
    tiny = int(np.log(_CODEWORDS) / np.log(len(codebook)))
    return GroundStates(
        task, codebook, trials, energy, error, _enumerated(task, codebook, tiny, effort, jax.random.fold_in(key, 0))
    )


def _each(name: str, value: int | Sequence[int], sizes: Sequence[int], least: int) -> list[int]:
    """One for each size."""
    many = list(value) if isinstance(value, Sequence) else [value] * len(sizes)
    if len(many) != len(sizes):
        raise ValueError(f"{name} must be one number, or one for each of {len(sizes)} sizes, got {len(many)}")
    return [_checks.integer(name, each, least, 10**9) for each in many]


def _trials(task: Taught, book: Codebook, size: int, count: int, effort: dict, key: PRNGKeyArray) -> SizeTrials:
    make = eqx.filter_jit(jax.vmap(lambda k: (*draw(task, size, k), covariance(task, size, k))))
    parts = []
    for start in range(0, count, _TOGETHER):
        # Always as many, so that all run the same program; instance i is the same whatever their number.
        numbers = start + jnp.arange(min(_TOGETHER, count))
        for_draw, for_search = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)), out_axes=1)(numbers)
        X, y, teacher, sigma = make(for_draw)
        found = _searched(task, book, X, y, for_search, effort)
        drawn = Drawn(*(np.asarray(x, float) for x in (X, y, teacher, sigma)))
        energies, excess = np.asarray(found.energy, float), np.asarray(found.searched.mean(1) - found.energy, float)
        errors = _errors(task, np.asarray(found.weights, float), drawn)
        parts.append((energies, errors, found.agreement == 1, excess, controls(task, book, drawn)))
    energies, errors, agreed, excess, known = (np.concatenate(x)[:count] for x in zip(*parts, strict=True))
    return SizeTrials(
        size,
        energies,
        errors,
        controlled_mean(energies, known),
        controlled_mean(errors, known),
        float(agreed.mean()),
        float(excess.mean()),
    )


@eqx.filter_jit
def _searched(task: Taught, book: Codebook, X: Array, y: Array, keys: Array, effort: dict) -> LowestCodeword:
    """Of each instance."""

    def one(X, y, key):
        return lowest_codeword(X, y, book, ridge=task.ridge, loss=task.loss, key=key, **effort)

    return jax.vmap(one)(X, y, keys)


def _errors(task: Taught, words: np.ndarray, drawn: Drawn) -> Float[np.ndarray, " instances"]:
    """`Task.error` for a teacher of the size drawn."""
    rho, q, both = (drawn.form(w) for w in (drawn.teacher, words, drawn.teacher + words))
    m = (both - rho - q) / 2

    def error(rho, m, q):
        return eqx.tree_at(lambda t: t.signal, task, task.signal * rho / task.rho).error(m, q)

    return np.asarray(jax.vmap(error)(*(jnp.asarray(x) for x in (rho, m, q))), float)


def _enumerated(task: Taught, book: Codebook, size: int, effort: dict, key: PRNGKeyArray) -> Enumerated:
    """The search against every codeword, at the largest size where there are few."""
    keys = jax.random.split(key, _ENUMERATED)
    X, y, _ = jax.vmap(lambda k: draw(task, size, k))(keys)
    found = np.asarray(_searched(task, book, X, y, keys, effort).energy)
    every = [
        exhaustive(*xy, book, 1.0, ridge=task.ridge, loss=task.loss).ground_energy for xy in zip(X, y, strict=True)
    ]
    return Enumerated(size, _ENUMERATED, float(np.isclose(found, every, rtol=_SAME).mean()))
