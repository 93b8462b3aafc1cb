"""The theory's limit N -> infinity against every weight vector of small systems.

Truth: plain numpy sums over all K^N <= 2^20 codewords of random instances of theory section 0, averaged over instances.
Conventions as enumerated: H = ½ |y − Xw|² + ½ ridge |w|², free energy −log(sum_w exp(−beta H)) / (beta N) with no
further constant, training error <H>/N, generalisation error |w0 − <w>|²/N of the Gibbs mean.

Claim: in the stable phase (replicon > 0.3) averages at size N are theory + b/N + c/N² + ...  A polynomial in 1/N fitted to
more sizes than it has coefficients must have the theory within 4 standard errors at 1/N = 0, and errors small enough to
tell.  Its degree is 2, and 3 for the slow version's 1 bit, whose errors are small enough to see a cubic term.
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from replicajax import LinearRegression, solve, uniform

FIELDS = ("generalization_error", "training_error", "free_energy", "self_overlap", "overlap")
CHUNK = 2**17
"""Boltzmann weights held at once."""


class Task(NamedTuple):
    alpha: float
    noise: float
    ridge: float
    signal: float
    bits: int
    width: float
    beta: float

    @property
    def levels(self) -> np.ndarray:
        return np.linspace(-self.width, self.width, 2**self.bits)

    def __str__(self) -> str:
        return "alpha{:g}-noise{:g}-ridge{:g}-signal{:g}-bits{}-width{:g}-beta{:g}".format(*self)


TASKS = [
    Task(1.0, 0.2, 0.1, 1.0, 1, 1.0, 3.0),
    Task(1.5, 0.1, 0.0, 1.0, 1, 0.8, 1.0),
    Task(2.0, 0.1, 0.0, 1.0, 2, 1.5, 2.5),
    Task(1.0, 0.3, 0.2, 1.0, 2, 1.5, 3.0),
]
SIZES = {1: {4: 60_000, 8: 40_000, 12: 30_000, 16: 10_000}, 2: {2: 100_000, 4: 60_000, 6: 40_000, 8: 10_000}}
"""Instances of each size, by bits: enough for standard errors below 1%."""
SLOW_TASKS = [*TASKS, Task(2.0, 0.1, 0.0, 1.0, 1, 1.0, 2.0), Task(1.5, 0.2, 0.1, 2.0, 2, 2.0, 1.0)]
SLOW_SIZES = {
    1: {4: 150_000, 6: 150_000, 8: 100_000, 10: 75_000, 12: 50_000, 14: 20_000, 16: 10_000, 20: 200},
    2: {2: 150_000, 4: 150_000, 6: 100_000, 8: 25_000, 10: 200},
}
SLOW_DEGREE = {1: 3, 2: 2}
PARAMETERS = [task if i == 2 else pytest.param(task, marks=pytest.mark.slow) for i, task in enumerate(TASKS)]
"""One in the fast suite."""


class Instances(NamedTuple):
    X: np.ndarray
    teacher: np.ndarray
    y: np.ndarray


def draw(task: Task, N: int, count: int, random: np.random.Generator) -> Instances:
    M = round(task.alpha * N)
    assert task.alpha * N == M
    X = random.normal(size=(count, M, N)) / np.sqrt(N)
    teacher = np.sqrt(task.signal) * random.normal(size=(count, N))
    noise = np.sqrt(task.noise) * random.normal(size=(count, M))
    return Instances(X, teacher, (X @ teacher[..., None])[..., 0] + noise)


def words(levels: np.ndarray, length: int) -> np.ndarray:
    return np.array(list(itertools.product(levels, repeat=length)))


def enumerate_all(task: Task, instances: Instances) -> np.ndarray:
    """(instances, fields).  A word is a pair of half words: H(a, b) = H(a) + H(b) + aᵀGb, one matrix product."""
    X, teacher, y = instances
    N = X.shape[2]
    half = N // 2
    A, B = words(task.levels, half), words(task.levels, N - half)
    G = X.transpose(0, 2, 1) @ X + task.ridge * np.eye(N)
    pull = (y[:, None] @ X)[:, 0]
    G_A, G_B, crossed = G[:, :half, :half], G[:, half:, half:], A @ G[:, :half, half:]
    of_a = ((A @ G_A) * A).sum(2) / 2 - pull[:, :half] @ A.T + (y**2).sum(1)[:, None] / 2
    of_b = ((B @ G_B) * B).sum(2) / 2 - pull[:, half:] @ B.T
    first = np.concatenate([crossed, of_a[..., None], np.ones_like(of_a)[..., None]], 2)
    second = np.stack([np.column_stack([B, np.ones(len(B)), own]) for own in of_b])
    weight = first @ second.transpose(0, 2, 1)
    ground = weight.min((1, 2))
    weight -= ground[:, None, None]
    weight *= -task.beta
    np.exp(weight, out=weight)
    of_words = weight @ np.column_stack([np.ones(len(B)), B])
    partition = of_words[..., 0].sum(1)[:, None]
    p, r = of_words[..., 0] / partition, (np.ones(len(A)) @ weight) / partition
    mean = np.concatenate([p @ A, r @ B], axis=1)
    energy = (p * of_a).sum(1) + (r * of_b).sum(1) + (crossed * of_words[..., 1:]).sum((1, 2)) / partition[:, 0]
    free_energy = ground - np.log(partition[:, 0]) / task.beta
    square = p @ (A**2).sum(1) + r @ (B**2).sum(1)
    error, overlap = ((teacher - mean) ** 2).sum(1), (teacher * mean).sum(1)
    return np.stack([error, energy, free_energy, square, overlap], axis=1) / N


def controls(task: Task, instances: Instances) -> np.ndarray:
    """Quantities of mean exactly 0 that share an instance's fluctuations; regressing on them halves standard errors."""
    X, teacher, y = instances
    N = teacher.shape[1]
    signal, noise = (teacher**2).sum(1) / N, ((y - (X @ teacher[..., None])[..., 0]) ** 2).mean(1)
    trace = (X**2).sum((1, 2)) / N
    return np.stack(
        [signal - task.signal, noise - task.noise, (y**2).mean(1) - task.signal - task.noise, trace - task.alpha],
        axis=1,
    )


