"""`soft_rounding` against quadrature that shares no code with it.

Truth: Gauss-Legendre at 32 digits in the field h, in Arb's balls, cut at every threshold and geometrically around it
(K <= 16); the same idea in float64 numpy for K = 64 and 256 and for derivatives, itself checked against those here.

Claim: every field has a relative error <= 1e-9.  Fields that vanish by symmetry or by cancellation have no relative
error, so 1e-14 of their natural size is added: A = max |level| for `mean`, A² for `square`, A/deviation and its square
for the responses, (|mean| + deviation) A + curvature A²/2 for `potential`, 1 for `entropy` and `usage`.
"""

from bisect import bisect
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flint import arb, ctx

from replicajax.numerics import soft_rounding

RELATIVE, ABSOLUTE = 1e-9, 1e-14
DIGITS = 32
AVERAGE = jax.jit(soft_rounding)
JACOBIAN = jax.jit(jax.jacfwd(soft_rounding, argnums=(0, 1, 2, 3, 4)))


class Averages(NamedTuple):
    """The fields of `SoftRounding`, as computed here."""

    potential: Any
    mean: Any
    square: Any
    response: Any
    response_square: Any
    entropy: Any
    usage: Any


FIELDS = Averages._fields


class Case(NamedTuple):
    book: str
    size: int
    curvature: float
    beta: float
    mean: float
    deviation: float

    def arguments(self, dtype: Any = np.float64) -> tuple[np.ndarray, ...]:
        """Arrays, so that one compilation serves every case of a size."""
        return tuple(np.asarray(v, dtype) for v in (codebook(self.book, self.size), *self[2:]))

    def __str__(self) -> str:
        return "{}{}-c{:g}-beta{:g}-mean{:g}-dev{:g}".format(*self)


