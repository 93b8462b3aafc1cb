"""Online training of quantized weights with a straight-through estimator, in high dimension.  theory 11, [T]

    w ← w − (step/√d) δ phi_x(x),     δ = phi_w(w)·phi_x(x)/√d − y,     y = w*·x/√d + noise,     time = iterations/d

[T]: Ichikawa, Kashiwamura and Sakata, arXiv 2510.10693.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.distributions import Distribution, Normal, cell_edges, thresholds
from replicajax.dynamics._elements import DEGREE
from replicajax.dynamics._fokker_planck import REFERENCE, Setting, evolve
from replicajax.dynamics._stationary import Stationary, stationary
from replicajax.dynamics._teacher import teacher_values

_TOLERANCE = {8: 1e-7, 4: 3e-5}
"""Mass misplaced in a step, by bytes of a float."""
_STEPS = 200_000
_START, _TAIL, _SPREAD = 7.5, 35.0, 7.5
"""Where the line ends: deviations of the start, lengths over which a tail decays, deviations of what diffuses freely."""
_LOST = 1e-6
"""Of the mass next to an end, from where on the line was too short."""


class Numbers(NamedTuple):
    """What derivatives are taken in."""

    levels: Any
    kappas: Any
    teacher: Any
    noise: Any
    ridge: Any
    mean: Any
    deviation: Any
    step: Any
    factors: Any


class Fixed(NamedTuple):
    """Attributes: shares: of the teacher's values; beyond: E w*² that they lack; clip: inf without; ends: of stretches."""

    shares: Any
    beyond: Any
    clip: Any
    ends: Any


@final
class StraightThrough(eqx.Module):
    """The course of training; a pytree.

    Attributes:
      times: (times,); generalization_error: (times,) E (w*·x − phi_w·phi_x)²/d, without the noise.
      converged: (times,) whether the solver got there, with a line long enough for weights that are held back; elements far out
        are long, and the density of those that drift away is as coarse as they are.
      steps: of the solver.
      confined: whether the outermost levels hold the weights back (else they drift away, and nothing is stationary).
    """

    times: Float[Array, " times"]
    generalization_error: Float[Array, " times"]
    converged: Array
    steps: Array
    confined: Array
    _density: Array
    _edges: Array
    _setting: Setting
    _last_step: Array
    _clipped: bool = eqx.field(static=True)

    @property
    def test_error(self) -> Float[Array, " times"]:
        """With the noise."""
        return self.generalization_error + self._setting.noise

    def density(self, w: ArrayLike) -> Float[Array, "times points"]:
        """p(w), mean over the teacher's values."""
        return self._of_elements(w, cumulative=False)

    def cumulative(self, w: ArrayLike) -> Float[Array, "times points"]:
        """P(weight <= w)."""
        return self._of_elements(w, cumulative=True)

    def level_probabilities(self) -> Float[Array, "times levels"]:
        below = self.cumulative(self._setting.cuts)
        return jnp.diff(below, prepend=0.0, append=1.0, axis=-1)

    def _of_elements(self, w: ArrayLike, cumulative: bool) -> Array:
        w = _checks.finite("w", w)
        density = jnp.einsum("v,tven->ten", self._setting.shares, self._density)
        coefficients = density @ REFERENCE.to_legendre.T.astype(density.dtype)
        return _evaluated(coefficients, self._edges, w.reshape(-1), cumulative).reshape(-1, *w.shape)

    @property
    def stationary(self) -> Stationary:
        """Where this ends, with the last of its steps."""
        setting = jax.tree.map(np.asarray, self._setting)
        near = float(self.generalization_error[-1])
        return stationary(setting, float(self._last_step), bool(self.confined), self._clipped, near)

    @property
    def drop_time(self) -> float:
        """When the error falls fastest after a plateau; NaN without one.  Between the times asked for: ask for many."""
        return self._plateau()[1]

    @property
    def plateau_length(self) -> float:
        """How long the error falls less than half as fast, in parts of itself, as it does in the drop that follows; else 0."""
        return self._plateau()[0]

    def _plateau(self) -> tuple[float, float]:
        t, log_error = np.asarray(self.times, float), np.log(np.maximum(self.generalization_error, 1e-12))
        if t.size < 8:
            raise ValueError(f"times must be 8 at least for a plateau, got {t.size}")
        length, middle = np.diff(t), (t[1:] + t[:-1]) / 2
        fall = -np.diff(log_error) / length
        peaks = [j for j in range(1, fall.size - 1) if fall[j - 1] < fall[j] >= fall[j + 1] and fall[j] > 0]
        slow = [np.flatnonzero(fall[:j] < fall[j] / 2) for j in peaks]
        drops = [
            (fall[j], length[before].sum(), middle[j]) for j, before in zip(peaks, slow, strict=True) if before.size
        ]
        return max(drops)[1:] if drops else (0.0, np.nan)

    def __str__(self) -> str:
        first, last = float(self.generalization_error[0]), float(self.generalization_error[-1])
        ends = "" if bool(self.converged.all()) else ", not converged"
        return f"straight-through training: error {first:.6g} at {self.times[0]:.6g}, {last:.6g} at {self.times[-1]:.6g}{ends}"


