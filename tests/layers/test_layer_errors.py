"""Predicted errors of rounding and GPTQ against running them, against quadrature, and against theory 10 as it is written."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_layers import LAWS, WIDTHS, power_law, turned
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq
from scipy.stats import norm

import replicajax as rj
from replicajax.layers._cost import rounding_cost
from replicajax.layers._laws import law_of
from replicajax.layers._scales import as_format

L, f = rj.layers, rj.formats


def test_cost_of_a_point_is_its_integral():
    levels, u, v = np.array([-1.3, -0.2, 0.1, 1.1]), 0.37, 0.23

    def nearest(x):
        return levels[np.abs(levels - x).argmin()]

    def mean(of):
        cuts = [*(levels[1:] + levels[:-1]) / 2, -1.85, 1.6]
        return quad(lambda x: of(x) * norm.pdf(x, u, v**0.5), -6, 6, points=cuts, limit=200, epsabs=1e-12)[0]

    def out(x):
        return x > 1.1 + 0.5 or x < -1.3 - 0.55

    found = rounding_cost(jnp.asarray(levels), jnp.asarray(u), jnp.asarray(v))
    assert found.square == pytest.approx(mean(lambda x: (x - nearest(x)) ** 2), abs=1e-11)
    assert found.clipped == pytest.approx(mean(out), abs=1e-11)
    assert found.overload == pytest.approx(mean(lambda x: out(x) * (x - nearest(x))), abs=1e-11)
    # Of the error itself, whose derivative is that of its mean.
    step = 1e-4
    slope = (mean_error(levels, u + step, v) - mean_error(levels, u - step, v)) / (2 * step)
    assert found.gain == pytest.approx(slope, abs=1e-7)
    still = rounding_cost(jnp.asarray(levels), jnp.asarray(u), jnp.asarray(0.0))
    assert still.square == pytest.approx((u - 0.1) ** 2, abs=1e-15)


def mean_error(levels: np.ndarray, u: float, v: float) -> float:
    cuts = (levels[1:] + levels[:-1]) / 2
    return u - levels[0] - (np.diff(levels) * norm.sf(cuts, u, v**0.5)).sum()


@pytest.mark.parametrize("name", ["laplace", "t5"])
@pytest.mark.parametrize("v", [0.0, 0.03, 1.7])
def test_law_with_noise_is_its_integral(name, v):
    law, levels, inputs = LAWS[name][0], np.linspace(-2.1, 2.1, 8), 10**9
    points = law_of(_Wide(law, inputs), as_format(rj.uniform(3, 2.1)))
    found = points.tabulated().cost(jnp.asarray(v), jnp.asarray(1.0))
    if v == 0:
        exact = float(f.relative_rms_error(law, rj.uniform(3, 2.1))) ** 2
        assert points.alone().square == pytest.approx(exact, rel=1e-8)
        assert found.square == pytest.approx(exact, rel=1e-5)
        return
    rms = float(jnp.sqrt(law.second_moment()))

    def of(w):
        return (
            float(law.pdf(w * rms)) * rms * float(rounding_cost(jnp.asarray(levels), jnp.asarray(w), jnp.asarray(v))[0])
        )

    whole = 2 * quad(of, 0, 30, limit=200, epsabs=1e-9)[0] if name == "laplace" else None
    if whole is not None:
        assert found.square == pytest.approx(whole, rel=2e-6)
    sample = np.random.default_rng(0)
    w = LAWS[name][1](sample, (2000, 2000)) / {"laplace": 2**0.5, "t5": (5 / 3) ** 0.5}[name]
    x = w + np.sqrt(v) * sample.normal(size=w.shape)
    errors = (x - levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]) ** 2
    assert abs(found.square - errors.mean()) < 4 * errors.std() / 2000


class _Wide(NamedTuple):
    """What `law_of` asks of a layer; with so many inputs that a weight is no part of its row's RMS."""

    law: rj.distributions.Symmetric
    inputs: int
    weights: None = None
    moment: np.ndarray = np.ones(1)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_turned_evolution_is_theory_10_as_written(exponent):
    """−dv/dc = eps(v) b(c)/c and err = ∫ D eps dc, by scipy, with b as it stands in theory 10."""
    eigenvalues, levels = power_law(60, exponent), np.linspace(-1.5, 1.5, 4)

    def eps(v):
        s, edges = np.sqrt(1 + v), [-np.inf, -1.0, 0.0, 1.0, np.inf]
        return sum(
            quad(lambda x, a=a: (x - a) ** 2 * np.exp(-((x / s) ** 2) / 2), low, high, epsabs=1e-12)[0]
            for a, low, high in zip(levels, edges, edges[1:], strict=False)
        ) / (s * np.sqrt(2 * np.pi))

    def D_and_b(c):
        if c >= 1:
            c = 1 - 1e-9
        D = brentq(lambda D: np.mean(D / (c * eigenvalues + (1 - c) * D)) - 1, 1e-9, 1.0, xtol=1e-15)
        S = (1 - c) * D / c
        K = np.mean((eigenvalues + S) ** -2)
        return D, D**2 * K / (c - K * (1 / c - 1) * D**2) - 1

    def slope(t, y):
        c = np.exp(-t)
        D, b = D_and_b(c)
        return [eps(y[0]) * b, D * eps(y[0]) * c]

    run = solve_ivp(slope, (0, 16), [0.0, 0.0], rtol=1e-8, atol=1e-10)
    found = L.gptq_error(L.Layer(eigenvalues, rotated=True), rj.uniform(2, 1.5), damping=0.0)
    assert found == pytest.approx(run.y[1, -1], rel=2e-6)


