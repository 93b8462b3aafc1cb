"""The choice of formats against all choices, and against what rounding the relaxed problem gives."""

import itertools

import numpy as np
import pytest

import replicajax as rj

f = rj.formats


def _instance(rng: np.random.Generator, tensors: int, formats: int):
    counts = rng.integers(10, 10_000, tensors).astype(float) ** rng.uniform(1, 1.5)
    bits = np.sort(
        rng.choice([1.69, 2.06, 3.0, 4.25, 4.5, 5.0, 5.5, 6.0, 6.25, 8.25, 8.5, 16.0], formats, replace=False)
    )
    scores = 10.0 ** rng.uniform(-4, 4, (tensors, 1)) * 4.0**-bits * np.exp(rng.normal(size=(tensors, formats)) / 2)
    return counts, bits, scores * counts[:, None]


def _least(counts, bits, scores, mean, allowed=lambda choice: True):
    rows = np.arange(counts.size)
    every = map(list, itertools.product(range(bits.size), repeat=counts.size))
    return min(
        (scores[rows, j].sum() for j in every if counts @ bits[j] <= mean * counts.sum() * (1 + 1e-12) and allowed(j)),
        default=np.inf,
    )


def test_no_choice_is_better():
    rng = np.random.default_rng(0)
    for _ in range(60):
        counts, bits, scores = _instance(rng, *rng.integers([1, 2], [7, 6]))
        mean = rng.uniform(bits[0], bits[-1])
        found = f.choose_formats(counts, bits, scores, mean)
        assert found.gap == 0
        assert found.mean_bits <= mean * (1 + 1e-12)
        assert found.score == pytest.approx(_least(counts, bits, scores, mean), rel=1e-12)


def test_groups_and_pins():
    rng = np.random.default_rng(1)
    for _ in range(20):
        counts, bits, scores = _instance(rng, 5, 4)
        mean = rng.uniform(bits[1], bits[-1])
        found = f.choose_formats(counts, bits, scores, mean, groups=[0, 7, 7, 2, 0], pinned={3: 0})

        def allowed(j):
            return j[1] == j[2] and j[0] == j[4] and j[3] == 0

        assert allowed(found.choice)
        assert found.score == pytest.approx(_least(counts, bits, scores, mean, allowed), rel=1e-12)


def test_formats_that_are_not_to_be_had():
    scores = np.array([[np.inf, 1.0], [3.0, np.inf]])
    assert f.choose_formats([1.0, 1.0], [4.0, 8.0], scores, 6.0).choice.tolist() == [1, 0]
    with pytest.raises(ValueError, match="mean_bits must be at least 6, the least possible, got 5"):
        f.choose_formats([1.0, 1.0], [4.0, 8.0], scores, 5.0)
    with pytest.raises(ValueError, match="got none for tensor 1"):
        f.choose_formats([1.0, 1.0], [4.0, 8.0], np.array([[1.0, 1.0], [np.inf, np.inf]]), 5.0)


def test_three_hundred_tensors_are_proven():
    for seed in range(3):
        counts, bits, scores = _instance(np.random.default_rng(seed), 300, 12)
        found = f.choose_formats(counts, bits, scores, 4.25 + seed)
        mean, score = f.pareto(counts, bits, scores)
        assert found.gap == 0
        assert found.mean_bits <= 4.25 + seed
        assert np.interp(4.25 + seed, mean, score) <= found.score < 1.001 * np.interp(4.25 + seed, mean, score)


def test_corners_of_the_curve_are_choices():
    counts, bits, scores = _instance(np.random.default_rng(5), 6, 5)
    for mean, score in zip(*f.pareto(counts, bits, scores), strict=True):
        assert f.choose_formats(counts, bits, scores, mean).score == pytest.approx(score, rel=1e-9)


def test_whole_bits_where_an_integer_program_stopped_short():
    assert f.allocate_bits([100, 100], [1.0, 0.5], None, 14.0, 1.0, 16.0, whole=True).tolist() == [14, 14]


def test_bits_saved_against_rounding_what_is_relaxed():
    """Real bits by theory 4.3, each tensor then the nearest format of the menu: the proven choice needs fewer for the same."""
    rng, saved = np.random.default_rng(6), []
    menu = [
        f.standard(name)
        for name in ("INT2_G64_ZERO", "INT3_G64", "NF4", "Q4_0", "Q5_0", "MXFP6_E2M3", "INT8_G128", "BF16")
    ]
    bits = np.array([each.bits for each in menu])
    rel = np.array([float(f.relative_rms_error(f.Normal(), each)) for each in menu])
    for _ in range(50):
        counts = rng.choice([0.25, 1.0, 4.0], 40) * 2.0**20
        rms, fisher = 10 ** rng.normal(0, 0.3, 40), 10 ** rng.normal(0, 1.0, 40)
        scores = (counts * fisher * rms**2)[:, None] * rel**2
        real = np.asarray(f.allocate_bits(counts, rms, fisher, rng.uniform(3.5, 6.0), bits[0], bits[-1]))
        rounded = np.abs(real[:, None] - bits).argmin(1)
        mean, score = counts @ bits[rounded] / counts.sum(), scores[np.arange(40), rounded].sum()
        assert f.choose_formats(counts, bits, scores, mean).score <= score
        corners, least = f.pareto(counts, bits, scores)
        saved.append(mean - np.interp(-score, -least, corners))
    print(
        f"{np.mean(saved):.3f} bits on average, {min(saved):.3f} to {max(saved):.3f}, {np.sum(np.array(saved) > 0.005)} of 50"
    )
    assert np.sum(np.array(saved) > 0.005) >= 45


def test_budgets_to_the_last_bit():
    """In float64, whatever JAX is set to."""
    assert f.choose_formats([16777217.0, 1.0], [4.0, 8.0], [[1, 0], [1, 0]], 5.0).mean_bits == 4 + 4 / 16777218
    rng = np.random.default_rng(7)
    for _ in range(50):
        counts = np.round(10 ** rng.uniform(6, 9, 4))
        bits = np.array([4.25, 4.5, 8.5]) + 48 / counts[:, None]
        scores = rng.exponential(size=(4, 3))
        rows = np.arange(4)
        mean = counts @ bits[rows, rng.integers(0, 3, 4)] / counts.sum() * (1 - 3e-9)
        found = _message(lambda c=counts, b=bits, s=scores, m=mean: f.choose_formats(c, b, s, m))
        if found is not None:
            assert counts @ bits[rows, found.choice] <= mean * counts.sum()


def _message(call):
    try:
        return call()
    except ValueError:
        return None
