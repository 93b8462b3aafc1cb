"""The traced curves, and what [Q] found (theory 1.5): each claim is a picture in figures/ and an assertion here."""

import numpy as np
import pytest

import replicajax as rj

TASK = rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)


def test_stability_line():
    alpha = np.array([0.5, 1.5, 3.0])
    arguments = {"bits": 2, "beta": 10.0, "unknown": "width", "between": (0.2, 8.0)}
    line = rj.stability_line(TASK, axes={"alpha": alpha}, **arguments)
    assert line.found.values.tolist() == [False, True, True]
    assert np.isnan(line.width[0])
    for a, width in zip(alpha[1:], line.width.values[1:], strict=True):
        solution = rj.solve(rj.LinearRegression(a, 1.0, 0.1), rj.uniform(2, width), 10.0)
        assert abs(solution.replicon) < 1e-9
    step = 1e-5
    near = rj.stability_line(TASK, axes={"alpha": [3.0 - step, 3.0 + step]}, **arguments).width.values
    np.testing.assert_allclose(line.d_width_d_alpha[2], (near[1] - near[0]) / (2 * step), rtol=1e-5)


def test_freezing_line():
    """With few rows the entropy is gone while symmetry is stable still; a step of breaking begins there."""
    alpha, step = 1.0, 1e-5
    near = [alpha - step, alpha, alpha + step]
    line = rj.freezing_line(TASK, 2, 20.0, unknown="width", between=(0.2, 8.0), axes={"alpha": [0.5, *near]})
    assert line.found.values.tolist() == [False, True, True, True]
    before, width, after = line.width.values[1:]
    np.testing.assert_allclose(line.d_width_d_alpha[2], (after - before) / (2 * step), rtol=1e-5)
    task = rj.LinearRegression(alpha, 1.0, 0.1)
    found = [rj.solve(task, rj.uniform(2, x * width), 20.0, breaking="auto") for x in (0.99, 1.0, 1.01)]
    assert abs(rj.solve(task, rj.uniform(2, width), 20.0).entropy) < 1e-9
    assert found[0].replicon > 0
    assert [int(s.breaking) for s in (found[0], found[2])] == [0, 1]
    assert found[2].inner_overlap - found[2].outer_overlap > 0.1  # all at once


def test_storage_capacity_is_where_words_run_out():
    """0.8331 random labels for each ±1 weight (Krauth and Mezard 1989)."""
    task = rj.Classification(1.0, loss=rj.losses.Perceptron(), labels="random")
    line = rj.freezing_line(task, beta=1.0, width=1.0, unknown="alpha", between=(0.5, 1.0), axes={"bits": [1]})
    np.testing.assert_allclose(line.alpha, 0.8331, atol=5e-5)


def test_stability_line_in_beta_is_amps_limit():
    line = rj.stability_line(TASK, 2, width=2.0, unknown="beta", between=(1.0, 100.0), axes={"alpha": [1.5]})
    np.testing.assert_allclose(line.beta, 9.4995, rtol=1e-5)  # where AMP stops converging (tests/trials)


@pytest.mark.slow
def test_error_peak():
    """Theory 1.5 (iii): 2 bits of width 1.5 peak near alpha 0.7 at beta 200."""
    noise = np.array([0.1, 0.2])
    peak = rj.error_peak(TASK, 2, 200.0, width=1.5, axes={"noise": noise})
    assert peak.found.all()
    assert abs(float(peak.alpha[0]) - 0.7) < 0.05
    grid = peak.alpha.values[0] + np.array([-1e-3, 0.0, 1e-3])
    eg = rj.phase_diagram(TASK, 2, 200.0, width=1.5, axes={"alpha": grid}).generalization_error.values
    assert eg.argmax() == 1
    step = 1e-5
    near = rj.error_peak(TASK, 2, 200.0, width=1.5, axes={"noise": [0.2 - step, 0.2 + step]}).alpha.values
    np.testing.assert_allclose(peak.d_alpha_d_noise[1], (near[1] - near[0]) / (2 * step), rtol=1e-4)


def test_few_bits_and_a_large_width_are_unstable():
    """Theory 1.5 (i)."""
    width = np.geomspace(0.3, 8.0, 60)
    sweep = rj.phase_diagram(TASK, beta=10.0, axes={"bits": [1, 2], "width": width}, observables=["replicon"])
    stable = sweep.stable.values
    assert stable[:, 0].all()
    assert not stable[:, -1].any()
    assert (np.diff(stable.astype(int), axis=1) <= 0).all()  # once unstable, unstable at every larger width
    critical = stable.sum(1)
    assert (np.diff(critical) > 5).all()


@pytest.mark.slow
def test_power_levels_are_more_stable():
    """Theory 1.5 (iv): at the same width 1 − r falls from 3.33 to 2.88."""
    sweep = rj.phase_diagram(TASK, 2, 10.0, width=3.0, axes={"exponent": np.linspace(1.0, 1.3, 4)})
    np.testing.assert_allclose(1 - sweep.replicon[[0, -1]], [3.33, 2.88], atol=5e-3)
    assert (np.diff(sweep.replicon) > 0).all()


@pytest.mark.slow
def test_fewer_bits_peak_at_smaller_alpha():
    """Theory 1.5 (iii): 8 bits of width 6 peak at alpha 1.0; at one width 2 bits peak below 3, which 4 bits hardly move."""
    peak = rj.error_peak(TASK, 8, width=6.0, between=(0.5, 1.5), axes={"beta": [200.0]})
    np.testing.assert_allclose(peak.alpha, 1.0, atol=0.01)
    two, three, four = rj.error_peak(
        TASK, beta=200.0, width=3.0, between=(0.3, 1.5), axes={"bits": [2, 3, 4]}
    ).alpha.values
    assert two < three - 0.02
    assert abs(three - four) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unknown": "bits"}, "unknown must be a parameter other than bits and the axes"),
        ({"unknown": "alpha"}, "unknown must be a parameter other than bits and the axes"),
        ({"between": (2.0, 1.0)}, "between must be two positive numbers, the smaller first"),
        ({"between": (0.0, 1.0)}, "between must be two positive numbers"),
        ({"beta": np.inf}, "beta must be finite"),
    ],
)
def test_bad_arguments(arguments, message):
    valid = {"bits": 2, "beta": 5.0, "unknown": "width", "between": (0.5, 2.0), "axes": {"alpha": [1.0]}}
    with pytest.raises(ValueError, match=message):
        rj.stability_line(TASK, **(valid | arguments))