def test_number_of_theory_10():
    layer = L.Layer(power_law(400, 1.0), rotated=True)
    assert L.gptq_error(layer, rj.uniform(2, 1.5), damping=0.0) / 2 == pytest.approx(0.02648, abs=1e-5)
    atoms = L.Layer(np.repeat([0.1, 0.4, 2.5], 100), rotated=True)
    errors = L.rate_limit(atoms, 2), L.gptq_error(atoms, rj.uniform(2, 1.5), damping=0.0)
    errors += (L.rounding_error(atoms, rj.uniform(2, 1.5)),)
    np.testing.assert_allclose(np.array(errors) / 2, [0.0145, 0.0343, 0.0594], atol=6e-5)


def _ratios(name: str, exponent: float, bits: int, draws: int, rows: int, inputs: int = 400) -> dict[str, np.ndarray]:
    """Run over predicted, one a draw (what is predicted hardly varies, and the mean of what is run is what it predicts); also
    with the weights, and turned back and forth."""
    (law, draw), book, rng = (
        LAWS[name],
        rj.uniform(bits, WIDTHS[bits]),
        np.random.default_rng(int(10 * exponent) + bits),
    )
    eigenvalues, found = power_law(inputs, exponent), {"gptq": [], "weights": [], "rounding": [], "turned": []}
    for k in range(draws):
        H, W = turned(eigenvalues, rng), draw(rng, (rows, inputs))
        run = L.output_error(L.gptq(W, H, book), W, H)
        back = L.output_error(L.gptq(W, H, book, rotate="orthogonal", seed=k), W, H)
        found["gptq"].append(run / L.gptq_error(L.Layer(H, law=law), book))
        found["weights"].append(run / L.gptq_error(L.Layer(H, weights=W), book))
        found["rounding"].append(
            L.output_error(L.round_to_nearest(W, book), W, H) / L.rounding_error(L.Layer(H, law=law), book)
        )
        found["turned"].append(back / L.gptq_error(L.Layer(H, weights=W, rotated=True), book))
    return {key: np.array(values, float) for key, values in found.items()}


