"""The channel: what the labels make of the predictions.  theory 7.1

With v ~ N(0, q) the mean prediction of a row, u0 | v ~ N(m v/q, rho − m²/q) its truth, y its label and phi the tilted loss
(`Loss.tilted`),

    channel = alpha E phi(y, v),    L = alpha E phi'',    chi_hat = alpha E phi'²,    m_hat = −alpha E d/du0 phi',        (1)

where d/du0 acts on the law of the label.  The second and third hold since Z solves the heat equation, dZ/dV = ½ d²Z/dv², and
Gaussian integrals may be taken by parts.  Of a regression whose loss knows y − u only, R = rho − 2 m + q + noise is all that
matters, and m_hat = L.

What (1) changes with follows in the same way: d/dm is E d/du0 d/dv, d/dq is ½ E d²/dv², and dphi/dchi = ½ (phi''/beta − phi'²).
Derivatives in v beyond phi'' are taken of the weights instead, by parts, which holds at beta = inf too, where phi'' jumps; and
so is L, so that JAX's derivative of it sees no jumps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax.models._features import RowLengths
from replicajax.models._losses import Loss, MarginLoss, ResidualLoss
from replicajax.numerics import Among, Tilted, backend_of, ndtr, normal_nodes

Scalar = Float[Array, ""]

_HERMITE, _HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_HERMITE_WEIGHTS = _HERMITE_WEIGHTS / _HERMITE_WEIGHTS.sum()


class Slopes(NamedTuple):
    """Derivatives of (1) in an order parameter."""

    m_hat: Scalar
    chi_hat: Scalar
    L: Scalar


class Effective(NamedTuple):
    """Ridge regression with isotropic noise, which quantized learning on given rows comes to (theory 9)."""

    ridge: Array
    """z."""
    noise: Array
    """kappa."""
    ridge_by_chi: Array
    noise_by_q: Array
    noise_by_chi: Array


class Label(NamedTuple):
    """What features make of the weights: order parameters of the predictions, where they are not those of the weights."""

    overlap: Array
    """m of the weights."""
    m: Array
    q: Array
    chi: Array
    size: Array
    """Mean eigenvalue."""
    m_by: tuple[Array, ...] | None = None
    """Derivatives in q and chi of the weights, and in what they feel if that is asked for (`_turned.swept`); None where they
    are left to JAX."""
    q_by: tuple[Array, ...] | None = None


class Channel(NamedTuple):
    """(1), per weight."""

    potential: Scalar
    m_hat: Scalar
    chi_hat: Scalar
    L: Scalar
    energy: Scalar
    """alpha E <ell>, of a Gibbs sample on its own training rows."""
    entropy: Scalar
    """beta (energy − potential + ½ chi chi_hat): what the rows add to that of a weight in its field, in nats."""
    replicon: tuple[Scalar, Scalar]
    """(r0, r1) of the replicon r0 − r1 E(beta Var)²."""
    slopes: tuple[Slopes, Slopes, Slopes] | None = None
    """In m, q and chi; None where they are left to JAX."""
    effective: Effective | None = None
    """Of turned axes: what their errors follow from."""
    label: Label | None = None
    """Of correlated features in turned axes."""
    among: Among | None = None
    """Of predictions that fall apart into states; per weight."""
    seen_through: tuple[Channel, Array] | None = None
    """Of such predictions in turned axes: what the labels make of them, and mean log D + log chi of the spectrum between."""

    def unknowns(self, signal: Array | float = 1.0) -> Array:
        """log L, log t and gain of what a weight feels, h = L (gain w0 + sqrt(t) z); last.  In units of the signal."""
        xp = backend_of(self.L).xp
        return xp.stack([xp.log(self.L), xp.log(self.chi_hat / (signal * self.L**2)), self.m_hat / self.L], -1)

    def unknown_slopes(self, signal: Array | float = 1.0) -> Array:
        """Of these, by row, in m, q and chi."""
        assert self.slopes is not None
        xp, rows = backend_of(self.L).xp, ([], [], [])
        for by, unit in zip(self.slopes, (signal, signal, 1.0), strict=True):
            of_L = by.L / self.L
            change = of_L, by.chi_hat / self.chi_hat - 2 * of_L, (by.m_hat - self.m_hat * of_L) / self.L
            for row, x in zip(rows, change, strict=True):
                row.append(unit * x)
        return xp.stack(sum(rows, []), -1).reshape(*self.L.shape, 3, 3)


class _Nodes(NamedTuple):
    """Weights of an average over v, and those of its derivatives, taken by parts but for the sign."""

    weight: Array
    first: Array
    second: Array


def _normal(v: Array, variance: Scalar, weight: Array) -> _Nodes:
    """Of N(0, variance)."""
    z = v / variance
    return _Nodes(weight, -z * weight, (z**2 - 1 / variance) * weight)


def _average(
    alpha: Scalar, over: _Nodes, tilted: Tilted, beta: Scalar | None, m_hat: Scalar | None = None
) -> tuple[Channel, Slopes, Slopes]:
    """(1) from the tilted loss at nodes, m_hat = L if None; and what it changes with in q and chi, of m_hat only if it is L.

    Replicon 1 − C E(beta Var)² (theory 7.2).
    """
    cooling = 0.0 if beta is None else 1 / beta
    weight, first, second = (alpha * x for x in over)
    slope, bend = tilted.slope, tilted.curvature
    L, of_bend, of_both = -(first @ slope), second @ bend / 2, -(first @ (slope * bend))
    by_q = Slopes(of_bend, of_both, of_bend)
    L_chi = cooling * of_bend - second @ slope**2 / 2
    by_chi = Slopes(L_chi, cooling * (of_both - weight @ bend**2) - 2 * (weight @ (slope**2 * bend)), L_chi)
    found = Channel(
        potential=weight @ tilted.potential,
        m_hat=L if m_hat is None else m_hat,
        chi_hat=weight @ slope**2,
        L=L,
        energy=weight @ tilted.loss,
        entropy=jnp.where(weight > 0, weight * tilted.entropy, 0.0).sum(),
        replicon=(jnp.ones_like(L), weight @ bend**2),
        among=jax.tree.map(lambda x: weight @ x, tilted.among),
    )
    return found, by_q, by_chi


def square_channel(
    alpha: Array, m: Array, q: Array, rho: Array, noise: Array, chi: Array, beta: Array, lengths: RowLengths | None
) -> Channel:
    """Square loss of a regression, in closed form; of points in NumPy or JAX, lengths last.

    With u = 1/(1 + t chi) and R = t eg + noise:  L = alpha E[t u],  chi_hat = alpha E[t R u²].  (7.1)
    """
    xp = backend_of(q, chi).xp
    one = xp.ones_like(q)[..., None]
    t, share = (one, one) if lengths is None else (lengths.squares, lengths.share)
    eg, chi_ = (rho - 2 * m + q)[..., None], chi[..., None]

    def mean(x: Array) -> Array:
        return alpha * (share * x).sum(-1)

    u, R, heat = 1 / (1 + t * chi_), t * eg + noise[..., None], beta[..., None]
    square = mean((t * u) ** 2)
    L, chi_hat, log = mean(t * u), mean(t * R * u**2), xp.log1p(t * chi_)
    zero, bend = 0 * square, -2 * mean(t**2 * R * u**3)
    return Channel(
        potential=mean(log / heat + R * u) / 2,
        m_hat=L,
        chi_hat=chi_hat,
        L=L,
        energy=mean(t * chi_ * u / heat + R * u**2) / 2,
        entropy=mean(t * chi_ * u - log) / 2,
        replicon=(xp.ones_like(L), square),
        slopes=(Slopes(zero, -2 * square, zero), Slopes(zero, square, zero), Slopes(-square, bend, -square)),
    )


def by_length(lengths: RowLengths, channel: Callable[..., Channel], m, q, chi, rho) -> Channel:
    """Rows sqrt(t) x: the channel at t times its order parameters, averaged over t.  (7.1)

    Fields are derivatives in those, so they gain a factor t, and their slopes t².
    """

    def of_length(t: Scalar) -> Channel:
        c = channel(t, t * m, t * q, t * chi, t * rho)
        level, stiffness = c.replicon
        slopes = None if c.slopes is None else jax.tree.map(lambda x: t**2 * x, c.slopes)
        c = c._replace(m_hat=t * c.m_hat, chi_hat=t * c.chi_hat, L=t * c.L)
        if c.among is not None:
            c = c._replace(among=Among(c.among.potential, t * c.among.spread, t**2 * c.among.square))
        return c._replace(replicon=(level, t**2 * stiffness), slopes=slopes)

    return jax.tree.map(lambda x: jnp.tensordot(lengths.share, x, 1), jax.vmap(of_length)(lengths.squares))


def _breaks(loss: Loss, y: Scalar, chi: Scalar, beta: Scalar | None) -> tuple[Array, Array]:
    """Where the tilted loss bends, and how sharply."""
    at = jnp.asarray([*loss.bends(y, chi)], jnp.result_type(chi))
    return at, jnp.broadcast_to(loss.blur(chi, beta), at.shape)


def residual_channel(loss: Loss, alpha: Scalar, R: Scalar, chi: Scalar, beta: Scalar | None) -> Channel:
    """Of labels that differ from the mean prediction by N(0, R)."""
    zero, root = jnp.zeros_like(R), jnp.sqrt(R)
    at, width = _breaks(loss, zero, chi, beta)
    x, weight = normal_nodes(jnp.append(at, 0.0) / root, jnp.append(width, root) / root)
    v = root * x
    tilted = loss.tilted_at(zero, v, chi, beta)
    found, by_R, by_chi = _average(alpha, _normal(v, R, weight), tilted, beta)
    return found._replace(slopes=(Slopes(*(-2 * x for x in by_R)), by_R, by_chi))


def regression_channel(
    loss: Loss, alpha: Scalar, m: Scalar, q: Scalar, rho: Scalar, noise: Scalar, chi: Scalar, beta: Scalar | None
) -> Channel:
    """y = u0 + N(0, noise), for any loss: over y ~ N(0, rho + noise), and v given y."""
    if loss.of(ResidualLoss):
        return residual_channel(loss, alpha, rho - 2 * m + q + noise, chi, beta)
    total = rho + noise
    variance = _positive(q - m**2 / total, q)  # of v given y
    deviation = jnp.sqrt(variance)

    def of_label(x):
        y = jnp.sqrt(total) * x
        at, width = _breaks(loss, y, chi, beta)
        z, weight = normal_nodes(
            jnp.append(at - m / total * y, 0.0) / deviation, jnp.append(width, deviation) / deviation
        )
        tilted = loss.tilted_at(y, m / total * y + deviation * z, chi, beta)
        return tilted, _normal(deviation * z, variance, weight), z

    nodes, share = (jnp.asarray(x, m.dtype)[:, None] for x in (_HERMITE, _HERMITE_WEIGHTS))
    tilted, over, z = jax.vmap(of_label)(nodes[:, 0])
    over = jax.tree.map(lambda x: share * x, over)
    # −d/du0: y − m v/q = sqrt(total) x − m/q v, of variance total − m²/q = total spread/q.
    y, v = jnp.sqrt(total) * nodes, m / total * jnp.sqrt(total) * nodes + deviation * z
    score = (y - m / q * v) / _positive(total - m**2 / q, total)
    m_hat = -alpha * (over.weight * score * tilted.slope).sum()
    over, tilted = jax.tree.map(jnp.ravel, (over, tilted))
    return _average(alpha, over, tilted, beta, m_hat)[0]


class Labels(NamedTuple):
    """P(y | u0): "probit", sign(u0 + N(0, noise)); "logit", 1/(1 + exp(−y u0)); "random", tossed."""

    kind: str
    noise: Scalar

    def chance(self, y: float, mean: Array, variance: Scalar) -> tuple[Array, Array, Array]:
        """P(y) for u0 ~ N(mean, variance), and its first and second derivative in the mean."""
        if self.kind == "random":
            return jnp.full_like(mean, 0.5), jnp.zeros_like(mean), jnp.zeros_like(mean)
        if self.kind == "probit":
            root = jnp.sqrt(variance + self.noise)
            z = y * mean / root
            density = jnp.exp(-(z**2) / 2) / (jnp.sqrt(2 * jnp.pi) * root)
            return ndtr(z), y * density, -z / root * density
        u = mean[:, None] + jnp.sqrt(variance) * jnp.asarray(_HERMITE, mean.dtype)
        p, weight = jax.nn.sigmoid(y * u), jnp.asarray(_HERMITE_WEIGHTS, mean.dtype)
        rise = p * (1 - p)
        return p @ weight, y * rise @ weight, rise * (1 - 2 * p) @ weight


def classification_channel(
    loss: Loss, labels: Labels, alpha: Scalar, m: Scalar, q: Scalar, rho: Scalar, chi: Scalar, beta: Scalar | None
) -> Channel:
    """Labels ±1."""
    each = [_of_class(loss, labels, y, m, q, rho, chi, beta) for y in _classes(loss)]
    v, chance, rise, bend, tilted = jax.tree.map(lambda *x: jnp.concatenate(x), *each)
    # By parts of P(y | v) N(v; 0, q), where P follows the mean m v/q of the truth; and of its derivative in that.
    k, z = m / q, v / q
    over = _Nodes(chance, k * rise - z * chance, k**2 * bend - 2 * k * z * rise + (z**2 - 1 / q) * chance)
    turn = k * bend - z * rise

    def mean(weight: Array, x: Array) -> Scalar:
        return alpha * (weight @ x)

    slope, curvature = tilted.slope, tilted.curvature
    found, by_q, by_chi = _average(alpha, over, tilted, beta, -mean(rise, slope))
    cooling = 0.0 if beta is None else 1 / beta
    L_m = -mean(turn, curvature)
    by_m = Slopes(-mean(bend, curvature), mean(rise, 2 * slope * curvature), L_m)
    m_hat_chi = mean(turn, cooling * curvature - slope**2) / 2
    return found._replace(slopes=(by_m, by_q._replace(m_hat=-L_m / 2), by_chi._replace(m_hat=m_hat_chi)))


def _classes(loss: Loss) -> tuple[tuple[float, float], ...]:
    """Labels to look at, and for how many each stands."""
    return ((1.0, 2.0),) if loss.of(MarginLoss) else ((1.0, 1.0), (-1.0, 1.0))


def _of_class(loss: Loss, labels: Labels, y: tuple[float, float], m, q, rho, chi, beta):
    """Nodes v; their weights times P(y) and its derivatives in the mean of u0; and the tilted loss there."""
    (label, share), root = y, jnp.sqrt(q)
    here = jnp.asarray(label, q.dtype)
    spread = _positive(rho - m**2 / q, rho)
    at, width = _breaks(loss, here, chi, beta)
    sharp = jnp.minimum(
        jnp.sqrt(spread + labels.noise) * q / jnp.maximum(jnp.abs(m), 1e-300), root
    )  # of the truth's sign
    x, weight = normal_nodes(jnp.append(at, 0.0) / root, jnp.append(width, sharp) / root)
    v = root * x
    chances = labels.chance(label, m / q * v, spread)
    tilted = loss.tilted_at(here, v, chi, beta)
    return v, *(share * weight * x for x in chances), tilted


def _positive(x: Scalar, of: Scalar) -> Scalar:
    """Not below a trifle, where a search strays."""
    return jnp.maximum(x, 1e-12 * of)


def classification_error(labels: Labels, m: Scalar, q: Scalar, rho: Scalar) -> Scalar:
    """Of the sign of the mean prediction: P(y v < 0)."""
    if labels.kind == "random":
        return jnp.full_like(m, 0.5)
    if labels.kind == "probit":
        return jnp.arccos(jnp.clip(m / jnp.sqrt(q * (rho + labels.noise)), -1.0, 1.0)) / jnp.pi
    x, weight = normal_nodes(jnp.zeros((1,), q.dtype), jnp.ones((1,), q.dtype))
    v = jnp.sqrt(q) * x
    wrong, *_ = labels.chance(-1.0, m / q * v, _positive(rho - m**2 / q, rho))
    return (weight * jnp.where(v > 0, wrong, 1 - wrong)).sum()


def regression_loss(loss: Loss, m: Scalar, q: Scalar, rho: Scalar, noise: Scalar) -> Scalar:
    """E ell(y, v) on fresh labels."""
    total, none = rho + noise, jnp.zeros((), q.dtype)

    def of_label(y, mean, deviation):
        at = jnp.asarray([*loss.kinks(y)], q.dtype)
        z, weight = normal_nodes((jnp.append(at, mean) - mean) / deviation, jnp.zeros(at.size + 1, q.dtype))
        return weight @ jax.vmap(lambda v: loss(y, v))(mean + deviation * z)

    if loss.of(ResidualLoss):
        return of_label(none, none, jnp.sqrt(rho - 2 * m + q + noise))
    y, deviation = jnp.sqrt(total) * jnp.asarray(_HERMITE, q.dtype), jnp.sqrt(_positive(q - m**2 / total, q))
    return jnp.asarray(_HERMITE_WEIGHTS, q.dtype) @ jax.vmap(lambda y: of_label(y, m / total * y, deviation))(y)


def classification_loss(loss: Loss, labels: Labels, m: Scalar, q: Scalar, rho: Scalar) -> Scalar:
    """E ell(y, v) on fresh labels."""
    total, root = jnp.zeros_like(q), jnp.sqrt(q)
    for label, share in _classes(loss):
        here = jnp.asarray(label, q.dtype)
        at = jnp.asarray([*loss.kinks(here)], q.dtype)
        x, weight = normal_nodes(jnp.append(at, 0.0) / root, jnp.zeros(at.size + 1, q.dtype))
        chance, *_ = labels.chance(label, m / q * root * x, _positive(rho - m**2 / q, rho))
        total += share * (weight * chance) @ jax.vmap(lambda v, here=here: loss(here, v))(root * x)
    return total
