"""Levels for a layer: Lloyd's for rounding, others for GPTQ, whose runs confirm them, others for the best codeword."""

import jax
import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize, minimize_scalar

import replicajax as rj
from replicajax.formats import BlockFormat, Laplace, Normal, lloyd_max, nf4

L = rj.layers
EIGENVALUES = np.arange(1, 129.0) ** -1.0


def turned(seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(EIGENVALUES.size, EIGENVALUES.size)))[0]
    return (Q * EIGENVALUES) @ Q.T


def test_rounding_wants_lloyd_and_max():
    best = rj.optimal_codebook(L.Layer(turned()), 4, algorithm="rounding")
    assert best.converged
    np.testing.assert_allclose(best.levels, lloyd_max(Normal(), 2).levels, atol=1e-7)


def test_gptq_wants_wider_levels():
    """By another search, and on instances: less is lost than by Lloyd's levels."""
    layer = L.Layer(turned())
    best = rj.optimal_codebook(layer, 4)
    assert best.converged
    assert best.levels[-1] > lloyd_max(Normal(), 2).levels[-1] + 0.02

    def error(h):
        return float(L.gptq_error(layer, rj.codebook([-h[1], -h[0], h[0], h[1]])))

    found = minimize(error, [0.4, 1.2], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    np.testing.assert_allclose(best.levels[2:], found.x, atol=1e-6)
    assert best.error == pytest.approx(found.fun, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [1.0, 1.5])
def test_gains_of_gptq_on_instances(exponent):
    """The same weights by the learned levels and by Lloyd's.  8 levels gain some 4e-6, below what 24 layers can tell."""
    rng = np.random.default_rng(5)
    Q = np.linalg.qr(rng.normal(size=(400, 400)))[0]
    H = (Q * np.arange(1, 401.0) ** -exponent) @ Q.T
    layer, rounding = L.Layer(H), lloyd_max(Normal(), 2)
    best = rj.optimal_codebook(layer, 4)
    expected = float(L.gptq_error(layer, rounding)) - best.error
    gains = []
    for _ in range(24):
        W = rng.normal(size=(400, 400))
        lost = [float(L.output_error(L.gptq(W, H, book), W, H)) for book in (rounding, best.codebook)]
        gains.append(lost[0] - lost[1])
    mean, spread = np.mean(gains), np.std(gains, ddof=1) / len(gains) ** 0.5
    print(f"gain {mean:.3g} ± {spread:.2g}, predicted {expected:.3g}")
    assert mean > 0
    assert abs(mean - expected) < 3 * spread


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rounding", "gptq"])
def test_symmetry_is_found_and_not_assumed(algorithm):
    """Its weights lie on a threshold: derivatives there are those of the sum, not of a side."""
    layer = L.Layer(EIGENVALUES, rotated=True)
    free = rj.optimal_codebook(layer, 4, symmetric=False, algorithm=algorithm, start=[-1.8, -0.3, 0.9, 1.4])
    assert free.converged
    np.testing.assert_allclose(free.levels, rj.optimal_codebook(layer, 4, algorithm=algorithm).levels, atol=1e-6)


@pytest.mark.slow
def test_the_best_codeword_wants_others():
    layer = L.Layer(EIGENVALUES, rotated=True)
    best = rj.optimal_codebook(layer, 2, algorithm="optimum")
    assert best.converged
    found = minimize_scalar(
        lambda a: float(L.optimum_error(layer, rj.codebook([-a, a]))),
        bounds=(0.4, 1.5),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert best.levels[1] == pytest.approx(float(found.x), abs=1e-6)


@pytest.mark.slow
def test_levels_of_blocks():
    """A largest that has the largest level: no codebook of 16 loses less, NF4 more."""
    layer, fmt = L.Layer(turned()), BlockFormat(nf4(), 64)
    best = rj.optimal_codebook(layer, 16, fmt=fmt)
    assert best.converged
    assert best.levels[-1] == pytest.approx(1.0, abs=1e-12)
    assert best.error < L.gptq_error(layer, fmt)
    assert best.error == pytest.approx(float(L.gptq_error(layer, best.fmt)), rel=1e-12)
    gradient = jax.grad(lambda levels: L.gptq_error(layer, BlockFormat(rj.codebook(levels), 64)))(best.levels)
    assert np.abs(gradient - gradient[::-1])[9:-1].max() < 1e-6 * best.error
    W = np.random.default_rng(1).normal(size=(4000, EIGENVALUES.size))
    lost = [float(L.output_error(L.gptq(W, layer.moment, f), W, layer.moment)) for f in (fmt, best.fmt)]
    assert lost[1] / lost[0] == pytest.approx(best.error / float(L.gptq_error(layer, fmt)), rel=0.01)
    signed = rj.optimal_codebook(
        layer, 4, fmt=BlockFormat(rj.codebook([-1, -0.5, 0, 0.5]), 32, "signmax"), symmetric=False
    )
    assert signed.converged
    assert signed.levels[0] == pytest.approx(-1.0, abs=1e-12)
    few = rj.optimal_codebook(layer, 3, fmt=fmt)
    assert few.converged
    np.testing.assert_allclose(few.levels, [-1, 0, 1], atol=1e-12)
    assert few.fmt.element_bits == pytest.approx(np.log2(3))


def test_bad_requests():
    layer = L.Layer(turned())
    for change, message in (
        ({"beta": 5.0}, "leave them out"),
        ({"algorithm": "magic"}, "algorithm must be"),
        ({"fmt": BlockFormat(nf4(), 64), "symmetric": False}, "symmetric must be True"),
        ({"fmt": BlockFormat(nf4(), 64, "signmax")}, "symmetric must be False"),
        ({"levels": 1}, "levels must be"),
        (
            {"fmt": BlockFormat(nf4(), 64), "constraints": LinearConstraint(np.eye(4)[3], 2, 2)},
            "increasing levels, and they leave none",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            rj.optimal_codebook(**({"task": layer, "levels": 4} | change))  # pyright: ignore
    known = L.Layer(turned(), weights=np.random.default_rng(0).normal(size=(8, EIGENVALUES.size)))
    with pytest.raises(ValueError, match="needs a law"):
        rj.optimal_codebook(known, 4, algorithm="rounding")
    with pytest.raises(TypeError, match="optimal_codebook has no argument dampning"):
        rj.optimal_codebook(layer, 4, dampning=1)  # pyright: ignore
    task = rj.LinearRegression(2.0, 1.0, 0.1)
    with pytest.raises(TypeError, match="only of a layer"):
        rj.optimal_codebook(task, 4, 5.0, algorithm="gptq")  # pyright: ignore
    with pytest.raises(TypeError, match="beta must be given"):
        rj.optimal_codebook(task, 4)  # pyright: ignore


@pytest.mark.slow
def test_other_laws_want_other_levels():
    layer = L.Layer(turned(), law=Laplace())
    rounding, gptq = (rj.optimal_codebook(layer, 4, algorithm=name) for name in ("rounding", "gptq"))
    assert rounding.converged
    assert gptq.converged
    # Rows are in units of their own RMS: Lloyd's, but for 1/inputs.
    rms = float(Laplace().second_moment()) ** 0.5
    np.testing.assert_allclose(rounding.levels, np.asarray(lloyd_max(Laplace(), 2).levels) / rms, rtol=0.03)
    assert gptq.levels[-1] > rounding.levels[-1]