def _agree(ratios: np.ndarray, percent: float = 1.0) -> bool:
    error = ratios.std(ddof=1) / np.sqrt(ratios.size)
    return bool(abs(ratios.mean() - 1) <= 3 * error + percent / 100)


@pytest.mark.parametrize(("name", "exponent", "bits"), [("normal", 1.0, 2), ("laplace", 1.5, 4)])
def test_predicted_is_what_runs(name, exponent, bits):
    ratios = _ratios(name, exponent, bits, draws=3, rows=512, inputs=192)
    assert all(_agree(each) for each in ratios.values()), ratios


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", LAWS)
def test_predicted_is_what_runs_everywhere(name, exponent, bits):
    ratios = _ratios(name, exponent, bits, draws=12, rows=512)
    assert all(_agree(each) for each in ratios.values()), ratios


def test_weights_that_lean_on_loud_inputs():
    """Twice the power of isotropic weights: at 2 bits errors follow the weights, and a theory that does not know is off."""
    rng, book, inputs = np.random.default_rng(3), rj.uniform(2, 1.5), 192
    eigenvalues = power_law(inputs, 0.7)
    axes = L._rotation.haar(inputs, rng)
    H, lean = (axes * eigenvalues) @ axes.T, (axes * eigenvalues**0.6) @ axes.T
    W = rng.normal(size=(512, inputs)) @ lean
    layer = L.Layer((H + H.T) / 2, weights=W, rotated=True)
    assert layer.output_square > 1.8 * layer.trace
    run = [
        L.output_error(L.gptq(W, layer.moment, book, rotate="orthogonal", seed=k), W, layer.moment) for k in range(3)
    ]
    found = float(L.gptq_error(layer, book))
    isotropic = float(L.gptq_error(L.Layer(eigenvalues, rotated=True), book) * layer.trace / layer.output_square)
    assert found == pytest.approx(float(run[0]), rel=0.015)
    assert found == pytest.approx(float(np.mean(run)), rel=0.02)
    assert abs(isotropic / float(np.mean(run)) - 1) > 0.03


def test_assumptions_that_fail_are_remarked():
    """One loud direction that all weights lean on, and one output that has nearly all of the power; and neither."""
    rng, inputs = np.random.default_rng(4), 64
    H = np.eye(inputs) + 300.0
    W = rng.normal(size=(48, inputs)) + 1.0
    W[0] *= 30
    found = L.report(W, H, rj.uniform(2, 1.5))
    said = " ".join(what for _, what in found.remarks)
    assert "as weights favour loud inputs: rotated is a rough guess" in said
    assert "of the outputs' power is one output's" in said
    assert not L.report(rng.normal(size=(48, inputs)), np.eye(inputs), rj.uniform(4, 2.7)).remarks


def test_one_bit_needs_the_gain():
    """Errors of few levels follow the weights, and take back some of what came before: 4 % here."""
    rng, book = np.random.default_rng(3), rj.uniform(1, 0.8)
    H, W = turned(power_law(192, 1.0), rng), rng.normal(size=(6144, 192))
    run = np.array([L.output_error(L.gptq(w, H, book), w, H) for w in np.split(W, 12)])
    error = run.std(ddof=1) / np.sqrt(12)
    assert L.gptq_error(L.Layer(H), book) == pytest.approx(run.mean(), abs=3 * error + 0.005 * run.mean())
    without = L.gptq_error(L.Layer(H, rotated=True), book)
    assert without < 0.98 * run.mean()


def test_levels_of_short_reach():
    """Half as far as the weights: GPTQ asks more of later columns than they have, and is the better even so."""
    rng, book = np.random.default_rng(4), rj.uniform(2, 0.5)
    H, W = turned(power_law(192, 2.0), rng), rng.normal(size=(512, 192))
    layer = L.Layer(H, weights=W)
    run = [L.output_error(each, W, H) for each in (L.round_to_nearest(W, book), L.gptq(W, H, book, damping=1e-3))]
    predicted = L.rounding_error(layer, book), L.gptq_error(layer, book, damping=1e-3)
    np.testing.assert_allclose(predicted, run, rtol=0.1)
    assert (run[0] < run[1]) == (predicted[0] < predicted[1])


