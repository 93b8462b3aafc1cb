"""The law of one weight under straight-through training, one equation a value of the teacher's, coupled by the error.

    dw = −step (kappa2 phi(w) + ridge w − kappa1 w*) dt + step sqrt(kappa2 eps) dB,
    eps = kappa2 E phi(w)² − 2 kappa1 E phi(w) w* + E w*² + noise,                         (theory 11, [T])

so that with D = step² kappa2 eps / 2, which is all that changes in time,

    dp/dt = d/dw [ step (kappa2 phi + ridge w − kappa1 w*) p ] + D d²p/dw².
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from replicajax.dynamics._elements import DEGREE, Grid, grid, reference
from replicajax.dynamics._rosenbrock import Flow, State, advance

REFERENCE = _R = reference(DEGREE)
_INNER = slice(1, DEGREE)


class Setting(NamedTuple):
    """All numbers; a pytree.

    Attributes:
      levels, cuts: of the weights' codebook; kappa1, kappa2: of the inputs'.
      teacher, shares: (values,) w* and their probabilities; square: E w*².
      noise: variance; ridge; mean, deviation: of the Gaussian start; low, high: where the line ends.
    """

    levels: Any
    cuts: Any
    kappa1: Any
    kappa2: Any
    teacher: Any
    shares: Any
    square: Any
    noise: Any
    ridge: Any
    mean: Any
    deviation: Any
    low: Any
    high: Any

    def error(self, phi: Any, phi_teacher: Any, phi_square: Any) -> Any:
        """eps less the noise."""
        return self.kappa2 * phi_square - 2 * self.kappa1 * phi_teacher + self.square


class Course(NamedTuple):
    """Attributes: error: (times,) eps without noise; density: (times, values, elements, nodes); steps; failed: (times,)."""

    error: Array
    density: Array
    steps: Array
    failed: Array


def local(y: Array, elements: int) -> Array:
    """(values, unknowns) -> (values, elements, nodes): elements share the numbers at their edges."""
    edges, inner = y[:, : elements + 1], y[:, elements + 1 :].reshape(len(y), elements, DEGREE - 1)
    return jnp.concatenate([edges[:, :-1, None], inner, edges[:, 1:, None]], -1)


def _gathered(r: Array) -> Array:
    """The transpose: what falls on an edge from both sides adds up."""
    edges = jnp.pad(r[..., 0], ((0, 0), (0, 1))) + jnp.pad(r[..., -1], ((0, 0), (1, 0)))
    return jnp.concatenate([edges, r[..., _INNER].reshape(len(r), -1)], -1)


def _observed(setting: Setting, g: Grid) -> Array:
    """(values, unknowns): eps less what does not depend on p is its product with p."""
    phi = setting.levels[g.cell]
    per_mass = setting.kappa2 * phi**2 - 2 * setting.kappa1 * phi * setting.teacher[:, None]
    of_nodes = (g.lengths / 2)[:, None] * _R.weights.astype(phi.dtype)
    return _gathered((setting.shares[:, None] * per_mass)[..., None] * of_nodes)


def _flow(setting: Setting, g: Grid, step: Array, tolerance: Array) -> Flow:
    dtype, elements = g.edges.dtype, len(g.cell)
    mass_, drift_, pull_, diffusion_ = (x.astype(dtype) for x in (_R.mass, _R.drift, _R.pull, _R.diffusion))
    half = (g.lengths / 2)[:, None, None]
    phi = setting.levels[g.cell]
    slope = setting.kappa1 * setting.teacher[:, None] - setting.kappa2 * phi - setting.ridge * g.middles
    A = step * (slope[..., None, None] * drift_ - setting.ridge * half * pull_)
    M = half * mass_
    B = -(step**2) * setting.kappa2 / 2 * diffusion_ / half
    e, constant = _observed(setting, g), setting.square + setting.noise
    size = (g.lengths / 2)[:, None] * _R.weights.astype(dtype)

    def apply(matrix: Array, y: Array) -> Array:
        pattern = "veij,vej->vei" if matrix.ndim == 4 else "eij,vej->vei"
        return _gathered(jnp.einsum(pattern, matrix, local(y, elements)))

    def slope_of(y: Array) -> Array:
        return apply(A, y) + (constant + jnp.sum(e * y)) * apply(B, y)

    def solver(y: Array, scale: Array):
        found = _factorized(scale * M - A - (constant + jnp.sum(e * y)) * B)
        z = found(apply(B, y))
        denominator = 1 - jnp.sum(e * z)

        def solve(r: Array) -> Array:
            u = found(r)
            return u + z * (jnp.sum(e * u) / denominator)

        return solve

    def off(error: Array) -> Array:
        """Mass that is misplaced, of the worst value."""
        return (jnp.abs(local(error, elements)) * size).sum((1, 2)).max() / tolerance

    def whole(y: Array) -> Array:
        return y / (local(y, elements) * size).sum((1, 2))[:, None]

    return Flow(slope_of, lambda y: apply(M, y), solver, off, whole)


def _factorized(blocks: Float[Array, "values elements nodes nodes"]):
    """r -> x of the assembled system: what is inside elements first, then their edges, which are a tridiagonal system."""
    values, elements = blocks.shape[:2]
    inside = jnp.linalg.inv(blocks[..., _INNER, _INNER])
    ends = blocks[..., _INNER, ::DEGREE]
    back = inside @ ends
    down = blocks[..., ::DEGREE, _INNER]
    schur = blocks[..., ::DEGREE, ::DEGREE] - down @ back
    main = jnp.pad(schur[..., 0, 0], ((0, 0), (0, 1))) + jnp.pad(schur[..., 1, 1], ((0, 0), (1, 0)))
    lower, upper = jnp.pad(schur[..., 1, 0], ((0, 0), (1, 0))), jnp.pad(schur[..., 0, 1], ((0, 0), (0, 1)))

    def solve(r: Array) -> Array:
        inner = r[:, elements + 1 :].reshape(values, elements, DEGREE - 1)
        x = jnp.einsum("veij,vej->vei", inside, inner)
        passed = jnp.einsum("veij,vej->vei", down, x)
        at_edges = (
            r[:, : elements + 1] - jnp.pad(passed[..., 0], ((0, 0), (0, 1))) - jnp.pad(passed[..., 1], ((0, 0), (1, 0)))
        )
        edges = jax.lax.linalg.tridiagonal_solve(lower, main, upper, at_edges[..., None])[..., 0]
        x = x - back[..., 0] * edges[:, :-1, None] - back[..., 1] * edges[:, 1:, None]
        return jnp.concatenate([edges, x.reshape(values, -1)], -1)

    return solve


def evolve(
    setting: Setting, ends: Array, steps: Array, tolerance: float, most: int, refine: int
) -> tuple[Course, Grid]:
    """From a Gaussian start through stretches of time, each with its step."""
    g = grid(setting.cuts, setting.low, setting.high, refine)
    elements = len(g.cell)
    points = g.points(_R.nodes.astype(g.edges.dtype))
    p = jnp.exp(-0.5 * ((points - setting.mean) / setting.deviation) ** 2)
    size = (g.lengths / 2)[:, None] * _R.weights.astype(p.dtype)
    p = p / (p * size).sum()
    start = jnp.concatenate([p[:, 0], p[-1:, -1], p[:, _INNER].reshape(-1)])
    y = jnp.tile(start, (setting.teacher.size, 1))
    e = _observed(setting, g)
    zero = jnp.zeros((), y.dtype)
    begun = State(zero, y, ends[0] * 1e-3 + 1e-6, jnp.zeros((), int), jnp.zeros((), bool))

    def stretch(state: State, each):
        end, step = each
        state = advance(_flow(setting, g, step, jnp.asarray(tolerance, y.dtype)), state, end, most)
        error = setting.square + jnp.sum(e * state.y)
        return state, Course(error, local(state.y, elements), state.taken, state.failed)

    return jax.lax.scan(stretch, begun, (ends, steps))[1], g
