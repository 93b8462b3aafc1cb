"""The grid and its labels; the numbers against `solve`, reference values and finite differences."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import replicajax as rj
from replicajax.sweep import OBSERVABLES

TASK = rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)
ALPHA, WIDTH = np.linspace(0.4, 3, 7), np.linspace(0.6, 3.5, 9)


@pytest.fixture(scope="module")
def sweep():
    return rj.phase_diagram(
        TASK, 2, 10.0, axes={"alpha": ALPHA, "width": WIDTH}, gradients=["width", "beta"], optimum="width"
    )


def test_is_labelled(sweep):
    assert dict(sweep.sizes) == {"alpha": 7, "width": 9}
    np.testing.assert_array_equal(sweep.alpha, ALPHA)
    assert set(OBSERVABLES) < set(sweep.data_vars)
    assert sweep.width.attrs == {"long_name": "largest level", "units": "weight"}
    assert sweep.entropy.attrs["units"] == "nat"
    assert sweep.rate.attrs["units"] == "bit"
    assert (sweep.attrs["bits"], sweep.attrs["beta"], sweep.attrs["noise"]) == (2, 10.0, 0.1)
    assert not {"alpha", "width"} & set(sweep.attrs)
    assert sweep.converged.dtype == bool
    assert bool(sweep.converged.all())


def test_agrees_with_solve(sweep):
    for i, j in ((0, 0), (3, 8), (6, 4)):
        solution = rj.solve(rj.LinearRegression(ALPHA[i], 1.0, 0.1), rj.uniform(2, WIDTH[j]), 10.0)
        for name in OBSERVABLES:
            if name != "steps":
                got = sweep[name].values[i, j]
                np.testing.assert_allclose(got, getattr(solution, name), rtol=1e-9, atol=1e-10, err_msg=name)


def test_gradients(sweep):
    step = 1e-5
    for name, fixed in (("width", {"beta": 10.0}), ("beta", {"width": 3.5})):
        at = {"width": 3.5, "beta": 10.0}[name]
        axes = {"alpha": ALPHA, name: [at - step, at + step]}
        eg = rj.phase_diagram(TASK, 2, axes=axes, **fixed).generalization_error
        difference = (eg[:, 1] - eg[:, 0]) / (2 * step)
        np.testing.assert_allclose(sweep[f"d_generalization_error_d_{name}"][:, -1], difference, rtol=1e-6, atol=1e-10)


def test_optimum(sweep):
    along = rj.phase_diagram(TASK, 2, 5.0, axes={"width": WIDTH}, optimum="width")
    np.testing.assert_allclose(along.optimal_width, 1.7303579, rtol=5e-8)  # theory.md, reference numbers
    np.testing.assert_allclose(along.optimal_generalization_error, 0.14121067, rtol=5e-8)
    inside = sweep.optimum_inside.values
    assert inside.sum() >= 5
    least = sweep.generalization_error.min("width").values
    assert (sweep.optimal_generalization_error.values <= least + 1e-14).all()
    np.testing.assert_array_equal(sweep.optimal_generalization_error.values[~inside], least[~inside])


@pytest.mark.slow
def test_axes_of_every_kind():
    axes = {"bits": [1, 2], "beta": [5.0, 8.0], "exponent": [1.0, 1.5], "ridge": [0.0, 0.2], "noise": [0.1, 0.3]}
    teacher = rj.distributions.GaussBernoulli(0.5)
    task = rj.LinearRegression(1.5, 1.2, teacher=teacher)
    sweep = rj.phase_diagram(task, width=1.5, axes=axes | {"signal": [1.2], "density": [0.2]}).squeeze()
    assert bool(sweep.converged.all())
    there = rj.LinearRegression(1.5, 1.2, 0.3, 0.2, rj.distributions.GaussBernoulli(0.2))
    solution = rj.solve(there, rj.power(2, 1.5, 1.5), 8.0)
    np.testing.assert_allclose(sweep.isel(dict.fromkeys(axes, 1)).test_error, solution.test_error, rtol=1e-9)


@pytest.mark.slow
def test_degrees_of_freedom_as_an_axis():
    task = rj.LinearRegression(1.5, noise=0.1, teacher=rj.distributions.StudentT(4.0))
    sweep = rj.phase_diagram(task, 1, 5.0, width=1.0, axes={"df": [3.0, 8.0]})
    for i, df in enumerate((3.0, 8.0)):
        there = rj.LinearRegression(1.5, noise=0.1, teacher=rj.distributions.StudentT(df))
        solution = rj.solve(there, rj.uniform(1, 1.0), 5.0)
        np.testing.assert_allclose(sweep.generalization_error[i], solution.generalization_error, rtol=1e-9)


def test_any_codebook_scaled_to_its_width():
    axes = {"alpha": ALPHA}
    given = rj.phase_diagram(TASK, beta=5.0, codebook=rj.codebook([-3, -1, 1, 3]), width=1.5, axes=axes)
    xr.testing.assert_allclose(given, rj.phase_diagram(TASK, 2, 5.0, width=1.5, axes=axes), atol=1e-12)
    few = rj.phase_diagram(TASK, beta=5.0, codebook=rj.uniform(2, 1.5), axes=axes, observables=["test_error"])
    assert set(few.data_vars) == {"test_error", "stable", "converged"}
    np.testing.assert_allclose(few.test_error, given.test_error, rtol=1e-12)


def test_chunks_and_disk_change_nothing(sweep, tmp_path):
    axes = {"alpha": ALPHA, "width": WIDTH}
    rest = {"gradients": ["width", "beta"], "optimum": "width"}
    chunked = rj.phase_diagram(TASK, 2, 10.0, axes=axes, chunk=4, store=tmp_path / "sweep.zarr", **rest)
    assert list(chunked.data_vars) == list(sweep.data_vars)
    xr.testing.assert_identical(chunked.load(), sweep)


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_saves_as_any_dataset(sweep, tmp_path, suffix):
    path = tmp_path / f"sweep.{suffix}"
    if suffix == "nc":
        sweep.to_netcdf(path)
        back = xr.open_dataset(path)
    else:
        sweep.to_zarr(path, consolidated=False)
        back = xr.open_zarr(path, consolidated=False, chunks=None)
    xr.testing.assert_identical(back.load(), sweep)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": {"alpha": [1.0, 0.0]}}, r"axes\['alpha'\] must be positive"),
        ({"axes": {"alpha": [1.0, np.nan]}}, r"axes\['alpha'\] must not be NaN"),
        ({"axes": {"alpha": [1.0, 3.0, 2.0]}}, r"axes\['alpha'\] must increase \(or decrease\) throughout"),
        ({"axes": {"alpha": [[1.0]]}}, r"axes\['alpha'\] must be a list"),
        ({"axes": {"noise": [-1.0]}}, r"axes\['noise'\] must be finite and not negative"),
        ({"axes": {"bits": [1.5]}, "bits": None}, r"axes\['bits'\] must be a list of whole numbers"),
        ({"axes": {"bits": [0]}, "bits": None}, r"axes\['bits'\] must be a whole number from 1 to 16"),
        ({"axes": {"colour": [1.0]}}, r"axes may be alpha, .*got 'colour'"),
        ({"axes": [1.0]}, r"axes must be a dict"),
        ({"axes": {"beta": [1.0]}}, r"beta is given twice"),
        ({"axes": {"alpha": [1.0]}, "width": None}, r"width must be given"),
        ({"axes": {"alpha": [1.0]}, "width": [1.0, 2.0]}, r"width must be a single number"),
        ({"axes": {"alpha": [1.0]}, "bits": 0}, r"bits must be a whole number"),
        ({"axes": {"alpha": [1.0]}, "beta": -1.0}, r"beta must be positive"),
        ({"axes": {"alpha": [1.0]}, "codebook": rj.uniform(2, 1.0)}, r"bits must be left out"),
        ({"axes": {"alpha": [1.0]}, "gradients": ["bits"]}, r"gradients must be one of"),
        ({"axes": {"alpha": [1.0]}, "gradients": "width"}, r"gradients must be a list"),
        ({"axes": {"alpha": [1.0]}, "observables": ["nonsense"]}, r"observables must be one of"),
        ({"axes": {"alpha": [1.0, 2.0]}, "optimum": "alpha"}, r"optimum must be an axis of at least three values"),
        ({"axes": {"alpha": [1.0]}, "chunk": 0}, r"chunk must be a whole number"),
        ({"axes": {"alpha": [1.0]}, "beta": np.inf, "gradients": ["beta"]}, r"gradients in beta need finite beta"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        rj.phase_diagram(TASK, **({"bits": 2, "beta": 5.0, "width": 1.0} | arguments))


def test_cannot_be_traced():
    import jax

    with pytest.raises(TypeError, match="a sweep cannot be traced"):
        jax.jit(lambda w: rj.phase_diagram(TASK, 2, 5.0, width=w, axes={"alpha": [1.0]}))(jnp.ones(()))
