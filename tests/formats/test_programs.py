"""What compiles: another law, size or parameter is data of the programs that there are."""

import contextlib

import jax
import jax.monitoring
import numpy as np
import pytest

import replicajax as rj
from replicajax import scaling
from replicajax.distributions import fit
from replicajax.search import TrainingCost, allocate_budget

f = rj.formats
REL = f.relative_rms_error
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compiled.append(name) if "backend_compile_duration" in name else None
)


@pytest.fixture(autouse=True, scope="module")
def _from_nothing():
    """Whatever ran in this process before."""
    jax.clear_caches()


@contextlib.contextmanager
def programs(most):
    before = len(compiled)
    yield
    assert len(compiled) - before <= most


def test_one_program_for_all_laws_and_sizes():
    """A handful for the first of each kind of format, and none after it."""
    for scale, scaling_ in ((None, "absmax"), ("bf16", "absmax"), ("e8m0", "absmax"), ("fp16", "signmax")):
        with programs(4):
            REL(f.Normal(1.7), f.BlockFormat(f.nf4(), 64, scaling_, scale))  # a law not seen before
        with programs(0):
            REL(f.StudentT(5.0, 0.3), f.BlockFormat(f.integer(3), 128, scaling_, scale))
            REL(f.Laplace(2.0), f.BlockFormat(f.floating_point(2, 1), 33.5, scaling_, scale, multiplier=0.9))
            REL(f.GeneralizedNormal(0.6), f.BlockFormat(f.integer(4, symmetric=True), 16, scaling_, scale))


def test_codebooks_and_rates():
    """The same of everything that takes a law; levels of up to 4 bits share programs, and those of up to 8."""

    def all_of(law, bits):
        REL(law, f.cube_root(law, bits))
        REL(law, f.lloyd_max(law, bits))
        f.cube_root(law, bits, block_size=64)
        f.code_entropy(law, f.nf4())
        f.panter_dite(law), f.entropy_coded_limit(law), f.shannon_lower_bound(law)
        f.entropy_coded(law, bits - 0.5, side=200)
        f.expected_maximum(law, 32)

    with programs(16):
        all_of(f.Normal(2.3), 4)
    with programs(0):
        all_of(f.StudentT(7.0), 3)
        all_of(f.Laplace(0.1), 3.5)


def test_tensors():
    """Small ones, of any shape, compile nothing."""
    with programs(0):
        for shape in ((33, 64), (7,), (3, 5, 17)):
            x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            for fmt in (f.BlockFormat(f.nf4(), 16), f.BlockFormat(f.integer(8), "channel", "signmax", "bf16")):
                f.quantize(x, fmt).dequantize()
            if x.size >= 10:
                fit(x)
                fit(x, "generalized_normal")


def test_allocations():
    f.allocate_bits([100, 200], [1.0, 0.5])
    with programs(0):
        f.allocate_bits(np.arange(1.0, 12), np.arange(1.0, 12), np.arange(1.0, 12), 3.5)


@pytest.mark.optimized
def test_sgd_and_budgets():
    def risk(N, step, eps):
        return scaling.sgd_risk(scaling.power_law(300, 1.5, noise=eps), scaling.of_bits("additive", eps * 50), N, step)

    risk(1000, 0.1, 0.1)
    with programs(0):
        risk(5000, 0.2, 0.2)
        risk(3000.5, 0.2, 0.2)

    def problem(M):
        return scaling.power_law(M, 1.5, noise=0.1)

    def precision(b):
        return scaling.of_bits("additive", b[0], reach=4.0)

    with programs(8):
        allocate_budget(problem, precision, TrainingCost(), 1e9, whole=False)
    with programs(0):
        allocate_budget(problem, precision, TrainingCost(), 1e8)