def codebook(book: str, size: int) -> np.ndarray:
    even = np.linspace(-1, 1, size)
    random = np.random.default_rng(size)
    match book:
        case "uniform":
            return 1.5 * even
        case "narrow":
            return 0.1 * even
        case "power":
            return 2 * np.sign(even) * abs(even) ** 1.6
        case "gaps":  # gaps that differ by a factor of about 10
            steps = np.cumsum(random.lognormal(0, 0.8, size))
            return 2 * (steps - steps.mean()) / np.ptp(steps)
        case "clustered":  # groups of levels a thousandth apart, which respond at a thousand times the temperature
            groups = max(2, size // 4)
            return np.sort(np.linspace(-1, 1, groups)[np.arange(size) % groups] + 1e-3 * random.uniform(-1, 1, size))
    raise ValueError(book)


CASES = [
    Case("uniform", 2, 1.0, 1e-2, 0.0, 1.0),
    Case("uniform", 2, 1.0, 3.0, 0.4, 1.2),
    Case("power", 2, 0.05, 2e2, -0.3, 0.5),
    Case("gaps", 2, 30.0, 1e6, 2.0, 7.0),
    Case("narrow", 2, 1.0, 1e1, 0.02, 0.05),
    Case("uniform", 2, 1.0, 1e-2, 1.0, 0.05),  # all of the field on one side of the threshold, at high temperature
    Case("uniform", 3, 1.3, 1e-1, 0.0, 1.1),
    Case("power", 3, 10.0, 1e3, -4.0, 5.0),
    Case("gaps", 3, 1e-2, 1e5, 1e-3, 1e-2),
    Case("clustered", 3, 1.0, 1e3, 0.1, 0.7),
    Case("uniform", 4, 1.16, 5.0, 0.0, 1.2),
    Case("uniform", 4, 0.01, 5.0, 0.0, 0.5),
    Case("uniform", 4, 20.0, 0.3, 3.0, 2.0),
    Case("power", 4, 1.5, 1e2, 0.0, 1.0),
    Case("power", 4, 1.5, 1e6, 0.7, 30.0),
    Case("gaps", 4, 3.0, 1e4, 0.0, 0.3),
    Case("gaps", 4, 3.0, 1e-2, -5.0, 10.0),
    Case("narrow", 4, 1e2, 1e2, 0.0, 6.0),
    Case("clustered", 4, 2.0, 30.0, 0.0, 1.0),
    Case("clustered", 4, 0.5, 1e6, 0.2, 0.5),
    Case("uniform", 8, 0.7, 1e-2, 0.5, 2.0),
    Case("uniform", 8, 0.7, 12.0, 0.0, 1.0),
    Case("uniform", 8, 0.7, 1e6, 0.0, 1.0),
    Case("power", 8, 5.0, 2e2, 4.0, 0.4),
    Case("gaps", 8, 0.2, 1e3, 0.0, 0.1),
    Case("gaps", 8, 40.0, 1.0, -30.0, 60.0),
    Case("clustered", 8, 0.5, 3e5, 0.0, 0.015),  # temperatures of the two kinds of threshold differ by a thousand
    Case("clustered", 8, 5.0, 5e3, 1.0, 6.0),
    Case("uniform", 16, 1.0, 0.1, 0.0, 1.0),
    Case("uniform", 16, 1.0, 1e2, -1.0, 1.0),
    Case("power", 16, 0.3, 1e5, 0.1, 0.4),
    Case("gaps", 16, 2.0, 20.0, 0.0, 3.0),
    Case("clustered", 16, 1.0, 1e2, 0.3, 1.0),
]
LARGE = [
    Case(book, size, *rest)
    for size in (64, 256)
    for book, *rest in (
        ("uniform", 1.0, 0.05, 0.3, 2.0),
        ("uniform", 1.0, 20.0, 0.0, 1.0),
        ("uniform", 1.0, 1e6, 0.0, 0.2),
        ("power", 8.0, 2e2, -3.0, 10.0),
        ("gaps", 0.1, 1e3, 0.0, 0.1),
        ("clustered", 2.0, 1e4, 0.5, 2.0),
    )
]


def natural_size(levels, curvature, beta, mean, deviation) -> Averages:
    A = float(abs(levels).max())
    potential = (abs(mean) + deviation) * A + curvature * A**2 / 2
    return Averages(potential, A, A**2, A / deviation, (A / deviation) ** 2, 1.0, 1.0)


def misses(got: tuple, truth: Averages, case: tuple, relative=RELATIVE, absolute=ABSOLUTE) -> dict[str, str]:
    """Fields out of tolerance, with their error in units of it."""
    units = natural_size(*case)
    ratios = {
        name: float(np.max(abs(np.asarray(g, float) - t) / (relative * abs(np.asarray(t)) + absolute * unit)))
        for name, g, t, unit in zip(FIELDS, got, truth, units, strict=True)
    }
    return {name: f"{ratio:.3g} times the tolerance" for name, ratio in ratios.items() if not ratio <= 1}


def panels(anchors: list, step: Any, low: Any, high: Any, finest: Any, coarse: Any) -> list:
    """Edges in [low, high]: the anchors, distances finest 3^j from each up to half way to the next, and every `coarse`.

    The zeros of the partition sum lie above the anchors at heights pi/(beta difference of levels), all above `finest`,
    so that Gauss-Legendre on [d, 3d] gains a factor of at least 3² per node.
    """
    edges = {low, high} | {low + i * coarse for i in range(1, int((high - low) / coarse) + 1)}
    ends = [low, *anchors, high]
    for before, anchor, after in zip(ends, anchors, ends[2:], strict=False):
        edges.add(anchor)
        for sign, room in ((-1, (anchor - before) / step), (1, (after - anchor) / step)):
            distance = finest
            while distance < room:
                edges.add(anchor + sign * distance)
                distance = 3 * distance
    return sorted(e for e in edges if low <= e <= high)


@cache
def gauss_legendre(nodes: int) -> list:
    """Nodes on [−1, 1] and weights."""
    with ctx.workdps(DIGITS):
        return [arb.legendre_p_root(nodes, k, weight=True) for k in range(nodes)]


def integrals(integrands: Callable, edges: list, mean: arb, deviation: arb, nodes: int) -> list:
    """Over a Gaussian field h, of all that `integrands` returns at once."""
    total = None
    for start, end in pairwise(edges):
        middle, half = (arb(start) + arb(end)) / 2, (arb(end) - arb(start)) / 2
        for x, weight in gauss_legendre(nodes):
            h = middle + half * x
            measure = half * weight * (-(((h - mean) / deviation) ** 2) / 2).exp()
            values = [measure * v for v in integrands(h)]
            total = values if total is None else [t + v for t, v in zip(total, values, strict=True)]
    assert total is not None
    return [t / (deviation * (2 * arb.pi()).sqrt()) for t in total]


@cache
def exact(case: Case, nodes: int = 24) -> Averages:
    """32 digits: weights as exponentials of differences to the heaviest level, integrated over h in all fields at once."""
    levels, *numbers = case.arguments()
    with ctx.workdps(DIGITS):
        a, (c, b, mu, s) = [arb(float(v)) for v in levels], (arb(float(v)) for v in numbers)
        curvature, beta, mean, deviation = (float(v) for v in numbers)
        low, high = mean - 12 * deviation, mean + 12 * deviation
        thresholds = [float(t) for t in curvature * (levels[1:] + levels[:-1]) / 2]
        inside = [t for t in thresholds if low < t < high]
        edges = panels(inside, 2, low, high, float(1 / (beta * (levels[-1] - levels[0]))), deviation)

        def integrands(h: arb) -> list:
            winner = bisect(thresholds, float(h))
            top = a[winner]
            energy = [b * (top - v) * (h - c * (top + v) / 2) for v in a]
            weight = [(-e).exp() if float(e) < 90 else arb(0) for e in energy]  # exp(−90) = 1e-39
            others = sum((w for k, w in enumerate(weight) if k != winner), arb(0))
            p = [w / (1 + others) for w in weight]
            shift = sum((q * (v - top) for q, v in zip(p, a, strict=True)), arb(0))
            variance = sum((q * (v - top - shift) ** 2 for q, v in zip(p, a, strict=True)), arb(0))
            log_sum = others.log1p()
            potential = top * (h - c * top / 2) + log_sum / b
            entropy = log_sum + sum((q * e for q, e in zip(p, energy, strict=True)), arb(0))
            return [potential, top + shift, (top + shift) ** 2, variance, variance**2, entropy, *p]

        potential, first, second, variance, squared, entropy, *usage = integrals(integrands, edges, mu, s, nodes)
        scalars = [float(v) for v in (potential, first, second, b * variance, b**2 * squared, entropy)]
        return Averages(*scalars, usage=np.array([float(p) for p in usage]))


def float64_quadrature(levels, curvature, beta, mean, deviation) -> Averages:
    """Panels of 24 nodes over mean ± 9.5 deviations; distances are from the nearest threshold, so nothing cancels."""
    unit, unit_weight = np.polynomial.legendre.leggauss(24)
    thresholds = curvature * (levels[1:] + levels[:-1]) / 2
    finest = 1 / (beta * (levels[-1] - levels[0]))
    total: list = [0.0] * len(FIELDS)
    for k, threshold in enumerate(thresholds):
        for side, winner in ((-1, k), (1, k + 1)):
            center = side * (mean - threshold)
            cell_end = abs(thresholds[k + side] - threshold) / 2 if 0 <= k + side < len(thresholds) else np.inf
            low, high = max(0.0, center - 9.5 * deviation), min(cell_end, center + 9.5 * deviation)
            if low >= high:
                continue
            edges = np.array([low, *(e for e in panels([0.0], 1, -high, high, finest, deviation / 2) if e > low)])
            half = np.diff(edges)[:, None] / 2
            x = (edges[:-1, None] + half * (1 + unit)).ravel()
            measure = (half * unit_weight).ravel() * np.exp(-(((x - center) / deviation) ** 2) / 2)
            measure = measure / (deviation * np.sqrt(2 * np.pi))
            top = levels[winner]
            rise = levels - top
            meeting = (
                curvature * ((levels[k] - top) + (levels[k + 1] - levels)) / 2
            )  # threshold k from that of j, winner
            energy = -beta * rise * (meeting + side * x[:, None])
            weight = np.exp(-energy)
            weight[:, winner] = 0
            others = weight.sum(1)
            weight[:, winner] = 1
            p = weight / (1 + others)[:, None]
            shift = p @ rise
            response = beta * (p * (rise - shift[:, None]) ** 2).sum(1)
            log_sum = np.log1p(others)
            potential = top * (threshold + side * x - curvature * top / 2) + log_sum / beta
            entropy = log_sum + (p * energy).sum(1)
            values = potential, top + shift, (top + shift) ** 2, response, response**2, entropy, p
            total = [t + measure @ v for t, v in zip(total, values, strict=True)]
    return Averages(*total)


def exact_staircase(levels: list[arb], curvature: arb, mean: arb, deviation: arb) -> list:
    """beta = inf by integrating h -> the level nearest to h/curvature; the response by Stein's lemma."""
    ends = [curvature * (left + right) / 2 for left, right in pairwise(levels)]
    ends = [mean - 14 * deviation, *ends, mean + 14 * deviation]
    total = [arb(0)] * 4
    usage = []
    for a, low, high in zip(levels, ends, ends[1:], strict=False):
        low, high = (low if low > ends[0] else ends[0]), (high if high < ends[-1] else ends[-1])
        if low >= high:
            usage.append(arb(0))
            continue
        cuts = [mean + i * deviation for i in range(-13, 14)]
        edges = [low, *(cut for cut in cuts if low < cut < high), high]
        zeroth, first = integrals(lambda h: [arb(1), h - mean], edges, mean, deviation, 24)
        usage.append(zeroth)
        potential = a * (first + mean * zeroth) - curvature * a**2 / 2 * zeroth
        values = potential, a * zeroth, a**2 * zeroth, a * first / deviation**2
        total = [t + v for t, v in zip(total, values, strict=True)]
    return [*total, usage]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_32_digits(case):
    got = AVERAGE(*case.arguments())
    assert not misses(got, exact(case), case.arguments())


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_codebooks_agree_with_float64_quadrature(case):
    arguments = case.arguments()
    assert not misses(AVERAGE(*arguments), float64_quadrature(*arguments), arguments)


@pytest.mark.parametrize("case", [CASES[1], CASES[11], CASES[22], CASES[26], CASES[30]], ids=str)
def test_the_float64_reference_agrees_with_32_digits(case):
    arguments = case.arguments()
    assert not misses(float64_quadrature(*arguments), exact(case), arguments, relative=1e-11)
    assert not misses(exact(case, nodes=12), exact(case), arguments, relative=1e-10)  # half the nodes would do


@pytest.mark.parametrize(
    "case",
    [
        Case("uniform", 4, 1.16, np.inf, 0.0, 1.2),
        Case("power", 4, 0.02, np.inf, 0.3, 0.1),
        Case("gaps", 8, 30.0, np.inf, -8.0, 20.0),
        Case("clustered", 8, 1.0, np.inf, 0.2, 0.05),
    ],
    ids=str,
)
def test_zero_temperature_agrees_with_32_digits(case):
    levels, curvature, beta, mean, deviation = case.arguments()
    with ctx.workdps(DIGITS):
        truth = exact_staircase([arb(float(a)) for a in levels], *(arb(float(v)) for v in case[2:3] + case[4:]))
        potential, first, second, response = (float(v) for v in truth[:4])
        usage = np.array([float(v) for v in truth[4]])
    got = AVERAGE(levels, curvature, beta, mean, deviation)
    assert got.response_square == np.inf
    assert got.entropy == 0
    wanted = Averages(potential, first, second, response, 0.0, 0.0, usage)
    assert not misses(got._replace(response_square=0.0), wanted, case.arguments())


@pytest.mark.parametrize(
    "case",
    [
        Case("gaps", 4, 1.3, 0.3, 0.2, 0.9),
        Case("uniform", 4, 1.16, 5.0, 0.0, 1.2),
        Case("power", 4, 0.4, 300.0, -0.3, 0.8),
        Case("gaps", 4, 8.0, 2e4, 2.0, 5.0),
    ],
    ids=str,
)
def test_derivatives_agree_with_central_differences_of_the_reference(case):
    arguments = case.arguments()
    jacobian = JACOBIAN(*arguments)
    units = natural_size(*arguments)
    steps = 1e-3 * np.diff(arguments[0]).min(), *(1e-3 * v for v in arguments[1:3]), *[1e-3 * arguments[4]] * 2
    for argument, (value, step) in enumerate(zip(arguments, steps, strict=True)):
        for index in np.ndindex(value.shape):

            def moved(multiple, argument=argument, index=index, step=step):
                new = [v.copy() for v in arguments]
                new[argument][index] += multiple * step
                return float64_quadrature(*new)

            one, two = ([moved(sign * n) for sign in (1, -1)] for n in (1, 2))
            for field, name in enumerate(FIELDS):
                # Five points: the error is O(1e-12) of the derivative, and rounding 1e-13 of the field per 1e-3 step.
                slope = (8 * (one[0][field] - one[1][field]) - (two[0][field] - two[1][field])) / 12
                got = np.asarray(jacobian[field][argument])[(..., *index)] * step
                tolerance = 1e-6 * abs(slope).max() + 1e-13 * max(units[field], abs(one[0][field]).max())
                assert abs(got - slope).max() <= tolerance, (name, argument, index, got, slope)


def test_derivatives_at_zero_temperature_agree_with_central_differences():
    case = Case("gaps", 4, 1.3, np.inf, 0.2, 0.9)
    jacobian = JACOBIAN(*case.arguments())
    with ctx.workdps(DIGITS):
        start = [arb(float(v)) for v in (*codebook("gaps", 4), 1.3, 0.2, 0.9)]
        step = arb("1e-8")
        for i in range(7):
            up, down = ([v + sign * step * (i == j) for j, v in enumerate(start)] for sign in (1, -1))
            high, low = exact_staircase(up[:4], *up[4:]), exact_staircase(down[:4], *down[4:])
            argument, index = (0, (i,)) if i < 4 else ({4: 1, 5: 3, 6: 4}[i], ())
            for field, h, l in zip((0, 1, 2, 3, 6), high, low, strict=True):
                pairs = zip(h, l, strict=True) if field == 6 else [(h, l)]
                slope = np.array([float((u - v) / (2 * step)) for u, v in pairs])
                got = np.atleast_1d(np.asarray(jacobian[field][argument])[(..., *index)])
                np.testing.assert_allclose(got, slope, rtol=1e-6, atol=1e-9, err_msg=f"{FIELDS[field]} {argument} {i}")
    for argument in (0, 1, 3, 4):
        assert not np.any(jacobian.entropy[argument])


@pytest.fixture
def float32_by_default():
    """JAX as users find it: the suite's float64 switched off."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("beta", [0.3, 5.0, 300.0, 1e4])
def test_float32_accuracy(beta, float32_by_default):
    case = Case("uniform", 4, 1.16, beta, 0.1, 1.2)
    got = AVERAGE(*case.arguments(np.float32))
    assert {value.dtype for value in got} == {np.dtype(np.float32)}
    assert not misses(got, float64_quadrature(*case.arguments()), case.arguments(), relative=1e-5)


@pytest.mark.parametrize("beta", [5.0, np.inf])
def test_float32_in_float32_out_where_float64_is_enabled(beta):
    got = AVERAGE(*Case("uniform", 4, 1.16, beta, 0.1, 1.2).arguments(np.float32))
    assert {value.dtype for value in got} == {np.dtype(np.float32)}


@pytest.mark.parametrize("case", [*CASES, *LARGE, Case("gaps", 8, 1.0, np.inf, 0.5, 1.0)], ids=str)
def test_usage_is_a_distribution(case):
    usage = np.asarray(AVERAGE(*case.arguments()).usage)
    assert abs(usage.sum() - 1) < 1e-12
    assert (usage > -1e-12).all()


@pytest.mark.parametrize("case", [*CASES, *LARGE, Case("gaps", 8, 1.0, np.inf, 0.5, 1.0)], ids=str)
def test_mirror_image(case):
    levels, curvature, beta, mean, deviation = case.arguments()
    got = AVERAGE(levels, curvature, beta, mean, deviation)
    mirror = AVERAGE(-levels[::-1].copy(), curvature, beta, -mean, deviation)
    mirror = mirror._replace(mean=-mirror.mean, usage=mirror.usage[::-1])
    units = natural_size(*case.arguments())
    for name, one, other, unit in zip(FIELDS, got, mirror, units, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13 * unit, err_msg=name)
