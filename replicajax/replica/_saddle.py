"""The saddle point of the replica-symmetric free energy.

The map (m, q, chi) -> fields -> (m, q, chi) is state evolution; its fixed point is found by Newton's method guarded by
that same map (`numerics.NewtonPicard`) in the coordinates

    m,    c = q − m²/signal > 0,    l = 1/(1 + chi) in (0, 1),

with the residual 1 − chi' l − l for the last: it is linear in l wherever the response chi'/(1 + chi) is constant, as it
is at beta = inf, where state evolution itself would crawl.

**Zero temperature without training error.**  At beta = inf the closed form (theory 1.2) has a finite susceptibility only
while the codebook cannot interpolate the data.  If it can, chi = beta (Q − q) runs off to infinity because Q − q stays
positive: the Gibbs measure is uniform over the interpolating codewords (those of least |a| if ridge > 0).  Its theory is
the hard constraint y = x·w, that is `energetic` with unit 0 at beta 1 and v = Q − q in the place of chi.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from replicajax.codebooks import Codebook
from replicajax.models import Fields, LinearRegression, Order, fields_from_order, order_from_averages, weight_averages
from replicajax.numerics import implicit_root, solve_fixed_point

Scalar = Float[Array, ""]

_RUNAWAY = 1e-11
"""1/(1 + chi) at which the susceptibility counts as infinite; a finite beta gives at least 1/(1 + beta max a²)."""
_HARD_RIDGE = 1e6
"""Ridge times beta, in units of 1/gap², that stands for infinity among interpolating codewords."""


class Regime(NamedTuple):
    """What the map needs: (beta, unit) is (beta, 1) as given, or (1, 0) for the hard constraint."""

    task: LinearRegression
    book: Codebook
    beta: Scalar
    unit: Scalar


class Saddle(NamedTuple):
    order: Order
    """With v = Q − q in the place of chi where `interpolates`."""
    fields: Fields
    regime: Regime
    interpolates: Bool[Array, ""]
    converged: Bool[Array, ""]
    steps: Int[Array, ""]


def find_saddle(task: LinearRegression, book: Codebook, beta: Scalar, max_steps: int) -> Saddle:
    """The saddle point, differentiated by the implicit function theorem at whatever `_search` found."""
    y, (interpolates, converged, steps) = implicit_root(_search, _condition, (task, book, beta, max_steps))
    regime = regime_of(task, book, beta, interpolates)
    order = _decode(task, y)
    fields = fields_from_order(regime.task, order, regime.beta, regime.unit)
    return Saddle(order, fields, regime, interpolates, converged, steps)


def _condition(y, found, inputs):
    task, book, beta, _ = inputs
    return _residual(y, regime_of(task, book, beta, found[0]))[0]


def _search(inputs):
    """At beta = inf first the closed form, whose failure (l at its floor) means interpolation; then the regime's own."""
    task, book, beta, max_steps = inputs
    cold = jnp.isinf(beta)
    free = jnp.mean(book.levels**2) * jnp.clip(1 - task.alpha, 0.1, 1.0)

    def phase(carry, scouting):
        y, interpolates, _, steps = carry
        regime = regime_of(task, book, beta, interpolates)
        nothing = y, jnp.zeros_like(steps), jnp.array(True)
        y, more, converged = jax.lax.cond(cold | ~scouting, lambda: _solve(regime, y, max_steps), lambda: nothing)
        runaway = scouting & cold & (y[2] < 10 * _RUNAWAY)
        y = y.at[2].set(jnp.where(runaway, 1 / (1 + free), y[2]))
        return (y, interpolates | runaway, converged, steps + more), None

    start = _encode(task, ridge_start(task, book, beta))
    carry = start, jnp.array(False), jnp.array(False), jnp.zeros((), jnp.result_type(int))
    (y, interpolates, converged, steps), _ = jax.lax.scan(phase, carry, jnp.array([True, False]))
    return y, (interpolates, converged, steps)


def regime_of(task: LinearRegression, book: Codebook, beta: Scalar, interpolates: Bool[Array, ""]) -> Regime:
    gap = jax.lax.stop_gradient(jnp.min(jnp.diff(book.levels)))
    ridge = jnp.where(interpolates, jnp.where(task.ridge > 0, _HARD_RIDGE / gap**2, 0.0), task.ridge)
    return Regime(
        task=eqx.tree_at(lambda t: t.ridge, task, ridge),
        book=book,
        beta=jnp.where(interpolates, 1.0, beta),
        unit=jnp.where(interpolates, 0.0, 1.0).astype(beta.dtype),
    )


def _solve(regime: Regime, start: Float[Array, "3"], max_steps: int):
    solution = solve_fixed_point(
        _residual,
        start,
        regime,
        lower=jnp.array([-jnp.inf, 0.0, 0.0], start.dtype),
        upper=jnp.array([jnp.inf, jnp.inf, 1.0], start.dtype),
        max_steps=max_steps,
    )
    return solution.value, solution.stats["num_steps"], solution.result == optx.RESULTS.successful


def _residual(y: Float[Array, "3"], regime: Regime):
    """Residual of the saddle point, and state evolution's next y."""
    task = regime.task
    fields = fields_from_order(task, _decode(task, y), regime.beta, regime.unit)
    new = order_from_averages(weight_averages(task, regime.book, fields, regime.beta))
    m, c, l = _encode(task, new)
    plain = jnp.stack([m, c, jnp.maximum(l, _RUNAWAY)])
    accelerated = jnp.stack([m, c, jnp.maximum(1 - new.chi * y[2], _RUNAWAY)])
    return accelerated - y, plain


def _encode(task: LinearRegression, order: Order) -> Float[Array, "3"]:
    m, q, chi = order
    return jnp.stack([m, q - m**2 / task.signal, 1 / (1 + chi)])


def _decode(task: LinearRegression, y: Float[Array, "3"]) -> Order:
    m, c, l = y
    return Order(m, c + m**2 / task.signal, 1 / l - 1)


def ridge_start(task: LinearRegression, book: Codebook, beta: Scalar) -> Order:
    """The saddle point if the weights were Gaussian with the variance of the codebook: 1/chi = alpha/(1+chi) + kappa."""
    kappa = jnp.maximum(task.ridge + 1 / (beta * jnp.mean(book.levels**2)), 1e-4)
    b = 1 - task.alpha - kappa
    root = jnp.sqrt(b**2 + 4 * kappa)
    chi = jnp.where(b > 0, (b + root) / (2 * kappa), 2 / (root - b))
    u = chi / (1 + chi)
    m = task.signal * jnp.minimum(task.alpha * u, 0.99)
    gain = jnp.minimum(task.alpha * u**2, 0.9)
    c = gain * ((task.signal - m) ** 2 / task.signal + task.noise) / (1 - gain)
    return Order(m, jnp.maximum(c, 1e-6 * task.signal) + m**2 / task.signal, chi)
