"""Gaussian integrals of functions that bend sharply at known places, and Gaussians tilted by a loss.

The tilted Gaussian is a label's view of its prediction (theory 7.1): with V = chi/beta and phi = −(1/beta) log Z,

    Z(v) = ∫ du N(u; v, V) exp{−beta ell(u)},
    phi' = (v − <u>)/chi,    phi'' = (1 − k2/V)/chi,    phi''' = −k3/(chi V²),    phi'''' = −k4/(chi V³),             (1)

with the cumulants k of u.

Its weight is log-concave, since ell is convex: it falls on either side of u*, where (u − v)/chi + ell'(u) = 0, and no slower
than N(u*, V).  Between u*, the kinks of the loss and the places where it has fallen to exp(−FALL) Gauss and Legendre's rule
is exact to rounding.
"""

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
_PROXIMAL, _EDGE = 24, 8
"""Halvings."""


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


class Tilted(NamedTuple):
    """Of a Gaussian tilted by a loss, (1)."""

    log_partition: Scalar
    """log Z."""
    slope: Scalar
    """phi'."""
    curvature: Scalar
    """phi''."""
    third: Scalar
    """phi'''."""
    fourth: Scalar
    """phi''''."""
    loss: Scalar
    """<ell>."""


def proximal(loss: Callable[[Scalar], Scalar], v: Scalar, chi: Scalar) -> Scalar:
    """u*, the minimum of (u − v)²/(2 chi) + ell(u) for convex ell.  No derivative goes through it."""
    v, chi, slope = *jax.lax.stop_gradient((v, chi)), jax.grad(loss)
    other = v - chi * slope(v)  # ell' is monotonic, and so u* lies between here and v

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = middle - v + chi * slope(middle) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jax.lax.fori_loop(0, _PROXIMAL, halve, (jnp.minimum(v, other), jnp.maximum(v, other)))
    return jax.lax.stop_gradient((low + high) / 2)


def tilted_gaussian(
    loss: Callable[[Scalar], Scalar], kinks: Float[Array, " kinks"], v: Scalar, chi: Scalar, beta: Scalar
) -> Tilted:
    """(1) by quadrature; `kinks` are where the slope of the loss jumps."""
    V, best, fixed = chi / beta, proximal(loss, v, chi), jax.lax.stop_gradient

    def exponent(u):
        return -((u - v) ** 2) / (2 * V) - beta * loss(u)

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
    inside = _in_order(jnp.clip(fixed(jnp.concatenate([best[None], kinks])), low, high))
    u, weight = _legendre(jnp.concatenate([low[None], inside, high[None]]), _INNER)

    each, power = jax.vmap(loss)(u), jax.vmap(exponent)(u)
    peak = fixed(power.max())
    p = weight * jnp.exp(power - peak)
    total = p.sum()
    p = p / total
    mean = p @ (u - v)
    second, third, fourth = (p @ (u - v - mean) ** k for k in (2, 3, 4))
    log_partition = peak + jnp.log(total) - jnp.log(2 * jnp.pi * V) / 2
    first, second, third, fourth = -mean, 1 - second / V, -third / V**2, (3 * second**2 - fourth) / V**3
    return Tilted(log_partition, first / chi, second / chi, third / chi, fourth / chi, p @ each)
