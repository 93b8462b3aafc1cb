"""The replica-symmetric free energy per weight: the whole theory in three functions (theory 1.1, [Q]).

    f = energetic(order) + coupling(order, fields) + entropic(fields),   extremised over everything.

Whoever brings a new loss writes another `energetic`; a new prior, another `entropic`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.codebooks import Codebook
from replicajax.models._task import Task, Taught
from replicajax.numerics import Nearby, SoftRounding, hard_rounding, soft_rounding

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


def energetic(task: Task, order: Order, beta: Scalar, unit: Scalar | float = 1.0) -> Scalar:
    """The data's share, `Task.channel`; of the square loss (alpha/2) [ log(1 + chi)/beta + R/(1 + chi) ].  (1.1, first line)

    `unit` replaces the 1; unit = 0 turns the square loss into the hard constraint y = x·w (see `_saddle`).
    """
    if not task.closed:
        return task.channel(*order, beta).potential
    assert isinstance(task, Taught)
    R = task.error(order.m, order.q) + task.noise
    return task.alpha / 2 * (jnp.log(unit + order.chi) / beta + R / (unit + order.chi))


def coupling(order: Order, fields: Fields, beta: Scalar) -> Scalar:
    """m_hat m − ½ L (q + chi/beta) + ½ chi_hat chi.  (1.1, second line)"""
    (m, q, chi), (m_hat, chi_hat, L) = order, fields
    return m_hat * m - L * (q + chi / beta) / 2 + chi_hat * chi / 2


def entropic(task: Task, book: Codebook, fields: Fields, beta: Scalar) -> Scalar:
    """−(1/beta) E log sum_k exp{beta [h a_k − ½ (L + ridge) a_k²]}: the codebook's share.  (1.1, third line)"""
    return -weight_averages(task, book, fields, beta).rounding.potential


class WeightAverages(NamedTuple):
    """Averages over teacher and field of one weight's distribution on the codebook."""

    rounding: SoftRounding
    alignment: Scalar
    """E w0 <a>."""


def weight_averages(
    task: Task,
    book: Codebook,
    fields: Fields,
    beta: Scalar,
    cold: bool | None = None,
    nearby: Nearby | None = None,
) -> WeightAverages:
    """Averages over h = m_hat w0 + sqrt(chi_hat) z of the weight's distribution at inverse temperature beta.

    `cold` says whether beta = inf, if that is known before compiling; `nearby` what is known of the averages here.
    """
    curvature = fields.L + task.ridge
    if nearby is not None:
        return _average(task, fields, partial(nearby.soften, book.levels, curvature, beta))
    return _average(task, fields, _each(partial(soft_rounding, book.levels, curvature, beta, cold=cold)))


def rounded_averages(task: Task, book: Codebook, fields: Fields, nearby: Nearby | None = None) -> WeightAverages:
    """The same with every weight at its most probable level: h / (L + ridge) rounded to the nearest."""
    if nearby is not None:
        return _average(task, fields, partial(nearby.harden, book.levels, fields.L + task.ridge))
    return _average(task, fields, _each(partial(hard_rounding, book.levels, fields.L + task.ridge)))


def _each(rounding: Callable[[Array, Array], SoftRounding]):
    """For many fields; a batch axis of 1 would only slow compilation."""

    def all_of(mean: Array, deviation: Array) -> SoftRounding:
        if mean.shape[0] == 1:
            return jax.tree.map(lambda x: x[None], rounding(mean[0], deviation[0]))
        return jax.vmap(rounding)(mean, deviation)

    return all_of


def _average(task: Task, fields: Fields, rounding: Callable[[Array, Array], SoftRounding]) -> WeightAverages:
    """One Gaussian field for each component N(w, v) of the teacher, where Stein's lemma gives

    E w0 <a> = w E<a> + v m_hat E d<a>/dh.  (1.1, 1.4)
    """
    weight, w, v = task.weights()
    each = rounding(fields.m_hat * w, jnp.sqrt(fields.m_hat**2 * v + fields.chi_hat))
    alignment = weight @ (w * each.mean + v * fields.m_hat * each.response)
    return WeightAverages(jax.tree.map(lambda x: jnp.tensordot(weight, x, 1), each), alignment)


def free_energy(task: Task, book: Codebook, beta: Scalar, order: Order, fields: Fields) -> Scalar:
    """f of theory 1.1 at any order parameters and fields; its gradient vanishes at a solution."""
    return energetic(task, order, beta) + coupling(order, fields, beta) + entropic(task, book, fields, beta)


def fields_from_order(task: Task, order: Order, beta: Scalar, unit: Scalar | float = 1.0) -> Fields:
    """Stationarity of f in (m, q, chi), by differentiating `energetic`.

    For the square loss L = m_hat = alpha/(1 + chi) and chi_hat = alpha R/(1 + chi)².
    """
    if not task.closed:
        said = task.channel(*order, beta)
        return Fields(said.m_hat, said.chi_hat, said.L)
    slope = jax.grad(energetic, argnums=1)(task, order, beta, unit)
    L = 2 * slope.q
    return Fields(m_hat=-slope.m, chi_hat=L / beta - 2 * slope.chi, L=L)


def order_from_averages(averages: WeightAverages) -> Order:
    """Stationarity of f in the fields: m = E w0 <a>, q = E <a>², chi = beta E Var(a)."""
    return Order(averages.alignment, averages.rounding.square, averages.rounding.response)
