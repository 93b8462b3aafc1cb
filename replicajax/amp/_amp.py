"""Approximate message passing: quantized weights of an actual data set, and their test error from the data alone. [Q]

With rows of variance 1/N, from a = 0, g = 0 and a given V, each iteration is (theory 2)

    omega = X a − V g        g ← (y − omega)/(1 + V)        A = alpha/(1 + V)
    h = Xᵀ g + A a           a ← <a>_{h; A + ridge}         V ← beta mean_i Var_{h_i}(a)

The term V g (Onsager's) removes from X a what a has already learnt from each row, which leaves y − omega distributed like
the residual on a fresh row.  Its mean square is therefore an estimate of the test error that needs no test set.

Rows of unequal length l = |x|² (1 in the theory) put V l in the place of V, and sum l/(1 + V l)/N in that of A.

That is the square loss.  Of any other (GAMP, theory 7.4) the tilted loss phi(y, omega; V) of `models._channel` says it:

    g ← −phi'(y, omega; V)        A = sum phi''(y, omega; V)/N.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Loss, MarginLoss, Square, loss_for

START = 1.0
"""V before the first iteration, here and in state evolution."""
_BANDWIDTH = 0.5
"""Of the density of fields, in deviations of their Gaussian part."""
_SCALE_TOLERANCE = 0.25
"""How far from 1/columns the mean square of the entries of X may be, beyond six times its sampling error."""


class Trajectory(NamedTuple):
    """What each iteration found, from the start (entry 0) on; entries after the last iteration repeat it."""

    test_error: Float[Array, " steps+1"]
    """Estimate, from the data alone, of the mean squared error of the mean weights on fresh labels (noise included)."""
    susceptibility: Float[Array, " steps+1"]
    """V."""
    self_overlap: Float[Array, " steps+1"]
    """|a|²/N."""
    residual: Float[Array, " steps+1"]
    """Larger of rms change of the weights, over the rms level, and change of V, over 1 + V, before damping; inf at first."""
    overlap: Float[Array, " steps+1"]
    """w0·a/N; NaN unless the teacher was given."""
    generalization_error: Float[Array, " steps+1"]
    """|w0 − a|²/N; NaN unless the teacher was given."""


class AMPResult(eqx.Module):
    """Weights found by AMP.  Under `jax.vmap` every field gains the batch axis."""

    codebook: Codebook
    weights: Float[Array, " columns"]
    """Mean weight <a> of each site."""
    codes: Int[Array, " columns"]
    """Index of each site's most probable level: the quantized model."""
    susceptibility: Float[Array, ""]
    """V."""
    test_error: Float[Array, ""]
    """Estimated from the data alone for `weights`: mean squared error on fresh labels; for a loss of labels ±1 the share of
    them that the sign of the prediction misses."""
    rounded_test_error: Float[Array, ""]
    """Estimated from the data alone for `quantized`."""
    replicon: Float[Array, ""]
    """1 − alpha/(1+V)² mean (beta Var)² on these data; where negative, a fixed point that damping held is not the
    equilibrium, and the estimates above are not to be trusted.  −inf at beta = inf."""
    trajectory: Trajectory
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    """Iterations used."""

    @property
    def quantized(self) -> Float[Array, " columns"]:
        """The level of each code."""
        return jnp.take(self.codebook.levels, self.codes)

    def __str__(self) -> str:
        if np.ndim(self.converged):
            converged = np.asarray(self.converged)
            return f"AMP of shape {converged.shape}: {int(converged.sum())} of {converged.size} converged"
        state = "converged" if self.converged else "NOT CONVERGED"
        trust = "" if self.replicon > 0 else "   UNSTABLE: do not trust these"
        return (
            f"AMP, {len(self.weights)} weights, {self.codebook}: {state} after {int(self.steps)} iterations\n"
            f"  test error            {float(self.test_error):.6g}   of the mean weights, estimated from the training data\n"
            f"  rounded test error    {float(self.rounded_test_error):.6g}   of the most probable levels\n"
            f"  replicon              {float(self.replicon):.4g}{trust}\n"
            f"  last change           {float(self.trajectory.residual[-1]):.2g}"
        )


