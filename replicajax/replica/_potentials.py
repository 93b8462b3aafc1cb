"""The replica-symmetric free energy per weight: the whole theory in three functions (theory 1.1, [Q]).

    f = energetic(order) + coupling(order, fields) + entropic(fields),   extremised over everything.

Whoever brings a new loss writes another `energetic`; a new prior, another `entropic`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.codebooks import Codebook
from replicajax.numerics import SoftRounding, soft_rounding
from replicajax.replica._task import LinearRegression

Scalar = Float[Array, ""]


class Order(NamedTuple):
    """Order parameters: m = w0·w/N, q = <w>²/N, chi = beta (<w²> − <w>²)/N."""

    m: Scalar
    q: Scalar
    chi: Scalar


class Fields(NamedTuple):
    """Conjugates of the order parameters: a weight feels h ~ m_hat w0 + sqrt(chi_hat) z and the curvature L + ridge."""

    m_hat: Scalar
    chi_hat: Scalar
    L: Scalar


def energetic(task: LinearRegression, order: Order, beta: Scalar, unit: Scalar | float = 1.0) -> Scalar:
    """(alpha/2) [ log(1 + chi)/beta + R/(1 + chi) ]: the data's share.  (1.1, first line)

    `unit` replaces the 1; unit = 0 turns the square loss into the hard constraint y = x·w (see `_saddle`).
    """
    R = task.residual_variance(order.m, order.q)
    return task.alpha / 2 * (jnp.log(unit + order.chi) / beta + R / (unit + order.chi))


def coupling(order: Order, fields: Fields, beta: Scalar) -> Scalar:
    """m_hat m − ½ L (q + chi/beta) + ½ chi_hat chi.  (1.1, second line)"""
    (m, q, chi), (m_hat, chi_hat, L) = order, fields
    return m_hat * m - L * (q + chi / beta) / 2 + chi_hat * chi / 2


def entropic(task: LinearRegression, book: Codebook, fields: Fields, beta: Scalar) -> Scalar:
    """−(1/beta) E log sum_k exp{beta [h a_k − ½ (L + ridge) a_k²]}: the codebook's share.  (1.1, third line)"""
    return -weight_averages(task, book, fields, beta).potential


def weight_averages(task: LinearRegression, book: Codebook, fields: Fields, beta: Scalar) -> SoftRounding:
    """Averages over h ~ N(0, m_hat² signal + chi_hat) of one weight's distribution on the codebook."""
    deviation = jnp.sqrt(fields.m_hat**2 * task.signal + fields.chi_hat)
    curvature = fields.L + task.ridge
    return soft_rounding(book.levels, curvature, beta, jnp.zeros_like(deviation), deviation)


def free_energy(task: LinearRegression, book: Codebook, beta: Scalar, order: Order, fields: Fields) -> Scalar:
    """f of theory 1.1 at any order parameters and fields; its gradient vanishes at a solution."""
    return energetic(task, order, beta) + coupling(order, fields, beta) + entropic(task, book, fields, beta)


def fields_from_order(task: LinearRegression, order: Order, beta: Scalar, unit: Scalar | float = 1.0) -> Fields:
    """Stationarity of f in (m, q, chi), by differentiating `energetic`.

    For the square loss L = m_hat = alpha/(1 + chi) and chi_hat = alpha R/(1 + chi)².
    """
    slope = jax.grad(energetic, argnums=1)(task, order, beta, unit)
    L = 2 * slope.q
    return Fields(m_hat=-slope.m, chi_hat=L / beta - 2 * slope.chi, L=L)


def order_from_averages(task: LinearRegression, fields: Fields, averages: SoftRounding) -> Order:
    """Stationarity of f in the fields: m = signal m_hat chi (Stein), q = E<a>², chi = beta E Var(a)."""
    return Order(task.signal * fields.m_hat * averages.response, averages.square, averages.response)