def straight_through(
    weights: Codebook,
    inputs: Codebook | None = None,
    step: ArrayLike = 0.2,
    noise: ArrayLike = 0.0,
    teacher: ArrayLike | Sequence[float] | Distribution = 1.0,
    times: ArrayLike | Sequence[float] = (10.0, 25.0, 50.0, 100.0),
    *,
    ridge: ArrayLike = 0.0,
    start: ArrayLike | tuple[ArrayLike, ArrayLike] = 1.0,
    clip: float | None = None,
    schedule: Sequence[tuple[float, float]] = (),
    tolerance: float | None = None,
    refine: int = 1,
) -> StraightThrough:
    """The law of the weights and the error, at every time, for d → ∞.

    Derivatives (of errors and densities, forward or reverse) in levels, step, noise, teacher's values, ridge and start.

    Args:
      weights, inputs: codebooks of latent weights and of N(0, 1) inputs; None leaves inputs as they are.
      step: of the update; noise: variance of the label's noise.
      teacher: w*, values that are as likely as each other, or a law.
      times: increasing, iterations over d.
      ridge: w ← w − (step/d) ridge w besides.
      start: deviation of the Gaussian start, or its mean and deviation.
      clip: latent weights are kept within ±clip.
      schedule: (time, factor): from that time on the step is so many times `step`.
      tolerance: mass misplaced in a step of the solver (1e-7, in float32 3e-5).
      refine: cuts elements into so many, to see that nothing changes.

    Raises:
      TypeError, ValueError: bad arguments, each by name.
    """
    refine = _checks.integer("refine", refine, 1, 16)
    if tolerance is None:
        tolerance = least_tolerance()
    _checks.fraction("tolerance", tolerance)
    ts, shown, numbers, fixed = prepared(weights, inputs, step, noise, teacher, times, ridge, start, clip, schedule)
    found = _course(numbers, fixed, float(tolerance), refine)
    if shown is not None:
        found = found._replace(**{name: getattr(found, name)[shown] for name in ("error", "density", "converged")})
    return StraightThrough(
        ts,
        found.error,
        found.converged,
        found.steps,
        found.confined,
        found.density,
        found.edges,
        found.setting,
        found.last_step,
        clip is not None,
    )


def least_tolerance() -> float:
    return _TOLERANCE[jnp.result_type(float).itemsize]


def prepared(
    weights: Codebook,
    inputs: Codebook | None,
    step: ArrayLike,
    noise: ArrayLike,
    teacher: ArrayLike | Sequence[float] | Distribution,
    times: ArrayLike | Sequence[float],
    ridge: ArrayLike,
    start: ArrayLike | tuple[ArrayLike, ArrayLike],
    clip: float | None,
    schedule: Sequence[tuple[float, float]],
) -> tuple[Array, np.ndarray | None, Numbers, Fixed]:
    """A request that has been checked: times, which of the ends of stretches they are, and all numbers."""
    _checks.instance("weights", weights, Codebook, "uniform(bits=2, width=2.0)")
    ts = _checks.nonnegative("times", times)
    if ts.ndim != 1 or not ts.size or (not _checks.is_traced(ts) and (np.diff(np.asarray(ts)) <= 0).any()):
        raise ValueError(f"times must be increasing, (times,), got {_checks.brief(ts)}")
    mean, deviation = start if isinstance(start, tuple) else (0.0, start)
    mean, deviation = _checks.finite("start mean", mean), _checks.scalar("start", deviation)
    if clip is not None and not (isinstance(clip, int | float) and 0 < clip < np.inf):
        raise ValueError(f"clip must be a positive number or None, got {clip!r}")
    step, noise, ridge = (
        _checks.scalar("step", step),
        _checks.nonnegative("noise", noise),
        _checks.nonnegative("ridge", ridge),
    )
    levels = weights.levels
    cuts = thresholds(levels)
    if clip is not None and not _checks.is_traced(levels) and clip <= float(jnp.abs(cuts).max()):
        raise ValueError(
            f"clip must be beyond the thresholds, which reach to {float(jnp.abs(cuts).max()):.6g}, got {clip}"
        )
    if inputs is not None:
        _checks.instance("inputs", inputs, Codebook, "uniform(bits=2, width=2.0)")
    kappas = np.ones((2,)) if inputs is None else _input_moments(inputs.levels)
    known = not _checks.is_traced((levels, kappas))
    kinks = np.asarray(kappas[1]) / np.asarray(kappas[0]) * np.asarray(levels) if known else None
    values, shares, beyond = teacher_values(teacher, kinks)
    ends, factors, shown = _stretches(ts, schedule)
    dtype = levels.dtype
    numbers = Numbers(levels, kappas, values, noise, ridge, mean, deviation, step, factors)
    fixed = Fixed(shares, beyond, np.inf if clip is None else clip, ends)
    numbers, fixed = (_cast(each, dtype) for each in (numbers, fixed))
    return ts, shown, numbers, fixed