def test_rows_out_of_range_are_followed():
    """One input a hundred times the others, whose weights are large: few rows make most of the loss."""
    rng, n, book = np.random.default_rng(5), 192, rj.uniform(3, 2.1)
    H = turned(power_law(n, 0.7), rng)
    loud = np.ones(n)
    loud[20] = 10.0
    H, W = H * np.outer(loud, loud), rng.normal(size=(512, n))
    W[:, 20] *= 3
    run = L.output_error(L.gptq(W, H, book), W, H)
    assert L.gptq_error(L.Layer(H, weights=W), book) == pytest.approx(float(run), rel=0.03)
    # The law of the weights knows nothing of it.
    assert abs(L.gptq_error(L.Layer(H), book) / run - 1) > 0.2
    evolution = L.gptq_evolution(L.Layer(H, weights=W), book)
    assert np.argmax(evolution.rounding) >= 20
    assert evolution.clipped[20] > 0.3


@pytest.mark.parametrize(
    "fmt",
    [
        f.BlockFormat(f.integer(4), 32, "absmax", "fp16"),
        f.BlockFormat(f.nf4(), 64, "signmax"),
        f.BlockFormat(f.integer(3), "channel", "absmax", multiplier=0.7),
        f.BlockFormat(f.floating_point(2, 1), 32, "absmax", "e8m0"),
        f.BlockFormat(rj.uniform(4, 2.7), None, "rms"),
    ],
    ids=str,
)
def test_formats(fmt, rng):
    n, rows = 192, 512
    H, W = turned(power_law(n, 1.0), rng), rng.normal(size=(rows, n))
    rounded = L.round_to_nearest(W, fmt)
    stored = f.quantize(W, fmt).dequantize()
    np.testing.assert_allclose(rounded, stored, rtol=2e-3, atol=1e-3 * np.abs(W).max())
    run = L.output_error(L.gptq(W, H, fmt), W, H)
    known = L.Layer(H, weights=W)
    assert L.gptq_error(known, fmt) == pytest.approx(float(run), rel=0.03)
    assert L.rounding_error(known, fmt) == pytest.approx(float(L.output_error(rounded, W, H)), rel=1e-12)
    if fmt.scale_format == "e8m0" or fmt.block_size is None and fmt.scaling != "rms":
        with pytest.raises(ValueError, match="needs the weights"):
            L.gptq_error(L.Layer(H, law=f.Laplace()), fmt)
        return
    assert L.gptq_error(L.Layer(H, law=f.Normal()), fmt) == pytest.approx(float(run), rel=0.03)
    size = n if fmt.block_size == "channel" else fmt.block_size
    by_law = L.rounding_error(L.Layer(H), fmt)
    exact = f.relative_rms_error(f.Normal(), f.BlockFormat(fmt.codebook, size, fmt.scaling, None, fmt.multiplier)) ** 2
    assert by_law == pytest.approx(float(exact), rel=1e-12 if fmt.scaling != "rms" else 0.01)


N = 40
BOOK = rj.uniform(2, 1.5)


def _scaled(x):
    return f.BlockFormat(BOOK, "channel", "rms", multiplier=x)


def _levels(x):
    return rj.codebook(jnp.asarray(BOOK.levels).at[1].add(x - 1))


def _first(array, x):
    return jnp.asarray(array).at[(2,) * array.ndim].multiply(x)


