"""The algorithms: GPTQ against a loop that inverts what is left of H for every column, packing, rotations, annealing."""

import ml_dtypes
import numpy as np
import pytest
from example_layers import plain_gptq, power_law, turned

import replicajax as rj
from replicajax.layers._rotation import Rotation

L, f = rj.layers, rj.formats


@pytest.mark.parametrize("order", ["natural", "descending"])
@pytest.mark.parametrize(
    "fmt",
    [rj.uniform(3, 2.1), f.BlockFormat(f.integer(4), 20, "absmax"), f.BlockFormat(f.nf4(), None, "signmax")],
    ids=str,
)
def test_plain_loop(fmt, order, rng):
    n, rows = 140, 48  # more than one block of columns, and not two
    H, W = turned(power_law(n, 1.0), rng) * np.outer(*[rng.uniform(0.5, 2, n)] * 2), rng.laplace(size=(rows, n))
    if isinstance(fmt, rj.Codebook):
        levels, scales = np.asarray(fmt.levels), np.sqrt((W**2).mean(1, keepdims=True)) * np.ones(W.shape)
    else:
        levels, wide = np.asarray(fmt.codebook.levels), 20 if fmt.block_size is not None else n
        blocks = W.reshape(rows, -1, wide) if fmt.block_size is not None else W.reshape(1, 1, -1)
        if fmt.scaling == "absmax":
            size = np.abs(blocks).max(-1, keepdims=True) / 7
        else:
            size = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1) / fmt.end
        scales = np.broadcast_to(size, blocks.shape).reshape(W.shape)
    columns = np.arange(n) if order == "natural" else np.argsort(-np.diag(H), kind="stable")
    plain, codes = plain_gptq(W, H, levels, scales, 0.01, columns)
    found = L.gptq(W, H, fmt, order=order)
    off = [x - W for x in (found, plain)]
    losses = [np.sum((x @ H) * x) for x in off]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    np.testing.assert_allclose(found, plain, rtol=1e-9)
    packed = L.gptq_tensor(W, H, fmt, order=order)
    assert (packed.codes == codes).mean() >= 0.999  # scales in fp32
    assert packed.bits_per_weight == f.quantize(W, packed.format).bits_per_weight
    assert L.output_error(packed.dequantize(), W, H) == pytest.approx(float(L.output_error(plain, W, H)), rel=1e-3)


@pytest.mark.parametrize("of_weights", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_files_of_any_precision(of_weights, rng):
    """Computed in float64, and packed as what was there."""
    W, H = rng.normal(size=(20, 24)).astype(of_weights), turned(power_law(24, 1.0), rng).astype(np.float32)
    book = rj.uniform(3, 2.0)
    exact, layer = L.gptq(W.astype(float), H, book), L.Layer(H, weights=W)
    assert exact.dtype == np.float64
    np.testing.assert_array_equal(L.gptq(W, H, book), exact)
    packed = L.gptq_tensor(W, H, book)
    assert packed.dequantize().dtype == of_weights
    assert L.output_error(packed.dequantize(), W, H) == pytest.approx(float(L.output_error(exact, W, H)), rel=0.05)
    assert L.gptq_error(layer, book) == L.gptq_error(L.Layer(H, weights=W.astype(float)), book)
    assert L.report(W, H, book).gptq == pytest.approx(float(L.gptq_error(layer, book)), rel=1e-12)
    assert np.isfinite(L.anneal(W, H, book, sweeps=2)).all()


def test_rounding_is_gptq_without_correlations(rng):
    W, book = rng.normal(size=(8, 30)), rj.uniform(3, 2.0)
    H = np.diag(rng.uniform(0.5, 2.0, 30))
    np.testing.assert_allclose(L.gptq(W, H, book), L.round_to_nearest(W, book), rtol=1e-12)


def test_rows_of_zeros_stay(rng):
    W = rng.normal(size=(4, 16))
    W[2] = 0
    H = turned(power_law(16, 1.0), rng)
    for quantized in (L.gptq(W, H, rj.uniform(2, 1.5)), L.gptq_tensor(W, H, rj.uniform(2, 1.5)).dequantize()):
        assert not np.asarray(quantized)[2].any()
        assert np.isfinite(np.asarray(quantized)).all()


@pytest.mark.parametrize("kind", ["hadamard", "orthogonal"])
@pytest.mark.parametrize("inputs", [24, 32])
def test_rotations(kind, inputs, rng):
    R = Rotation.drawn(kind, inputs, 1, float)
    matrix = np.asarray(R.turned(np.eye(inputs)))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(inputs), atol=1e-12)
    W, H = rng.normal(size=(5, inputs)), turned(power_law(inputs, 1.0), rng)
    np.testing.assert_allclose(R.turned(W), W @ matrix, atol=1e-12)
    np.testing.assert_allclose(R.back(R.turned(W)), W, atol=1e-12)
    np.testing.assert_allclose(R.conjugated(H), matrix.T @ H @ matrix, atol=1e-12)
    assert np.abs(matrix).max() < 0.9
    # Turned and back: levels are those of the turned rows.
    found, book = L.gptq(W, H, rj.uniform(4, 2.5), rotate=kind, seed=1), rj.uniform(4, 2.5)
    by_hand = R.back(L.gptq(R.turned(W), R.conjugated(H), book))
    np.testing.assert_allclose(found, by_hand, atol=1e-12)


def test_annealing_finds_the_best_codeword(rng):
    n, book = 8, rj.uniform(1, 0.8)
    H, W = turned(power_law(n, 1.5), rng), rng.normal(size=(6, n))
    units = np.sqrt((W**2).mean(1, keepdims=True))
    words = np.asarray(book.levels)[(np.arange(2**n)[:, None] >> np.arange(n)) & 1]
    best = []
    for w, u in zip(W, units, strict=True):
        off = words * u - w
        best.append(((off @ H) * off).sum(1).min())
    off = np.asarray(L.anneal(W, H, book, sweeps=200)) - W
    np.testing.assert_allclose(((off @ H) * off).sum(1), best, rtol=1e-9)
