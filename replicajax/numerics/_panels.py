"""Gaussian integrals of functions that bend sharply at known places, and Gaussians tilted by a loss.

The tilted Gaussian is a label's view of its prediction (theory 7.1): with V = chi/beta and phi = −(1/beta) log Z,

    Z(v) = ∫ du N(u; v, V) exp{−beta ell(u)},      phi' = (v − <u>)/chi,      phi'' = (1 − Var(u)/V)/chi.                (1)

Its weight is log-concave, since ell is convex: it falls on either side of u*, where (u − v)/chi + ell'(u) = 0, and no slower
than N(u*, V).  Between u*, the kinks of the loss and the places where it has fallen to exp(−FALL) Gauss and Legendre's rule
is exact to rounding.

At beta = inf nothing is left but u*, the proximal point, and phi is the loss's Moreau envelope:

    phi = (u* − v)²/(2 chi) + ell(u*),      phi' = (v − u*)/chi,      phi'' = ell''(u*)/(1 + chi ell''(u*)),            (2)

where ell'' is infinite at a kink that holds u*.

Where the measure falls apart into states (theory 8), v is that of one of them, N(v0, d) before the loss is felt, and

    psi(v0) = −(1/y) log ∫ dv N(v; v0, d) exp{−y phi(v)},      psi' = <phi'>,      psi'' = (1 − Var(v)/d)/(y d):         (3)

(1) again, phi being convex as ell is, y for beta and y d for chi.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Scalar = Float[Array, ""]

_INNER, _OUTER = (np.polynomial.legendre.leggauss(count) for count in (24, 24))
"""Nodes of a panel: in a tilted Gaussian, and in the average over its mean."""
REACH = 8.5
"""Standard deviations kept: exp(−REACH²/2) = 2e-16."""
_FALL = REACH**2 / 2
_STEP = 7.0
"""Widths of a step, on either side, that get a panel of their own."""
_ROUGHLY, _EXACTLY, _EDGE = 24, 60, 8
"""Halvings."""
_JUMP = 1e-5
"""Of a loss's slope, from which it is one: at a kink of Huber's there is none."""


def _legendre(ends: Float[Array, " panels+1"], rule: tuple[np.ndarray, np.ndarray]) -> tuple[Array, Array]:
    """Nodes and weights of each panel."""
    unit, weight = (jnp.asarray(x, ends.dtype) for x in rule)
    middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    return (middle[:, None] + half[:, None] * unit).ravel(), (half[:, None] * weight).ravel()


def _in_order(x: Float[Array, " few"]) -> Array:
    """x sorted, by rank: of a few numbers that compiles many times faster than a sort."""
    i = np.arange(x.size)
    before = (x < x[:, None]) | ((x == x[:, None]) & (i < i[:, None]))
    return jnp.where(before.sum(1) == i[:, None], x, 0.0).sum(1)


def normal_nodes(breaks: Float[Array, " breaks"], width: Float[Array, " breaks"]) -> tuple[Array, Array]:
    """Nodes x and weights of E f(x), x ~ N(0, 1), for f with steps at `breaks`, each as wide as a Gaussian of deviation
    `width`.  No derivative goes through the nodes."""
    breaks, width = jax.lax.stop_gradient((breaks, width))
    ends = jnp.concatenate([breaks - _STEP * width, breaks, breaks + _STEP * width])
    end = jnp.full((1,), REACH, breaks.dtype)
    x, weight = _legendre(jnp.concatenate([-end, _in_order(jnp.clip(ends, -REACH, REACH)), end]), _OUTER)
    return x, weight * jnp.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


class Among(NamedTuple):
    """Averages over the states that (3) weighs."""

    potential: Scalar
    """<phi>."""
    spread: Scalar
    """Var(phi')."""
    square: Scalar
    """<phi''²>."""


class Tilted(NamedTuple):
    """Of a Gaussian tilted by a loss, (1), (2) or (3)."""

    potential: Scalar
    """phi."""
    slope: Scalar
    """phi'."""
    curvature: Scalar
    """phi''."""
    loss: Scalar
    """<ell>."""
    entropy: Scalar
    """log Z + beta (<ell> + ½ chi phi'²): of u, less that of N(v, V), in nats; −inf where a kink holds it at beta = inf."""
    among: Among | None = None
    """Of (3), whose `loss` and `entropy` are those within a state, averaged over states."""


def _halved(slope: Callable[[Scalar], Scalar], v: Scalar, chi: Scalar, times: int) -> tuple[Scalar, Scalar]:
    """Two points with u* between them, so many times closer together; from ell'."""
    other = v - chi * slope(v)  # ell' is monotonic, and so u* lies between here and v

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = middle - v + chi * slope(middle) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    return jax.lax.fori_loop(0, times, halve, (jnp.minimum(v, other), jnp.maximum(v, other)))


def proximal(slope: Callable[[Scalar], Scalar], v: Scalar, chi: Scalar) -> Scalar:
    """u*, the minimum of (u − v)²/(2 chi) + ell(u) for convex ell, roughly; from ell'.  No derivative goes through it."""
    low, high = _halved(slope, *jax.lax.stop_gradient((v, chi)), _ROUGHLY)
    return jax.lax.stop_gradient((low + high) / 2)


def envelope(
    loss: Callable[[Scalar], Scalar],
    kinks: Float[Array, " kinks"],
    v: Scalar,
    chi: Scalar,
    nearest: Scalar | None = None,
) -> Tilted:
    """(2); `kinks` are where the slope of the loss jumps, `nearest` is u* if that is known.  phi, phi' and ell(u*) have first
    derivatives."""
    slope, fixed = jax.grad(loss), jax.lax.stop_gradient
    low, high = _halved(slope, fixed(v), fixed(chi), _EXACTLY) if nearest is None else (nearest, nearest)
    low, high = fixed(low), fixed(high)
    u = (low + high) / 2
    # A step of Newton's, of no length, that carries the derivatives of u*.
    u = u - (u - v + chi * slope(u)) / fixed(1 + chi * jax.grad(slope)(u))
    held = jnp.zeros((), bool)
    if kinks.size:
        few = 8 * jnp.finfo(v.dtype).eps * (1 + jnp.abs(u))
        near = (kinks >= low - few) & (kinks <= high + few)
        at = jnp.where(near, kinks, 0.0).sum()
        step = 1e-6 * (1 + jnp.abs(at))
        held = near.any() & (slope(at + step) - slope(at - step) > _JUMP)
        u = jnp.where(held, at, u)
    left = jnp.where(held, 0.0, 1 / (1 + chi * jax.grad(slope)(u)))  # du*/dv
    cost = loss(u)
    return Tilted(
        potential=(u - v) ** 2 / (2 * chi) + cost,
        slope=(v - u) / chi,
        curvature=(1 - left) / chi,
        loss=cost,
        entropy=(jnp.log(left) + 1 - left) / 2,
    )


def _where_it_weighs(
    exponent: Callable[[Scalar], Scalar], best: Scalar, bends: Float[Array, " bends"], V: Scalar
) -> tuple[Array, Array]:
    """Nodes and weights on both sides of `best`, out to where exp(exponent), falling as N(best, V) or faster, is nothing."""
    fixed = jax.lax.stop_gradient

    def edge(side: Scalar) -> Scalar:
        """Where the weight has fallen to exp(−FALL)."""
        wide, peak = REACH * jnp.sqrt(V), exponent(best)

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            far = peak - exponent(best + side * wide * jnp.exp(middle)) > _FALL
            return jnp.where(far, low, middle), jnp.where(far, middle, high)

        zero = jnp.zeros_like(V)
        return best + side * wide * jnp.exp(jax.lax.fori_loop(0, _EDGE, halve, (zero - 40, zero))[1])

    low, high = fixed(jax.vmap(edge)(jnp.asarray([-1.0, 1.0], V.dtype)))
    inside = _in_order(jnp.clip(fixed(jnp.concatenate([best[None], bends])), low, high))
    return _legendre(jnp.concatenate([low[None], inside, high[None]]), _INNER)


def _weighed(weight: Array, power: Array, V: Scalar) -> tuple[Array, Scalar]:
    """Probabilities of nodes whose exponents these are, and log Z of N(v, V)."""
    peak = jax.lax.stop_gradient(power.max())
    p = weight * jnp.exp(power - peak)
    total = p.sum()
    return p / total, peak + jnp.log(total) - jnp.log(2 * jnp.pi * V) / 2


def tilted_gaussian(
    loss: Callable[[Scalar], Scalar], kinks: Float[Array, " kinks"], v: Scalar, chi: Scalar, beta: Scalar
) -> Tilted:
    """(1) by quadrature; `kinks` are where the slope of the loss jumps."""
    V, best = chi / beta, proximal(jax.grad(loss), v, chi)

    def exponent(u):
        return -((u - v) ** 2) / (2 * V) - beta * loss(u)

    u, weight = _where_it_weighs(exponent, best, kinks, V)
    each = jax.vmap(loss)(u)
    p, log_partition = _weighed(weight, jax.vmap(exponent)(u), V)
    mean = p @ (u - v)
    left = p @ (u - v - mean) ** 2 / V
    cost = p @ each
    return Tilted(
        potential=-log_partition / beta,
        slope=-mean / chi,
        curvature=(1 - left) / chi,
        loss=cost,
        entropy=log_partition + beta * (cost + mean**2 / (2 * chi)),
    )


def tilted_states(
    of: Callable[[Scalar], Tilted], bends: Float[Array, " bends"], v: Scalar, d: Scalar, y: Scalar
) -> Tilted:
    """(3) by quadrature, from phi and its derivatives; `bends` are where phi is not smooth."""
    best = proximal(lambda v: of(v).slope, v, y * d)
    u, weight = _where_it_weighs(lambda u: -((u - v) ** 2) / (2 * d) - y * of(u).potential, best, bends, d)
    each = jax.vmap(of)(u)
    p, log_partition = _weighed(weight, -((u - v) ** 2) / (2 * d) - y * each.potential, d)
    slope, mean = p @ each.slope, p @ (u - v)
    return Tilted(
        potential=-log_partition / y,
        slope=slope,
        curvature=(1 - p @ (u - v - mean) ** 2 / d) / (y * d),
        loss=p @ each.loss,
        entropy=jnp.where(p > 0, p * each.entropy, 0.0).sum(),
        among=Among(p @ each.potential, p @ (each.slope - slope) ** 2, p @ each.curvature**2),
    )