GRADIENTS = {
    "rotated, scale": lambda x, a, H, W: L.gptq_error(L.Layer(a, rotated=True), _scaled(x)),
    "law, level": lambda x, a, H, W: L.gptq_error(L.Layer(H, law=f.Laplace()), _levels(x)),
    "weights, scale": lambda x, a, H, W: L.gptq_error(L.Layer(H, weights=W), _scaled(x)),
    "entropy code, bits": lambda x, a, H, W: L.entropy_coded_error(L.Layer(a, rotated=True), 2.0 * x),
    "limit, eigenvalue": lambda x, a, H, W: L.rate_limit(L.Layer(_first(a, x), rotated=True), 2.0),
    "rounding, scale": lambda x, a, H, W: L.rounding_error(L.Layer(H, weights=W), _scaled(x)),
}
MORE_GRADIENTS = {
    "rotated, eigenvalue": lambda x, a, H, W: L.gptq_error(L.Layer(_first(a, x), rotated=True), BOOK),
    "blocks, scale": lambda x, a, H, W: L.gptq_error(L.Layer(H), f.BlockFormat(f.integer(3), 20, multiplier=x)),
    "normal, H": lambda x, a, H, W: L.gptq_error(L.Layer(_first(H, x)), BOOK),
    "normal, damping": lambda x, a, H, W: L.gptq_error(L.Layer(H), BOOK, damping=0.1 * x),
    "entropy code, damping": lambda x, a, H, W: L.entropy_coded_error(L.Layer(H), 2.0, damping=0.1 * x),
}


@pytest.mark.parametrize(
    "case",
    [*GRADIENTS.values(), *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_GRADIENTS.values())],
    ids=[*GRADIENTS, *MORE_GRADIENTS],
)
def test_gradients(case, rng):
    eigenvalues, W = power_law(N, 1.0), rng.laplace(size=(24, N))
    fixed, h = (eigenvalues, turned(eigenvalues, rng), W), 1e-5
    difference = (case(1 + h, *fixed) - case(1 - h, *fixed)) / (2 * h)
    assert jax.grad(case)(1.0, *fixed) == pytest.approx(float(difference), rel=1e-5, abs=1e-9)


def test_best_scale_of_gptq_is_wider(rng):
    H, W = turned(power_law(96, 1.5), rng), rng.normal(size=(512, 96))
    layer, book = L.Layer(H), rj.uniform(3, 2.1)
    best = {name: L.optimal_scale(layer, book, name) for name in ("gptq", "rounding")}
    assert best["gptq"].multiplier > best["rounding"].multiplier
    # The scale of the uniform quantizer of least error (Max 1960: step .5860).
    assert best["rounding"].multiplier * 2.1 * 2 / 7 == pytest.approx(0.5860, abs=2e-4)
    run = {name: L.output_error(L.gptq(W, H, fmt), W, H) for name, fmt in best.items()}
    assert run["gptq"] < run["rounding"]


def test_best_scale_for_rounding_known_weights(rng):
    """Whose error jumps wherever one changes its level; the search begins far off."""
    layer = L.Layer(turned(power_law(48, 1.0), rng), weights=rng.laplace(size=(32, 48)))
    found = L.rounding_error(layer, L.optimal_scale(layer, rj.uniform(3, 0.4), "rounding"))
    scan = [float(L.rounding_error(layer, rj.uniform(3, 2.1 * x))) for x in np.geomspace(0.3, 3, 200)]
    assert found <= min(scan) * 1.005


def test_no_program_is_made_twice(programs, rng):
    n = 32
    for k in range(2):
        H, W = turned(power_law(n, 0.5 + k), rng), rng.normal(size=(16, n))
        with programs() as count:
            for book in (rj.uniform(3, 2.0), rj.uniform(3, 1.0)):
                L.gptq_error(L.Layer(H, weights=W), book, damping=0.01 * (k + 1))
                L.gptq_error(L.Layer(H, law=LAWS["laplace"][0]), book)
                L.gptq_error(L.Layer(power_law(n, 1.0 + k), rotated=True), book)
                L.rounding_error(L.Layer(H, weights=W), book)
                L.gptq(W, H, book)
    assert count() == 0
