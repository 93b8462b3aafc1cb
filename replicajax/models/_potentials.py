"""The replica-symmetric free energy per weight: the whole theory in three functions (theory 1.1, [Q]).

    f = energetic(order) + coupling(order, fields) + entropic(fields),   extremised over everything.

Whoever brings a new loss writes another `energetic`; a new prior, another `entropic`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models._task import Task, Taught, at_heat
from replicajax.models._turned import gain_of_rows, swept
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


def energetic(
    task: Task, order: Order, beta: Scalar, unit: Scalar | float = 1.0, fields: Fields | None = None
) -> Scalar:
    """The data's share, `Task.channel`; of the square loss (alpha/2) [ log(1 + chi)/beta + R/(1 + chi) ].  (1.1, first line)

    `unit` replaces the 1; unit = 0 turns the square loss into the hard constraint y = x·w (see `_saddle`).  In turned axes q
    and chi alone may allow several (`_turned`), of which the `fields` tell one.
    """
    if fields is not None and task.turned and not task.elementwise:
        assert isinstance(task, Taught)
        assert task.features is not None
        gain = gain_of_rows(task.features, task.signal, fields.L, order.chi, order.m)
        felt = jnp.stack([jnp.log(fields.L), jnp.log(fields.chi_hat / fields.L**2), gain])
        return swept(task, order.q, order.chi, beta, felt, slopes=False).channel.potential
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
    """`response_square` weighted by the square of each weight's eigenvalue."""
    own: Order
    """Of the weights."""
    label: Order
    """Of their predictions: each weight counts by its eigenvalue."""


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
    if nearby is not None:
        return _average(task, fields, lambda _, *at: nearby.soften(book.levels, fields.L + task.ridge, beta, *at))
    return _average(task, fields, _each(lambda k, *at: soft_rounding(book.levels, k, beta, *at, cold=cold)))


def rounded_averages(task: Task, book: Codebook, fields: Fields, nearby: Nearby | None = None) -> WeightAverages:
    """The same with every weight at its most probable level: h / curvature rounded to the nearest."""
    if nearby is not None:
        return _average(task, fields, lambda _, *at: nearby.harden(book.levels, fields.L + task.ridge, *at))
    return _average(task, fields, _each(partial(hard_rounding, book.levels)))


def _each(rounding: Callable[..., SoftRounding]):
    """For many curvatures and fields; a batch axis of 1 would only slow compilation."""

    def all_of(*at: Array) -> SoftRounding:
        if at[0].shape[0] == 1:
            return jax.tree.map(lambda x: x[None], rounding(*(x[0] for x in at)))
        return jax.vmap(rounding)(*at)

    return all_of


def _average(task: Task, fields: Fields, rounding: Callable[..., SoftRounding]) -> WeightAverages:
    """One Gaussian field for each component N(w, v) of the teacher, where Stein's lemma gives

    E w0 <a> = w E<a> + v m_hat E d<a>/dh.  (1.1, 1.4)

    Features of eigenvalue lambda bring fields m_hat lambda, chi_hat lambda and L lambda.  (7.3)
    """
    weight, w, v, scale = task.weights()
    size = jnp.ones_like(weight) if scale is None else scale
    m_hat = fields.m_hat * size
    each = rounding(fields.L * size + task.ridge, m_hat * w, jnp.sqrt(m_hat**2 * v + fields.chi_hat * size))
    each_order = Order(w * each.mean + v * m_hat * each.response, each.square, each.response)

    def mean(weight: Array, x: Any) -> Any:
        return jax.tree.map(lambda x: jnp.tensordot(weight, x, 1), x)

    found = WeightAverages(mean(weight, each), *[mean(weight, each_order)] * 2)
    if scale is None:
        return found
    bend = mean(weight * scale**2, each.response_square)
    return found._replace(
        rounding=found.rounding._replace(response_square=bend), label=mean(weight * scale, each_order)
    )


def free_energy(task: Task, book: Codebook, beta: Scalar, order: Order, fields: Fields) -> Scalar:
    """f of theory 1.1 at any order parameters and fields; its gradient vanishes at a solution."""
    data = energetic(task, order, beta, fields=fields)
    return data + coupling(order, fields, beta) + entropic(task, book, fields, beta)


def _said(task: Task, order: Order, beta: Scalar):
    """What the channel says, at beta = inf too."""
    if task.in_closed_form or not task.cools:
        return task.channel(*order, beta)
    if not _checks.is_traced(beta):
        return task.channel(*order, at_heat(task, beta, bool(np.isinf(beta))))
    infinite = jnp.isinf(beta)
    warm = jnp.where(infinite, 1.0, beta)
    return jax.lax.cond(infinite, lambda: task.channel(*order, None), lambda: task.channel(*order, warm))


def fields_from_order(task: Task, order: Order, beta: Scalar, unit: Scalar | float = 1.0) -> Fields:
    """Stationarity of f in (m, q, chi), by differentiating `energetic`.

    For the square loss L = m_hat = alpha/(1 + chi) and chi_hat = alpha R/(1 + chi)².  Stationarity in the fields is
    `WeightAverages.label`: m = E w0 <a>, q = E <a>², chi = beta E Var(a).
    """
    if not task.closed:
        said = _said(task, order, beta)
        return Fields(said.m_hat, said.chi_hat, said.L)
    slope = jax.grad(energetic, argnums=1)(task, order, beta, unit)
    L = 2 * slope.q
    return Fields(m_hat=-slope.m, chi_hat=L / beta - 2 * slope.chi, L=L)