def amp(
    X: ArrayLike | lx.AbstractLinearOperator,
    y: ArrayLike,
    codebook: Codebook,
    beta: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    steps: int = 200,
    tolerance: float | None = None,
    damping: ArrayLike = 0.0,
    start: ArrayLike | None = None,
    susceptibility: ArrayLike = START,
    teacher: ArrayLike | None = None,
    row_norms: bool = False,
    loss: Loss | None = None,
) -> AMPResult:
    """Marginals of p(w) ∝ exp(−beta H(w)) over codewords, H = sum ell(y, x·w) + ½ ridge |w|², by message passing.

    Pure and jitted; `jax.vmap` runs it over instances, codebooks or temperatures.  Two products with X per iteration, in
    the dtype of X (of y for an operator).

    Exact for iid rows of many columns where the theory's replicon is positive; elsewhere it need not converge, and says
    so.  Near that line single instances of a few thousand columns may oscillate on the stable side, mostly those where
    the largest singular value of X comes out above its limit 1 + sqrt(alpha); damping settles most of them.

    Args:
      X: (rows, columns), or a lineax operator of that shape; entries of mean 0 and variance 1/columns (of an operator this
        is not checked).
      y: (rows,).
      codebook: the levels.
      beta: inverse temperature, > 0; `jnp.inf` rounds h / (A + ridge) to the nearest level, and never settles (every
        finite codebook is unstable there).
      ridge: coefficient of |w|²/2.
      steps: most iterations.
      tolerance: on `trajectory.residual`; sqrt(eps) of the dtype if None.  0 always does all steps.
      damping: in [0, 1): fraction of the old weights and V kept at each iteration.
      start: (columns,) first weights, zero if None; they must not have been learnt from the same rows.
      susceptibility: V of the first iteration, >= 0.  Where state evolution has several fixed points (cold, few rows),
        beta times the mean squared level is the start that knows nothing at all.
      teacher: (columns,) true weights if known, for the trajectory's overlap and generalization error; not used otherwise.
      row_norms: use each row's own |x|² instead of 1, as real data need, whose rows differ in length (not for operators).
      loss: ell, one of `rj.losses` or your own (beta finite then); ½ (y − u)² if None.

    Raises:
      TypeError, ValueError: shapes that disagree, NaN or inf in the data, entries of X far from variance 1/columns, or an
        argument out of range.  Failure to converge raises nothing.

    Source: theory 2, [Q].
    """
    design = X if isinstance(X, lx.AbstractLinearOperator) else _checked(X)
    rows, columns = _shape(design)
    y = _checks.vector("y", y, rows, "row of X")
    y = y if isinstance(design, lx.AbstractLinearOperator) else y.astype(design.dtype)
    _checks.instance("codebook", codebook, Codebook, "uniform(bits=2, width=1.5)")
    scalars = checked_scalars(y.dtype, beta, ridge, damping, tolerance, susceptibility=susceptibility)
    first = jnp.zeros(columns) if start is None else _checks.vector("start", start, columns, "column of X")
    known = None if teacher is None else _checks.vector("teacher", teacher, columns, "column of X").astype(y.dtype)
    book = Codebook(codebook.levels.astype(y.dtype))
    steps = _checks.integer("steps", steps, 1, 10**6)
    if row_norms and isinstance(design, lx.AbstractLinearOperator):
        raise ValueError("row_norms must be False for a linear operator, whose rows are not at hand")
    loss = loss_for(loss, y)
    cold = not _checks.is_traced(beta) and bool(np.isinf(np.asarray(beta)).any())
    if cold and not loss.cools:
        raise ValueError(f"beta must be finite for {loss}, which knows no other, got inf")
    return _amp(design, y, book, first.astype(y.dtype), known, scalars, steps, bool(row_norms), loss, cold)


def checked_scalars(dtype, beta, ridge, damping, tolerance, **others: ArrayLike) -> tuple[Array, ...]:
    """What every kind of message passing is told by single numbers: beta, ridge, damping, tolerance and non-negative others."""
    damping = _checks.nonnegative("damping", damping)
    if not _checks.is_traced(damping) and bool((damping >= 1).any()):
        raise ValueError(f"damping must be below 1, got {_checks.brief(damping)}")
    default = float(jnp.finfo(dtype).eps) ** 0.5
    scalars = (
        _checks.positive("beta", beta, infinite=True),
        _checks.nonnegative("ridge", ridge),
        damping,
        _checks.nonnegative("tolerance", default if tolerance is None else tolerance),
        *(_checks.nonnegative(name, value) for name, value in others.items()),
    )
    if any(s.ndim for s in scalars):
        *names, last = "beta", "ridge", "damping", *others
        raise ValueError(f"{', '.join(names)} and {last} must be single numbers (use jax.vmap for many)")
    return tuple(s.astype(dtype) for s in scalars)


