"""Levels, code by code: ml_dtypes for floats, published tables, quantiles by scipy."""

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

import replicajax as rj

f = rj.formats


@pytest.mark.parametrize(
    ("exponent", "mantissa", "dtype", "specials"),
    [
        (2, 1, ml_dtypes.float4_e2m1fn, 0),
        (2, 3, ml_dtypes.float6_e2m3fn, 0),
        (3, 2, ml_dtypes.float6_e3m2fn, 0),
        (4, 3, ml_dtypes.float8_e4m3fn, 1),
        (3, 4, ml_dtypes.float8_e3m4, 16),
        (5, 2, ml_dtypes.float8_e5m2, 4),
        (4, 3, ml_dtypes.float8_e4m3, 8),
        (5, 10, np.float16, 1024),
    ],
)
def test_floats_code_by_code(exponent, mantissa, dtype, specials):
    """All codes of ml_dtypes but its specials (the topmost, on both sides), which are numbers here."""
    bits = 1 + exponent + mantissa
    codes = np.arange(2 ** (bits - 1), dtype=np.uint16 if bits > 8 else np.uint8).view(dtype).astype(float)
    numbers = codes[: codes.size - specials]
    assert np.isfinite(numbers).all()
    assert not np.isfinite(codes[codes.size - specials :]).any()
    book = f.floating_point(exponent, mantissa)
    ours = np.asarray(book.levels)
    np.testing.assert_array_equal(ours[ours >= 0][: numbers.size], numbers)
    np.testing.assert_array_equal(ours, -ours[::-1])
    assert ours.size == 2**bits - 1
    assert book.bits == bits


def test_integers():
    np.testing.assert_array_equal(f.integer(4).levels, np.arange(-8, 8))
    np.testing.assert_array_equal(f.integer(2, symmetric=True).levels, [-1.5, -0.5, 0.5, 1.5])
    ternary = f.integer(np.log2(3))
    np.testing.assert_array_equal(ternary.levels, [-1, 0, 1])
    assert abs(ternary.bits - np.log2(3)) < 1e-15


def test_nf4_are_normal_quantiles():
    """QLoRA's construction: 8 and 9 quantiles of N(0, 1) on the two sides, divided by the largest; its float32 table."""
    offset = (1 - 1 / 32 + 1 - 1 / 30) / 2
    up, down = (stats.norm.ppf(np.linspace(offset, 0.5, n)[:-1]) for n in (9, 8))
    built = np.concatenate([-down, [0.0], up[::-1]]) / up[0]
    np.testing.assert_allclose(f.nf4().levels, built, atol=2e-5)


def test_sf4():
    """Dotzel et al., table of SF4 with 5 degrees of freedom, to its three digits."""
    table = [-1.0, -0.628, -0.455, -0.334, -0.237, -0.153, -0.075, 0.0]
    table += [0.066, 0.133, 0.205, 0.284, 0.376, 0.491, 0.657, 1.0]
    np.testing.assert_allclose(f.sf4().levels, table, atol=5.1e-4)


@pytest.mark.parametrize("law", ["normal", "laplace", "t"])
def test_cube_root_levels(law):
    """theory.md 4.1's scales, through scipy's quantiles, at several powers of the density."""
    p = np.arange(1, 17) / 17
    for exponent in (1 / 3, 0.5, 1.0):
        if law == "normal":
            ours, want = f.Normal(), stats.norm.ppf(p, scale=exponent**-0.5)
        elif law == "laplace":
            ours, want = f.Laplace(), stats.laplace.ppf(p, scale=1 / (exponent * np.sqrt(2)))
        else:
            df = (5 + 1) * exponent - 1
            ours, want = f.StudentT(5.0), stats.t.ppf(p, df, scale=np.sqrt(3 / df))
        np.testing.assert_allclose(f.cube_root(ours, 4, exponent=exponent).levels, want, rtol=1e-9)


def test_cube_root_variants():
    normal = f.Normal()
    levels = {v: np.asarray(f.cube_root(normal, 4, variant=v).levels) for v in ("symmetric", "asymmetric", "zero")}
    assert {v: x.size for v, x in levels.items()} == {"symmetric": 16, "asymmetric": 16, "zero": 15}
    assert 0 not in levels["symmetric"]
    for variant in ("asymmetric", "zero"):
        assert (np.abs(levels[variant]) < 1e-12).sum() == 1
    assert (levels["asymmetric"] > 1e-9).sum() == 8
    np.testing.assert_allclose(levels["zero"], -levels["zero"][::-1], atol=1e-12)
    assert f.cube_root(normal, 4, variant="zero").bits == 4


def test_cube_root_for_blocks():
    """Truncated to the expected largest magnitude; the ends are levels; better than NF4 at what NF4 is made for."""
    normal = f.Normal()
    book = f.cube_root(normal, 4, block_size=64)
    assert (float(book.levels[0]), float(book.levels[-1])) == (-1.0, 1.0)
    scale = np.sqrt(3) / float(f.expected_maximum(normal, 64))
    want = stats.truncnorm.ppf(np.arange(16) / 15, -1 / scale, 1 / scale, scale=scale)
    np.testing.assert_allclose(book.levels, want, atol=1e-9)
    error = f.relative_rms_error
    assert error(normal, f.BlockFormat(book, 64)) < error(normal, f.BlockFormat(f.nf4(), 64))
    signed = f.cube_root(normal, 4, block_size=64, scaling="signmax", variant="asymmetric")
    assert float(signed.levels[-1]) == 1.0
    assert float(signed.levels[0]) > -1.0
    assert error(normal, f.BlockFormat(signed, 64, "signmax")) < error(normal, f.BlockFormat(book, 64))


LLOYD = [(f.Normal(), 1), (f.Normal(), np.log2(3))]
MORE = [
    (f.StudentT(2.5), 8),
    (f.Laplace(2.0), 3),
    (f.StudentT(5.0), 3),
    (f.Normal(), 8),
    (f.Laplace(2.0), np.log2(3)),
    (f.Laplace(), 8),
    (f.StudentT(2.5), 1),
    (f.GeneralizedNormal(0.6), 8),
]


@pytest.mark.parametrize(("law", "bits"), [*LLOYD, *(pytest.param(*x, marks=pytest.mark.slow) for x in MORE)])
def test_lloyd_max_is_stationary(law, bits):
    """No better and no worse for any small change of any level; better than the start."""
    import jax

    book = f.lloyd_max(law, bits)
    gradient = jax.grad(lambda c: f.relative_rms_error(law, c))(book).levels
    assert float(np.abs(gradient * np.sqrt(law.second_moment())).max()) < 1e-10
    assert f.relative_rms_error(law, book) <= f.relative_rms_error(law, f.cube_root(law, bits)) + 1e-15
    if bits == 1 and isinstance(law, rj.distributions.Normal):
        np.testing.assert_allclose(book.levels, [-np.sqrt(2 / np.pi), np.sqrt(2 / np.pi)], rtol=1e-12)
