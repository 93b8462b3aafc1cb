"""Codebooks: their levels, derivatives, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj


def test_uniform_levels():
    np.testing.assert_allclose(rj.uniform(2, 1.5).levels, [-1.5, -0.5, 0.5, 1.5])
    assert len(rj.uniform(8, 1.0)) == 256
    assert rj.codebook([-1, 0, 1]).bits == pytest.approx(np.log2(3))


def test_power_bends_towards_zero():
    np.testing.assert_allclose(rj.power(2, 2.0, 1.0).levels, rj.uniform(2, 2.0).levels)
    np.testing.assert_allclose(rj.power(2, 2.0, 2.0).levels, [-2, -2 / 9, 2 / 9, 2])


def test_differentiable_in_width_exponent_and_levels():
    by_width = jax.jacobian(lambda w: rj.uniform(2, w).levels)(1.5)
    np.testing.assert_allclose(by_width, np.linspace(-1, 1, 4))
    by_exponent = jax.jacobian(lambda p: rj.power(2, 2.0, p).levels)(1.3)
    h = 1e-6
    np.testing.assert_allclose(
        by_exponent, (rj.power(2, 2.0, 1.3 + h).levels - rj.power(2, 2.0, 1.3 - h).levels) / (2 * h), rtol=1e-8
    )
    by_level = jax.grad(lambda b: jnp.sum(b.levels**3))(rj.codebook([-1.0, 0.5, 2.0]))
    np.testing.assert_allclose(by_level.levels, [3, 0.75, 12])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rj.uniform(0, 1.0), r"bits must be a whole number from 1 to 16, got 0"),
        (lambda: rj.uniform(2.5, 1.0), r"bits must be a whole number from 1 to 16, got 2.5"),  # type: ignore[arg-type]
        (lambda: rj.uniform(2, 0.0), r"width must be positive and finite, got 0.0"),
        (lambda: rj.uniform(2, float("nan")), r"width must not be NaN, got nan"),
        (lambda: rj.power(2, 1.0, -1.0), r"exponent must be positive and finite, got -1.0"),
        (lambda: rj.uniform(2, [1.0, 2.0]), r"width must be a single number .*, got shape \(2,\)"),
        (
            lambda: rj.codebook([1.0, 0.0]),
            r"levels must be strictly increasing, got unsorted levels 1, 0 at positions 0, 1",
        ),
        (lambda: rj.codebook([0.0, 1.0, 1.0]), r"got duplicate levels 1, 1 at positions 1, 2"),
        (lambda: rj.codebook([1.0]), r"levels must be a vector of at least two numbers, got shape \(1,\)"),
        (lambda: rj.codebook([[0.0, 1.0]]), r"got shape \(1, 2\)"),
        (lambda: rj.codebook([0.0, np.nan]), r"levels must not be NaN, got \[0, nan\]"),
        (lambda: rj.codebook([0.0, np.inf]), r"levels must be finite, got \[0, inf\]"),
    ],
)
def test_bad_codebooks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_not_numbers():
    with pytest.raises(TypeError, match="levels must be a real number or an array of them, got 'abc'"):
        rj.codebook("abc")