def _cast(numbers: Any, dtype: Any) -> Any:
    """Without a program for every shape."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if _checks.is_traced(x) else jnp.asarray(np.asarray(x, dtype)), numbers
    )


@jax.jit
def _input_moments(levels: Array) -> Array:
    """E x phi_x and E phi_x² of a standard normal x."""
    zeroth, first, _ = Normal().cell_moments(cell_edges(levels))
    return jnp.stack([levels @ first, levels**2 @ zeroth])


def _stretches(times: Array, schedule: Sequence[tuple[float, float]]) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Ends of stretches of one step, its factor in each, and which of the ends are times that were asked for."""
    try:
        changes = [(float(t), float(f)) for t, f in schedule]
    except (TypeError, ValueError):
        raise ValueError(
            f"schedule must be pairs of a time and a factor, as in [(50.0, 0.1)], got {schedule!r}"
        ) from None
    at = [t for t, _ in changes]
    if any(t <= 0 for t in at) or any(b <= a for a, b in pairwise(at)):
        raise ValueError(f"schedule must have increasing times > 0, got {at}")
    if any(not 0 < f < np.inf for _, f in changes):
        raise ValueError(f"schedule must have positive factors, got {[f for _, f in changes]}")
    if not changes:
        return times, np.ones(times.size), None
    if _checks.is_traced(times):
        raise ValueError("schedule must go with times that are known, got traced ones")
    known = np.asarray(times)
    ends = np.unique(np.concatenate([known, [t for t in at if t < known[-1]]]))
    factors = np.array([1.0, *(f for _, f in changes)])[np.searchsorted(at, ends, side="left")]
    return ends, factors, np.searchsorted(ends, known)


class _Found(NamedTuple):
    error: Array
    density: Array
    converged: Array
    steps: Array
    confined: Array
    edges: Array
    setting: Setting
    last_step: Array


def solved(n: Numbers, fixed: Fixed, tolerance: Any, refine: int) -> _Found:
    low, high, confined = _line(*jax.lax.stop_gradient((n, fixed)))
    square = fixed.shares @ n.teacher**2 + fixed.beyond
    cuts, (kappa1, kappa2) = thresholds(n.levels), n.kappas
    setting = Setting(
        n.levels,
        cuts,
        kappa1,
        kappa2,
        n.teacher,
        fixed.shares,
        square,
        n.noise,
        n.ridge,
        n.mean,
        n.deviation,
        low,
        high,
    )
    steps = n.step * n.factors
    course, g = evolve(setting, fixed.ends, steps, tolerance, _STEPS, refine)
    # Next to an end nothing may be, unless weights are kept from going on.
    # Those that drift away have the same level there, and do not come back.
    at_ends = jnp.abs(course.density[:, :, [0, -1]]).max(-1) * g.lengths[jnp.array([0, -1])]
    inward = jnp.stack([kappa1 * n.teacher - kappa2 * n.levels[0], kappa2 * n.levels[-1] - kappa1 * n.teacher], -1) > 0
    short = (jnp.where(inward | (n.ridge > 0), at_ends, 0).max((1, 2)) > _LOST) & jnp.isinf(fixed.clip)
    return _Found(
        course.error, course.density, ~course.failed & ~short, course.steps[-1], confined, g.edges, setting, steps[-1]
    )


