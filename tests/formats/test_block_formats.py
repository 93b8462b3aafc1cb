"""Errors of the formats that are in use, against quadrature over the block's largest by scipy, which shares no code."""

import itertools

import numpy as np
import pytest
from scipy import special

import replicajax as rj

f = rj.formats


def normal(x):
    """Moments of orders 0, 1, 2 between 0 and x >= 0, and the density; of unit RMS, as are the others."""
    p = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    half = special.erf(x / np.sqrt(2)) / 2
    return half, 1 / np.sqrt(2 * np.pi) - p, half - x * p, p


def laplace(x):
    t, s = np.sqrt(2) * x, np.sqrt(0.5)
    e = np.exp(-t)
    return -np.expm1(-t) / 2, s * (1 - (1 + t) * e) / 2, s**2 * (2 - (2 + 2 * t + t**2) * e) / 2, e / 2 / s


def student_t(x, v=5.0):
    s = np.sqrt((v - 2) / v)
    t = x / s
    p0 = np.exp(special.gammaln((v + 1) / 2) - special.gammaln(v / 2)) / np.sqrt(np.pi * v)
    p = p0 * (1 + t**2 / v) ** (-(v + 1) / 2)
    half = special.stdtr(v, t) - 0.5
    rise = (1 + t**2 / v) * p
    return half, s * v / (v - 1) * (p0 - rise), s**2 * v / (v - 2) * (half - t * rise), p / s


def generalized(x, q=0.7):
    s = np.exp((special.gammaln(1 / q) - special.gammaln(3 / q)) / 2)
    t = x / s
    moments = [
        s**k * special.gamma((k + 1) / q) / special.gamma(1 / q) * special.gammainc((k + 1) / q, t**q) / 2
        for k in range(3)
    ]
    return *moments, q / (2 * s * special.gamma(1 / q)) * np.exp(-(t**q))


LAWS = {
    "normal": (f.Normal(), normal),
    "laplace": (f.Laplace(), laplace),
    "student-t 5": (f.StudentT(5.0), student_t),
    "generalized 0.7": (f.GeneralizedNormal(0.7), generalized),
}
MANTISSA = {"fp16": 10, "bf16": 7, "e4m3": 3, "fp32": 23}
int8 = rj.codebook(np.arange(-127, 128.0))
FORMATS = {
    "Q4_0": f.BlockFormat(f.integer(4), 32, "signmax", "fp16"),
    "Q8_0": f.BlockFormat(int8, 32, "absmax", "fp16"),
    "MXFP4": f.BlockFormat(f.floating_point(2, 1), 32, "absmax", "e8m0"),
    "NVFP4": f.BlockFormat(f.floating_point(2, 1), 16, "absmax", "e4m3"),
    "MXFP8": f.BlockFormat(f.floating_point(4, 3), 32, "absmax", "e8m0"),
    "NF4, fp32": f.BlockFormat(f.nf4(), 64, "absmax", "fp32"),
    "NF4, bf16": f.BlockFormat(f.nf4(), 64, "absmax", "bf16"),
    "INT4 g64, bf16": f.BlockFormat(f.integer(4), 64, "absmax", "bf16"),
    "INT4 g128, fp16": f.BlockFormat(f.integer(4), 128, "absmax", "fp16"),
    "INT8, bf16": f.BlockFormat(f.integer(8), 64, "absmax", "bf16"),
}


def scale_cells(fmt):
    """Of an octave of scales: from, to, stored."""
    if fmt.scale_format == "e8m0":
        return np.array([[1.0, 2.0, 2.0]])
    steps = 2 ** MANTISSA[fmt.scale_format]
    if steps > 2**20:  # exact, in effect
        return None
    stored = 1 + np.arange(steps + 1) / steps
    edges = np.concatenate([[1.0], (stored[1:] + stored[:-1]) / 2, [2.0]])
    return np.stack([edges[:-1], edges[1:], stored], 1)


def reference(moments, fmt):
    """Rel: E over Mx = M of (B − 1)/B E[err²| |x| < M] + err²(M)/B, by Gauss-Legendre rules between all kinks."""
    levels, B = np.asarray(fmt.codebook.levels), int(fmt.block_size)
    signed = fmt.scaling == "signmax"
    end = max(levels, key=abs) if signed else min(-levels[0], levels[-1])
    levels = np.sort(levels / end)
    middle = (levels[1:] + levels[:-1]) / 2
    cells, exact = scale_cells(fmt), fmt.scale_format == "fp32"
    fine = exact or len(cells) > 100
    node, weight = np.polynomial.legendre.leggauss(4 if fine and not exact else 24)

    def inside(x):
        """Moments between 0 and x of either sign."""
        zeroth, first, second, _ = moments(np.abs(x))
        return np.sign(x) * zeroth, first, np.sign(x) * second

    def at(M, s):
        """d/dM of the error, at M with scales s, both vectors."""
        edges = np.concatenate([-M[:, None], np.clip(middle * s[:, None], -M[:, None], M[:, None]), M[:, None]], 1)
        m0, m1, m2 = (np.diff(m, axis=1) for m in inside(edges))
        level = levels * s[:, None]
        others = (m2 - 2 * level * m1 + level**2 * m0).sum(1)

        def missed(x):
            return (x - levels[np.searchsorted(middle, x / s)] * s) ** 2

        largest = missed(M) if signed else (missed(M) + missed(-M)) / 2
        half, _, _, p = moments(M)
        F = 2 * half
        return 2 * p * ((B - 1) * F ** (B - 2) * others + F ** (B - 1) * largest)

    total = 0.0
    for octave in range(-9, 16):
        low = abs(end) * 2.0 ** (octave - np.floor(np.log2(abs(end))))
        ends = 2 * moments(np.array([low, 2 * low]))[0]
        if ends[1] ** B < 1e-15 or B * (1 - ends[0]) * low**2 < 1e-11:
            continue
        if exact:
            pieces = [(low * 2 ** (k / 8), low * 2 ** ((k + 1) / 8), None) for k in range(8)]
        else:
            pieces = []
            for a, b, stored in low * cells:
                kinks = np.abs(middle) * stored
                cuts = np.unique(np.concatenate([[a, b], kinks[(kinks > a) & (kinks < b)]]))
                parts = 1 if fine else 2
                cuts = np.concatenate([*(np.linspace(u, v, parts, False) for u, v in itertools.pairwise(cuts)), [b]])
                pieces += [(u, v, stored) for u, v in itertools.pairwise(cuts)]
        for start in range(0, len(pieces), 256):
            u, v, stored = (np.array(each, float)[:, None] for each in zip(*pieces[start : start + 256], strict=True))
            M = (u + v) / 2 + (v - u) / 2 * node
            s = M if exact else np.broadcast_to(stored, M.shape)
            total += ((v - u) / 2 * weight * at(M.ravel(), s.ravel()).reshape(M.shape)).sum()
    return np.sqrt(total)


FAST = [("NVFP4", "laplace"), ("INT4 g64, bf16", "generalized 0.7"), ("Q4_0", "student-t 5"), ("MXFP8", "normal")]


@pytest.mark.parametrize(
    ("name", "law"),
    [
        pytest.param(n, law, marks=[] if (n, law) in FAST else pytest.mark.slow)
        for n, law in itertools.product(FORMATS, LAWS)
    ],
)
def test_formats_in_use(name, law):
    distribution, moments = LAWS[law]
    want = reference(moments, FORMATS[name])
    np.testing.assert_allclose(f.relative_rms_error(distribution, FORMATS[name]), want, rtol=1e-7)
