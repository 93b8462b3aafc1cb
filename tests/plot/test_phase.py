"""What a picture of a sweep shows."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import replicajax as rj
from replicajax.plot import plot_phase_diagram

TASK = rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)


@pytest.fixture(scope="module")
def sweep():
    axes = {"bits": [1], "alpha": np.linspace(0.5, 3, 12), "width": np.linspace(0.5, 4, 11)}
    return rj.phase_diagram(TASK, beta=5.0, axes=axes)


def test_two_axes_are_a_map(sweep):
    axes = Figure().subplots()
    picture = plot_phase_diagram(axes, sweep)
    np.testing.assert_array_equal(picture.get_array(), sweep.generalization_error[0].T)
    assert axes.get_xlabel() == "alpha, rows per weight"
    assert axes.get_ylabel() == "width, largest level (weight)"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["replicon = 0"]


def test_few_values_are_lines(sweep):
    axes = Figure().subplots()
    assert plot_phase_diagram(axes, sweep.isel(alpha=[0, 11]), "test_error") is None
    assert axes.get_ylabel() == "test error (label²)"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "alpha 0.5",
        "alpha 3",
        "replica symmetry unstable",
    ]
    dotted, solid = axes.lines[2:4]
    np.testing.assert_allclose(dotted.get_ydata(), sweep.test_error[0, -1])
    stable = sweep.stable.values[0, -1]
    assert 0 < stable.sum() < stable.size
    np.testing.assert_array_equal(np.isfinite(solid.get_ydata()), stable)


def test_refuses_what_is_no_picture(sweep):
    axes = Figure().subplots()
    with pytest.raises(ValueError, match="variable must be one of"):
        plot_phase_diagram(axes, sweep, "nonsense")
    with pytest.raises(ValueError, match="a picture has one or two axes, got 0"):
        plot_phase_diagram(axes, sweep.isel(alpha=0, width=0))