def _checked(X: ArrayLike) -> Float[Array, "rows columns"]:
    if _checks.is_traced(X):
        return _checks.matrix("X", X)
    # One pass over a large matrix: its mean square is finite only if every entry is.
    mean_square = (
        float(_mean_square(X)) if isinstance(X, jax.Array) and X.ndim == 2 and X.dtype.kind == "f" else jnp.nan
    )
    if not np.isfinite(mean_square):
        X = _checks.matrix("X", X)
        mean_square = float(_mean_square(X))
    X = jnp.asarray(X)
    ratio = mean_square * X.shape[1]
    if abs(ratio - 1) > _SCALE_TOLERANCE + 6 * np.sqrt(2 / X.size):
        raise ValueError(
            f"X must have entries of variance 1/columns, got mean square {ratio:.4g}/columns: centre its columns, "
            f"whiten them and divide by sqrt({X.shape[1]}) (rj.models.whitening does the first two); rj.vamp asks none of this"
        )
    return X


@jax.jit
def _mean_square(X):
    return jnp.mean(X**2)


def _shape(X) -> tuple[int, int]:
    return (X.out_size(), X.in_size()) if isinstance(X, lx.AbstractLinearOperator) else X.shape


def _products(X):
    """w → X w and g → Xᵀ g; for an array the latter as g X, since XLA would copy Xᵀ.

    At full precision: of float32 an accelerator would by default multiply the first three digits.
    """
    if isinstance(X, lx.AbstractLinearOperator):
        return X.mv, X.transpose().mv
    product = partial(jnp.matmul, precision="highest")
    return lambda w: product(X, w), lambda g: product(g, X)


class _State(NamedTuple):
    step: Int[Array, ""]
    a: Float[Array, " columns"]
    V: Float[Array, ""]
    g: Float[Array, " rows"]
    bend: Float[Array, " rows"]
    """phi''."""
    h: Float[Array, " columns"]
    A: Float[Array, ""]
    log: Trajectory


@eqx.filter_jit
def _amp(
    X, y, book: Codebook, start, teacher, scalars, steps: int, row_norms: bool, loss: Loss, cold: bool
) -> AMPResult:
    beta, ridge, damping, tolerance, V = scalars
    levels, (rows, columns) = book.levels, _shape(X)
    lengths = jnp.sum(X**2, axis=1) if row_norms else jnp.ones(rows, y.dtype)
    unit = jnp.sqrt(jnp.mean(levels**2))
    forward, adjoint = _products(X)

    def fresh(a, V, g):
        """omega: the prediction as if the row had not been used."""
        return forward(a).astype(y.dtype) - V * lengths * g

    def missed(omega):
        """Test error."""
        return jnp.mean((1 - jnp.sign(y * omega)) / 2) if isinstance(loss, MarginLoss) else jnp.mean((y - omega) ** 2)

    def scores(omega, V) -> tuple[Array, Array]:
        """g and phi'' of every row."""
        if isinstance(loss, Square):
            stiff = 1 + V * lengths
            return (y - omega) / stiff, 1 / stiff
        # Without any spread of predictions phi is the loss itself, whose quadrature has no nodes.
        spread = jnp.maximum(V * lengths, jnp.finfo(y.dtype).eps)
        heat = None if cold else beta
        tilted = jax.vmap(lambda y, v, chi: loss.tilted(y, v, chi, heat))(y, omega, spread)
        return -tilted.slope, tilted.curvature

    def chi_hat(g):
        """Variance of the Gaussian part of h."""
        return jnp.sum(lengths * g**2) / columns

    def record(log: Trajectory, t, a, V, residual) -> Trajectory:
        overlap = jnp.array(jnp.nan, y.dtype) if teacher is None else jnp.mean(teacher * a)
        error = jnp.array(jnp.nan, y.dtype) if teacher is None else jnp.mean((teacher - a) ** 2)
        new = Trajectory(log.test_error[t], V, jnp.mean(a**2), residual, overlap, error)
        return Trajectory(*(old.at[t].set(value) for old, value in zip(log, new, strict=True)))

    def step(s: _State) -> _State:
        omega = fresh(s.a, s.V, s.g)
        log = s.log._replace(test_error=s.log.test_error.at[s.step].set(missed(omega)))
        g, bend = scores(omega, s.V)
        A = jnp.sum(lengths * bend) / columns
        h = adjoint(g).astype(y.dtype) + A * s.a
        mean, response = denoise(h, chi_hat(g), A + ridge, levels, beta)
        residual = jnp.maximum(jnp.sqrt(jnp.mean((mean - s.a) ** 2)) / unit, jnp.abs(response - s.V) / (1 + s.V))
        a, V = damping * s.a + (1 - damping) * mean, damping * s.V + (1 - damping) * response
        return _State(s.step + 1, a, V, g, bend, h, A, record(log, s.step + 1, a, V, residual))

    def going(s: _State):
        residual = s.log.residual[s.step]
        return (s.step < steps) & (residual >= tolerance) & ~jnp.isnan(residual)

    nothing = Trajectory(*(jnp.zeros(steps + 1, y.dtype) for _ in Trajectory._fields))
    log = record(nothing, 0, start, V, jnp.array(jnp.inf, y.dtype))
    zero = jnp.zeros((), y.dtype)
    s = jax.lax.while_loop(
        going,
        step,
        _State(jnp.array(0), start, V, jnp.zeros_like(y), jnp.zeros_like(y), jnp.zeros_like(start), zero, log),
    )

    # One more product with X prices the last weights, another the same fields rounded.
    codes, rounded, slope = round_off(s.h, chi_hat(s.g), s.A + ridge, levels)
    curvature = jnp.sum((lengths * s.bend) ** 2) / columns
    frozen = jnp.isinf(beta)
    response = site_response(s.h, s.A + ridge, levels, jnp.where(frozen, 1.0, beta))[1]
    test_error = missed(fresh(s.a, s.V, s.g))
    log = s.log._replace(test_error=s.log.test_error.at[s.step].set(test_error))
    log = Trajectory(*(jnp.where(jnp.arange(steps + 1) < s.step, x, x[s.step]) for x in log))
    return AMPResult(
        codebook=book,
        weights=s.a,
        codes=codes,
        susceptibility=s.V,
        test_error=test_error,
        rounded_test_error=missed(fresh(rounded, slope, s.g)),
        replicon=jnp.where(frozen, -jnp.inf, 1 - curvature * jnp.mean(response**2)),
        trajectory=log,
        converged=log.residual[-1] < tolerance,
        steps=s.step,
    )