@cache
def average(task: Task, N: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of every field at size N."""
    random = np.random.default_rng([N, task.bits])
    batch = max(1, CHUNK // 2 ** (task.bits * N)) if task.bits * N > 6 else CHUNK // 64
    values, shared = [], []
    for start in range(0, count, batch):
        instances = draw(task, N, min(batch, count - start), random)
        values.append(enumerate_all(task, instances))
        shared.append(controls(task, instances))
    value, design = np.concatenate(values), np.column_stack([np.ones(count), np.concatenate(shared)])
    fit = np.linalg.lstsq(design, value, rcond=None)[0]
    return fit[0], (value - design @ fit).std(0, ddof=design.shape[1]) / np.sqrt(count)


def theory(task: Task) -> np.ndarray:
    problem = LinearRegression(task.alpha, task.signal, task.noise, task.ridge)
    solution = solve(problem, uniform(task.bits, task.width), task.beta)
    assert solution.converged
    assert solution.replicon > 0.3
    return np.array([float(getattr(solution, field)) for field in FIELDS])


def extrapolate(sizes: list[int], value: np.ndarray, error: np.ndarray, degree: int) -> tuple[float, float]:
    """Value and standard error at 1/N = 0 of the polynomial in 1/N through the averages."""
    assert len(sizes) > degree + 1
    design = np.vander(1 / np.array(sizes, float), degree + 1, increasing=True) / error[:, None]
    covariance = np.linalg.inv(design.T @ design)
    return float((covariance @ (design.T @ (value / error)))[0]), float(np.sqrt(covariance[0, 0]))


def assert_extrapolates_to_theory(task: Task, sizes: dict[int, int], degree: int, resolution: float = 0.03) -> None:
    expected = theory(task)
    averages = [average(task, N, count) for N, count in sizes.items()]
    values, errors = (np.array(v) for v in zip(*averages, strict=True))
    report, failed = [], False
    for i, field in enumerate(FIELDS):
        if task.bits == 1 and field == "self_overlap":  # the same for every word
            np.testing.assert_allclose([*values[:, i], expected[i]], task.width**2, rtol=1e-9)
            continue
        limit, error = extrapolate(list(sizes), values[:, i], errors[:, i], degree)
        z = (limit - expected[i]) / error
        # A free energy may pass through 0; its unit is that of the entropy it contains.
        unit = task.bits * np.log(2) / task.beta if field == "free_energy" else abs(expected[i])
        failed |= not (abs(z) < 4 and error < resolution * unit)
        report.append(f"{field}: theory {expected[i]:.5f}, enumeration {limit:.5f} ± {error:.5f}, z {z:+.2f}")
    assert not failed, f"{task}, standard errors to be below {resolution} of the value\n" + "\n".join(report)


@pytest.mark.parametrize("task", PARAMETERS, ids=str)
def test_enumeration_extrapolates_to_theory(task):
    assert_extrapolates_to_theory(task, SIZES[task.bits], degree=2)


@pytest.mark.parametrize("task", PARAMETERS, ids=str)
def test_the_largest_system_is_closer_to_theory_than_the_smallest(task):
    expected = theory(task)
    small, large = (
        (average(task, N, SIZES[task.bits][N])[0] - expected) for N in (min(SIZES[task.bits]), max(SIZES[task.bits]))
    )
    closer = abs(large) < abs(small)
    if task.bits == 1:
        closer[FIELDS.index("self_overlap")] = True  # exact at every size
    assert closer.all(), dict(zip(FIELDS, zip(small, large, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("task", SLOW_TASKS, ids=str)
def test_larger_systems_extrapolate_to_theory(task):
    assert_extrapolates_to_theory(task, SLOW_SIZES[task.bits], degree=SLOW_DEGREE[task.bits])


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_half_words_enumerate_what_a_plain_loop_does(task):
    instances = draw(task, 4, 2, np.random.default_rng(0))
    for (X, teacher, y), got in zip(zip(*instances, strict=True), enumerate_all(task, instances), strict=True):
        partition, mean, energy, square = 0.0, np.zeros(4), 0.0, 0.0
        for word in itertools.product(task.levels, repeat=4):
            w = np.array(word)
            H = ((y - X @ w) ** 2).sum() / 2 + task.ridge * (w**2).sum() / 2
            weight = np.exp(-task.beta * H)
            partition += weight
            mean, energy, square = mean + weight * w, energy + weight * H, square + weight * (w**2).sum()
        mean /= partition
        expected = [
            ((teacher - mean) ** 2).sum(),
            energy / partition,
            -np.log(partition) / task.beta,
            square / partition,
            teacher @ mean,
        ]
        np.testing.assert_allclose(got, np.array(expected) / 4, rtol=1e-10)
