"""Second moments from batches, their files, and what is refused."""

import numpy as np
import pytest
from example_layers import power_law, turned
from safetensors.numpy import load_file

import replicajax as rj

L, f = rj.layers, rj.formats


def test_second_moment_of_batches(rng):
    X = rng.normal(size=(10_000, 7)).astype(np.float32) + 1000  # a mean that float32 sums would drown in
    exact = X.astype(float).T @ X.astype(float) / len(X)
    batches = [X[i : i + 999] for i in range(0, len(X), 999)]
    batches[0] = batches[0].reshape(-1, 3, 7)
    np.testing.assert_allclose(L.second_moment(batches), exact, rtol=1e-13)
    half = L.second_moment([rng.normal(size=(64, 4)).astype(np.float16)])
    assert half.dtype == np.float64


def test_a_bad_batch_leaves_the_sum_as_it_was(rng):
    moment = L.SecondMoment()
    moment.add(rng.normal(size=(5, 3)))
    before = moment.value
    bad = rng.normal(size=(6, 3))
    bad[4, 1] = np.nan
    with pytest.raises(ValueError, match="batch must be finite, got NaN or inf in row 4"):
        moment.add(bad)
    with pytest.raises(ValueError, match="batch must have 3 inputs as those before, got 2"):
        moment.add(np.ones((5, 2)))
    with pytest.raises(TypeError, match="batch must be an array of floats"):
        moment.add(np.ones((5, 3), int))
    np.testing.assert_array_equal(moment.value, before)
    assert moment.count == 5
    with pytest.raises(ValueError, match="needs at least one row"):
        _ = L.SecondMoment().value


def test_files(tmp_path, rng):
    moment = L.SecondMoment()
    moment.add(rng.normal(size=(9, 4)))
    L.write_moments(tmp_path / "m.safetensors", {"a": moment, "b": np.eye(3)})
    back = load_file(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(back["a"], moment.value)
    np.testing.assert_array_equal(back["b"], np.eye(3))
    with pytest.raises(ValueError, match="must be written to a .safetensors file"):
        L.write_moments(tmp_path / "m.npz", {"a": moment})


BOOK = rj.uniform(2, 1.5)
SYMMETRIC = np.array([[2.0, 1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L.Layer(np.ones((2, 3))), r"H must be \(inputs, inputs\), got shape \(2, 3\)"),
        (lambda: L.Layer(np.ones(3)), r"H must be \(inputs, inputs\), got shape \(3,\)"),
        (lambda: L.Layer(np.array([[1.0, 0.5], [0.1, 1.0]])), "H must be symmetric, got entries that differ by 0.4"),
        (lambda: L.Layer(np.array([[1.0, 2.0], [2.0, 1.0]])), "H must have eigenvalues >= 0, got -1"),
        (lambda: L.Layer(np.array([1.0, -1.0]), rotated=True), "H must have eigenvalues >= 0, got -1"),
        (lambda: L.Layer(np.ones(2), weights=np.ones((3, 2)), rotated=True), r"H must be \(inputs, inputs\) where weights"),
        (lambda: L.Layer(np.zeros((2, 2))), "H must not be 0 throughout"),
        (lambda: L.Layer(np.full((2, 2), np.nan)), "H must not be NaN"),
        (lambda: L.Layer(SYMMETRIC, weights=np.ones((3, 4))), r"weights must be \(outputs, 2\)"),
        (lambda: L.Layer(SYMMETRIC, weights=np.zeros((3, 2))), "weights must not be 0 throughout"),
        (lambda: L.Layer(SYMMETRIC, law=f.Normal(), weights=np.ones((3, 2))), "either law or weights"),
        (lambda: L.gptq_error(L.Layer(np.diag([1.0, 0.0, 2.0])), BOOK, damping=0.0), "1 inputs .* always 0, the first 1"),
        (lambda: L.gptq(np.ones((2, 2)), np.ones((2, 2)), BOOK, damping=0.0), "damping must be larger"),
        (lambda: L.gptq(np.ones((2, 3)), SYMMETRIC, BOOK), r"weights must be \(outputs, 2\)"),
        (lambda: L.gptq(np.ones((2, 2)), SYMMETRIC, f.BlockFormat(f.nf4(), 3)), "block_size must divide the 2 inputs"),
        (lambda: L.gptq(np.ones((2, 2)), SYMMETRIC, BOOK, rotate="left"), "rotate must be one of"),
        (lambda: L.gptq_error(L.Layer(SYMMETRIC), BOOK, order="up"), "order must be one of"),
        (lambda: L.gptq_error(L.Layer(SYMMETRIC), BOOK, damping=-1.0), "damping must be finite and not negative"),
        (lambda: L.gptq_error(L.Layer(SYMMETRIC), f.BlockFormat(BOOK, 1, "rms")), "needs the weights"),
        (lambda: L.optimum_error(L.Layer(SYMMETRIC), f.BlockFormat(f.nf4(), 2)), "units of the RMS of each row"),
        (lambda: L.entropy_coded_error(L.Layer(SYMMETRIC, law=f.Laplace()), 2.0), "normal weights"),
        (lambda: L.rate_limit(L.Layer(SYMMETRIC), 0.0), "bits must be positive"),
        (lambda: rj.GivenData.of_form(np.ones((2, 2)), np.ones(2)), "eigenvalues must be a vector"),
        (lambda: rj.GivenData.of_form(-np.ones(2), np.ones(2)), "eigenvalues must be finite and not negative"),
        (lambda: rj.GivenData.of_form(np.ones(2), np.ones(3)), r"projections must have shape \(2,\)"),
        (lambda: L.gptq(np.ones((2, 2)), SYMMETRIC, f.BlockFormat(f.nf4(), 4, "absmax", "fp16")), "must divide the 2 inputs"),
        (lambda: L.output_error(np.ones((2, 3)), np.ones((2, 2)), SYMMETRIC), "must fit together"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("call", [lambda: L.gptq_error(SYMMETRIC, BOOK), lambda: L.gptq_error(L.Layer(SYMMETRIC), 4)])
def test_bad_types(call):
    with pytest.raises(TypeError, match="must be a"):
        call()


def test_dead_inputs_are_harmless_with_damping(rng):
    H = turned(power_law(20, 1.0), rng)
    H[5] = H[:, 5] = 0
    W, book = rng.normal(size=(300, 20)), rj.uniform(4, 2.5)
    run = L.output_error(L.gptq(W, H, book), W, H)
    assert L.gptq_error(L.Layer(H, weights=W), book) == pytest.approx(float(run), rel=0.05)