def denoise(h: Float[Array, " columns"], chi_hat, curvature, levels: Float[Array, " levels"], beta):
    """<a>_h of every site, and V = beta mean_i Var_{h_i}(a)."""

    def soft():
        mean, response = site_response(h, curvature, levels, beta)
        return mean, jnp.mean(response)

    return jax.lax.cond(jnp.isinf(beta), lambda: round_off(h, chi_hat, curvature, levels)[1:], soft)


def site_response(h: Float[Array, " columns"], curvature, levels: Float[Array, " levels"], beta):
    """<a>_h and d<a>_h/dh = beta Var_h(a) of every site under p_k ∝ exp{beta [h a_k − ½ curvature a_k²]}."""
    p = jax.nn.softmax(beta * (h[:, None] * levels - curvature * levels**2 / 2), axis=-1)
    mean = p @ levels
    return mean, beta * jnp.sum(p * (levels - mean[:, None]) ** 2, axis=-1)


def round_off(h: Float[Array, " columns"], chi_hat, curvature, levels: Float[Array, " levels"]):
    """Nearest level to h / curvature: its index, its value, and the mean slope of that staircase.

    The slope is a comb of deltas, whose mean is sum_k D_k p(t_k) with t_k the thresholds and p the density of h
    (theory 1.2, where h is Gaussian).  p is smooth on the scale of its Gaussian part, sqrt(chi_hat), whatever the
    teacher: it is estimated by a kernel a fraction of that wide, less the bias this kernel would have were h Gaussian.
    """
    thresholds = curvature * (levels[1:] + levels[:-1]) / 2
    codes = jnp.searchsorted(thresholds, h)
    center, variance, width = jnp.mean(h), jnp.var(h), _BANDWIDTH**2 * chi_hat
    smooth = jnp.mean(_kernel(thresholds - h[:, None], width, width), axis=0)
    bias = _kernel(thresholds - center, width, width + variance) - _kernel(thresholds - center, 0.0, variance)
    return codes, levels[codes], jnp.diff(levels) @ (smooth - bias)


def _kernel(x, width, variance):
    """Sixth-order Gaussian kernel: (1 − ½ width d²/dx² + ⅛ width² d⁴/dx⁴) of a Gaussian of this variance.

    variance = width is the kernel itself, width + s² its convolution with N(0, s²), and width = 0 leaves a Gaussian.
    """
    u, r = x**2 / variance, width / variance
    gaussian = jnp.exp(-u / 2) / jnp.sqrt(2 * jnp.pi * variance)
    return gaussian * (1 - r * (u - 1) / 2 + r**2 * (u**2 - 6 * u + 3) / 8)
