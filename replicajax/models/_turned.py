"""The spectrum: what correlated features do between weights quantized in turned axes and the labels.  theory 7.2

With D = L_x lambda + z = L_x (lambda + u), B = m_hat_x lambda, kappa the noise that quantizing adds, K = tau B² + chi_hat_x
lambda + kappa, and means over directions,

    chi = mean 1/D,          q = mean K/D²;                              L = 1/chi − z,   chi_hat = q/chi² − kappa;   (1)
    chi_x = mean lambda/D,   q_x = mean lambda K/D²,   m_x = mean lambda tau B/D.                                     (2)

A row's channel says (m_hat, chi_hat, L)_x of (m, q, chi)_x.  Seen from the weights this is but another channel, of q and chi:

    channel_x + m_hat_x m_x − ½ L_x (q_x + chi_x/beta) + ½ chi_hat_x chi_x + mean[log D/(2 beta) − K/(2D)]
        + (log chi + 1 − z chi)/(2 beta) + q/(2 chi) − z q/2 + kappa chi/2.

Given q and chi alone the fields of the rows are themselves a saddle point, one of several where a loss is sharp and rows are
many.  Given what the weights feel as well, they are not: L chi = mean lambda/(lambda + u) says what z is, (1) what kappa and
chi_hat_x are, (2) what the rows are asked, and (1) again what that makes the weights feel.

A turned teacher is Gaussian to the weights, who know nothing of it but through the data: their own field is N(0, chi_hat).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.models._channel import Channel, Effective, Label, Slopes, square_channel
from replicajax.models._features import Features
from replicajax.numerics import JAX, backend_of, harmonic_root


class _Through(NamedTuple):
    """(1) and (2) at given fields of the rows, with E = 1/(lambda + u), gain = m_hat_x/L_x and t = chi_hat_x/L_x²."""

    u: Array
    L: Array
    """L_x."""
    gain: Array
    t: Array
    k: Array
    """kappa/L_x²."""
    overlap: Array
    m: Array
    q: Array
    chi: Array

    @property
    def ridge(self) -> Array:
        return self.L * self.u

    @property
    def kappa(self) -> Array:
        return self.L**2 * self.k


def _through(features: Features, signal: Array, u: Array, L: Array, gain: Array, t: Array, q: Array) -> _Through:
    """u, L_x, gain, t and q of the weights in."""
    mean, eigenvalues, power = features.mean, features.eigenvalues, _power(features, signal)
    E = 1 / (eigenvalues + u[..., None])
    heard = (gain[..., None] ** 2 * power * eigenvalues + t[..., None]) * eigenvalues
    k = (q - mean(heard * E**2)) / mean(E**2)
    return _Through(
        u,
        L,
        gain,
        t,
        k,
        overlap=gain * mean(power * eigenvalues * E),
        m=gain * mean(power * eigenvalues**2 * E),
        q=mean(eigenvalues * (heard + k[..., None]) * E**2),
        chi=mean(eigenvalues * E) / L,
    )


def _power(features: Features, signal: Array) -> Array:
    """tau."""
    return signal[..., None] * features.teacher


def _seen_by_weights(features: Features, signal: Array, row: Channel, at: _Through, q, chi, beta) -> Channel:
    """The whole as a channel of q and chi; with no slopes."""
    xp, mean = backend_of(q, chi).xp, features.mean
    here = _spectrum(features, at.L, at.u, chi)
    level, C = row.replicon
    z, kappa, zero = at.ridge, at.kappa, xp.zeros_like(q)
    m_hat, chi_hat = at.L * at.gain, at.L**2 * at.t  # of the rows, as the row says them too at a saddle point
    B2 = m_hat[..., None] ** 2 * _power(features, signal) * features.eigenvalues**2
    pushed = mean((B2 + chi_hat[..., None] * features.eigenvalues + kappa[..., None]) / here.D)
    coupling = m_hat * at.m - at.L * (at.q + at.chi / beta) / 2 + chi_hat * at.chi / 2
    gauss = (here.mean_log + 1 - z * chi) / (2 * beta) + (q / chi - pushed - z * q + kappa * chi) / 2
    return Channel(
        potential=row.potential + coupling + gauss,
        m_hat=here.L,
        chi_hat=q / chi**2 - kappa,
        L=here.L,
        energy=row.energy,
        entropy=row.entropy - here.mean_log / 2,
        replicon=here.replicon(C / level, chi),
        effective=Effective(z, kappa, *[zero] * 3),
        label=Label(at.overlap, at.m, at.q, at.chi, mean(features.eigenvalues) + zero),
        seen_through=None if row.among is None else (row, here.mean_log),
    )


class Spectrum(NamedTuple):
    """D = L_x (lambda + u), where mean 1/D = chi."""

    D: Array
    L: Array
    """Of the weights."""
    chi: Array
    """chi_x."""
    mean_log: Array
    """mean log D + log chi."""
    moments: tuple[Array, Array, Array]
    """mean lambda^k/D²."""

    def replicon(self, C: Array, chi: Array) -> tuple[Array, Array]:
        """r = [(1 − C a22)(a11 − A) + C a12²] (a3 − chi²)/(−chi⁴), A = a3 chi²/(a3 − chi²), is linear in a3."""
        a11, a12, a22 = self.moments
        part = 1 - C * a22
        return (part * a11 + C * a12**2) / chi**2, (part * (a11 - chi**2) + C * a12**2) / chi**4


def _spectrum(features: Features, L: Array, u: Array, chi: Array) -> Spectrum:
    xp, mean, eigenvalues = backend_of(L, chi).xp, features.mean, features.eigenvalues
    D = L[..., None] * (eigenvalues + u[..., None])
    a11, a12, a22 = (mean(eigenvalues**power / D**2) for power in (0, 1, 2))
    return Spectrum(D, 1 / chi - L * u, mean(eigenvalues / D), mean(xp.log(D)) + xp.log(chi), (a11, a12, a22))


def spectrum(features: Features, L: Array, chi: Array) -> Spectrum:
    """At given L_x and chi."""
    return _spectrum(features, L, harmonic_root(backend_of(chi), features.share, features.eigenvalues, L * chi), chi)


def turned_square(features: Features, alpha, signal, noise, q, chi, beta) -> Channel:
    """Square loss of a regression, in closed form but for u; of points in NumPy or JAX, eigenvalues last.

    There L_x (1 + chi_x) = alpha makes mean (1/chi + lambda) E = alpha, and alpha t = R; bias and noise of (1) and (2) are then
    two linear equations in R and k,

        (1 − mean lambda² E²/alpha) R − mean lambda E² k = u² mean lambda tau E² + noise,
        mean lambda E² R/alpha + mean E² k = q − mean lambda² tau E².
    """
    on = backend_of(q, chi)
    xp, mean, eigenvalues, power = on.xp, features.mean, features.eigenvalues, _power(features, signal)
    share = features.share * (1 / chi[..., None] + eigenvalues)
    u = harmonic_root(on, share, eigenvalues, alpha)
    E = 1 / (eigenvalues + u[..., None])
    A, a, b, c = mean(E), mean(E**2), mean(eigenvalues * E**2), mean(eigenvalues**2 * E**2)
    s, v = mean(eigenvalues * power * E**2), mean(eigenvalues**2 * power * E**2)
    L = A / chi

    def solved(first: Array, second: Array) -> tuple[Array, Array]:
        determinant = (1 - c / alpha) * a + b**2 / alpha
        return (first * a + b * second) / determinant, ((1 - c / alpha) * second - b / alpha * first) / determinant

    R, _ = solved(u**2 * s + noise, q - v)
    at = _through(features, signal, u, L, xp.ones_like(q), R / alpha, q)
    rho = mean(eigenvalues * power)
    row = square_channel(alpha, at.m, at.q, rho, noise, at.chi, beta, None)
    found = _seen_by_weights(features, signal, row, at, q, chi, beta)

    # Derivatives: in q directly; in chi through u as well.
    u_chi = -A / (chi**2 * (a / chi + b))
    a_, b_, c_, s_, v_ = (
        -2 * mean(x * E**3) for x in (1.0, eigenvalues, eigenvalues**2, eigenvalues * power, eigenvalues**2 * power)
    )
    R_q, k_q = solved(xp.zeros_like(q), xp.ones_like(q))
    R_u, k_u = solved(2 * u * s + u**2 * s_ + c_ / alpha * R + b_ * at.k, -v_ - b_ / alpha * R - a_ * at.k)
    L_chi = -A / chi**2 - a * u_chi / chi
    z_chi = L_chi * u + L * u_chi
    chi_hat_chi = -2 * q / chi**3 - L * (2 * L_chi * at.k + L * k_u * u_chi)
    field, zero = -1 / chi**2 - z_chi, xp.zeros_like(q)
    m_u = -mean(eigenvalues**2 * power * E**2)
    m_chi, q_chi = m_u * u_chi, (R_u + 2 * m_u) * u_chi  # R = rho − 2 m_x + q_x + noise
    assert found.label is not None
    return found._replace(
        slopes=(
            Slopes(zero, zero, zero),
            Slopes(zero, 1 / chi**2 - L**2 * k_q, zero),
            Slopes(field, chi_hat_chi, field),
        ),
        label=found.label._replace(m_by=(zero, m_chi), q_by=(R_q, q_chi)),
    )


class Rows(Protocol):
    """What is asked of a task."""

    features: Any
    signal: Any

    @property
    def rho(self) -> Array: ...

    def label_channel(self, m: Array, q: Array, chi: Array, beta: Array | None, /) -> Channel: ...


class Swept(NamedTuple):
    """Weights to rows and back."""

    channel: Channel
    """As the weights see it, which feel what it says if they felt that before."""
    by: Float[Array, "3 5"] | None
    """log L, log t and gain of that, in q, chi and what log L, log t and gain were; None if not asked for."""


def _fields_of_rows(features: Features, signal: Array, felt: Array, q: Array, chi: Array) -> _Through:
    """Of weights that feel so much: log L, log chi_hat/L² and, of the rows, the gain."""
    mean, eigenvalues, gain = features.mean, features.eigenvalues, felt[2]
    u = _freedom(features, jnp.exp(felt[0]) * chi)
    E = 1 / (eigenvalues + u)
    A = mean(E)
    L = A / chi
    taught = mean(gain**2 * _power(features, signal) * eigenvalues**2 * E**2)
    # q − k mean E², in which q itself nearly cancels where rows say little.
    heard = jnp.exp(2 * felt[0] + felt[1]) / L**2 * mean(E**2) - q * mean((E / A - 1) ** 2)
    t = (heard - taught) / mean(eigenvalues * E**2)
    return _through(features, signal, u, L, gain, t, q)


def _freedom(features: Features, degrees: Array) -> Array:
    """u of mean lambda/(lambda + u); of points or of one, eigenvalues last."""
    on, eigenvalues, share = backend_of(degrees), features.eigenvalues, features.share
    xp, seen = on.xp, (features.share * (eigenvalues > 0)).sum(-1)
    most = xp.where((eigenvalues > 0).all(-1), xp.inf, (1 - _ALL) * seen)
    return harmonic_root(on, share * eigenvalues, eigenvalues, xp.minimum(degrees, most))


_ALL = 1e-6
"""Of the directions that rows see, the share that is always left to the weights, where others are not seen."""


def gain_of_rows(features: Features, signal: Array, L: Array, chi: Array, overlap: Array) -> Array:
    """m_hat_x/L_x, from what weights feel and their m; of points."""
    E = 1 / (features.eigenvalues + _freedom(features, L * chi)[..., None])
    return overlap / features.mean(_power(features, signal) * features.eigenvalues * E)


def swept(task: Rows, q: Array, chi: Array, beta: Array | None, felt: Float[Array, "3"], slopes: bool) -> Swept:
    """Any channel of the rows, asked once by weights that feel log L, log chi_hat/L² and, of the rows, a gain."""
    features, signal = task.features, task.signal

    def order(felt: Array, q: Array, chi: Array) -> tuple[Float[Array, "3"], _Through]:
        """Of predictions that there are: on the way q_x may fall below m_x²/rho."""
        at = _fields_of_rows(features, signal, felt, q, chi)
        return jnp.stack([at.m, jnp.maximum(at.q, at.m**2 / task.rho), at.chi]), at

    def back(rows: Array, q: Array, chi: Array) -> Float[Array, "3"]:
        L, mean = jnp.exp(rows[0]), features.mean
        u = harmonic_root(JAX, features.share, features.eigenvalues, L * chi)
        E = 1 / (features.eigenvalues + u)
        A, square = mean(E), mean(E**2)
        heard = (
            rows[2] ** 2 * _power(features, signal) * features.eigenvalues + jnp.exp(rows[1])
        ) * features.eigenvalues
        # 1/chi − z and q/chi² − kappa, which are small where chi is not.
        own, chi_hat = mean(features.eigenvalues * E) / chi, q * mean((E / A - 1) ** 2) + mean(heard * E**2)
        return jnp.stack([jnp.log(own), jnp.log(L**2 * chi_hat / (own**2 * square)), rows[2]])

    x, at = order(felt, q, chi)
    row = task.label_channel(x[0], x[1], x[2], beta)
    rows = row.unknowns()
    said = back(rows, q, chi)
    L = jnp.exp(said[0])
    found = _seen_by_weights(features, signal, row, at, q, chi, jnp.inf if beta is None else beta)
    found = found._replace(L=L, chi_hat=L**2 * jnp.exp(said[1]), m_hat=L * said[2])
    if not slopes:
        return Swept(found, None)
    if row.slopes is None:
        of_row = jax.jacfwd(lambda x: task.label_channel(x[0], x[1], x[2], beta).unknowns())(x)
    else:
        of_row = row.unknown_slopes()
    x_felt, x_q, x_chi = jax.jacfwd(lambda *v: order(*v)[0], (0, 1, 2))(felt, q, chi)
    by_rows, by_q, by_chi = jax.jacfwd(back, (0, 1, 2))(rows, q, chi)
    of_x = jnp.concatenate([x_q[:, None], x_chi[:, None], x_felt], 1)
    by = by_rows @ of_row @ of_x + jnp.concatenate([by_q[:, None], by_chi[:, None], jnp.zeros((3, 3), q.dtype)], 1)
    assert found.label is not None
    label = found.label._replace(m_by=tuple(of_x[0]), q_by=tuple(of_x[1]))
    return Swept(found._replace(label=label), by)


_EVOLUTIONS, _MOST, _POLISH = 4, 40, 2
"""Steps without derivatives, steps at most, and steps that carry derivatives: so many of them are exact."""
_STRIDE = 1.5


def turned(task: Rows, q: Array, chi: Array, beta: Array | None) -> Channel:
    """Of q and chi alone: where what the weights feel is what they felt, by Newton's method; of one point, in JAX."""

    def newton(felt: Array, q: Array, chi: Array, beta: Array | None) -> tuple[Array, Array]:
        """What weights feel next, less what they felt; and its Jacobian."""
        there = swept(held, q, chi, beta, felt, slopes=True)
        assert there.by is not None
        return there.channel.unknowns() - felt, there.by[:, 2:] - jnp.eye(3, dtype=felt.dtype)

    held, q_, chi_, heat = jax.lax.stop_gradient((task, q, chi, beta))

    def step(carry):
        felt, _, left = carry
        residual, jacobian = newton(felt, q_, chi_, heat)
        evolving = left > _MOST - _EVOLUTIONS
        change = jnp.where(evolving, residual, -_cramer(jacobian, residual))
        size = jnp.abs(change).max()
        felt = felt + change * jnp.minimum(1.0, _STRIDE / size)
        return felt, jnp.where(evolving, jnp.inf, size), left - 1

    def going(carry):
        _, size, left = carry
        return (size > 1e-9) & (left > 0)

    first = jnp.stack([-jnp.log(2 * chi_), jnp.log(2 * held.signal), jnp.ones_like(q_)])
    felt, *_ = jax.lax.while_loop(going, step, (first, jnp.full_like(q_, jnp.inf), _MOST))
    _, jacobian = newton(felt, q_, chi_, heat)

    def polish(felt, _):
        said = swept(task, q, chi, beta, felt, slopes=False).channel.unknowns()
        return felt - _cramer(jacobian, said - felt), None

    felt, _ = jax.lax.scan(polish, felt, None, length=_POLISH)
    return swept(task, q, chi, beta, felt, slopes=False).channel


def _cramer(a: Float[Array, "3 3"], b: Float[Array, "3"]) -> Float[Array, "3"]:
    """a^(-1) b."""
    cross: Any = [jnp.cross(a[(i + 1) % 3], a[(i + 2) % 3]) for i in range(3)]
    return jnp.stack(cross, -1) @ b / (a[0] @ cross[0])