def _line(n: Numbers, fixed: Fixed) -> tuple[Array, Array, Array]:
    """Ends of the line, beyond which nothing is; and whether the outermost levels hold the weights back."""
    k1, k2 = n.kappas
    step = n.step * n.factors.max()
    outward = k1 * n.teacher
    up, down = k2 * n.levels[-1] - outward.max(), outward.min() - k2 * n.levels[0]
    confined = ((up > 0) & (down > 0)) | (n.ridge > 0)
    # As if no weight were on its level: what the error may be at first.
    worst = k2 * jnp.max(n.levels**2) + jnp.max(n.teacher**2) + n.noise
    heat, time = step**2 * k2 * worst / 2, fixed.ends[-1]
    spread = _SPREAD * jnp.sqrt(n.deviation**2 + 2 * heat * time)
    cuts, found = thresholds(n.levels), []
    for pull, cut, mean in ((up, cuts[-1], n.mean), (down, -cuts[0], -n.mean)):
        tail = jnp.where(pull > 0, _TAIL * heat / (step * jnp.maximum(pull, 1e-30)), jnp.inf)
        carried = step * jnp.maximum(-pull, 0) * time
        start = mean + _START * n.deviation
        away = jnp.maximum(cut, start) + carried + jnp.minimum(tail, spread)
        found.append(jnp.minimum(jnp.maximum(away, cut + n.deviation), fixed.clip))
    return -found[1], found[0], confined


@jax.jit
def _contracted(parts: Sequence[Array], tangents: Sequence[Array]) -> Any:
    return sum(jnp.tensordot(part, tangent, tangent.ndim) for part, tangent in zip(parts, tangents, strict=True))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _course(numbers: Numbers, fixed: Fixed, tolerance: float, refine: int) -> _Found:
    return _compiled(numbers, fixed, tolerance, refine)


@_course.defjvp
def _course_jvp(tolerance, refine, primals, tangents):
    """One pass for all numbers at once, whatever is differentiated and from whichever side."""
    values, slopes = _with_slopes(*primals, tolerance, refine)
    moved = jax.tree.leaves(tangents[0])

    def along(value: Array, *of_numbers: Array) -> Any:
        if not eqx.is_inexact_array(value):
            return np.zeros(value.shape, jax.dtypes.float0)
        return _contracted(of_numbers, moved)

    found = jax.eval_shape(lambda n, fixed: solved(n, fixed, tolerance, refine), *primals)
    structure = jax.tree.structure(found)
    moves = [along(*each) for each in zip(values, *slopes, strict=True)]
    return structure.unflatten(values), structure.unflatten(moves)


_compiled = jax.jit(solved, static_argnums=(2, 3))


@partial(jax.jit, static_argnums=(2, 3))
def _with_slopes(numbers: Numbers, fixed: Fixed, tolerance: float, refine: int):
    """What is found, and for every array of numbers its derivatives, their axes behind those of the value."""

    def twice(n: Numbers):
        found = jax.tree.leaves(solved(n, fixed, tolerance, refine))
        return [x for x in found if eqx.is_inexact_array(x)], found

    slopes, found = jax.jacfwd(twice, has_aux=True)(numbers)
    per_value = iter([jax.tree.leaves(slope) for slope in slopes])
    none = [None] * len(jax.tree.leaves(numbers))
    each = [next(per_value) if eqx.is_inexact_array(x) else none for x in found]
    return found, [list(of_number) for of_number in zip(*each, strict=True)]


@partial(jax.jit, static_argnums=3)
def _evaluated(coefficients: Array, edges: Array, w: Array, cumulative: bool) -> Array:
    """(times, elements, degrees) in Legendre polynomials -> (times, points), or the integral from the left."""
    element = jnp.clip(jnp.searchsorted(edges, w, side="right") - 1, 0, edges.size - 2)
    half = (edges[element + 1] - edges[element]) / 2
    x = jnp.clip((w - edges[element]) / half - 1, -1, 1)
    basis = [jnp.ones_like(x), x]
    for k in range(1, DEGREE + 1):
        basis.append(((2 * k + 1) * x * basis[k] - k * basis[k - 1]) / (k + 1))
    if not cumulative:
        inside = (w >= edges[0]) & (w <= edges[-1])
        values = sum(coefficients[:, element, k] * basis[k] for k in range(DEGREE + 1))
        return jnp.where(inside, values, 0.0)
    # int P_k from −1: (P_k+1 − P_k−1)/(2k + 1), and x + 1 for k = 0
    sums = [x + 1] + [(basis[k + 1] - basis[k - 1]) / (2 * k + 1) for k in range(1, DEGREE + 1)]
    whole = coefficients[:, :, 0] * jnp.diff(edges)
    before = jnp.cumsum(whole, 1) - whole
    return before[:, element] + half * sum(coefficients[:, element, k] * sums[k] for k in range(DEGREE + 1))
