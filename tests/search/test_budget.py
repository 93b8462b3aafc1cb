"""A budget divided by gradients, against exhaustive search; costs; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replicajax import scaling
from replicajax.search import TrainingCost, allocate_budget


def additive(b):
    return scaling.of_bits("additive", b[0], reach=4.0, sites=("data",))


def multiplicative(b):
    return scaling.of_bits("multiplicative", b[0])


def problem(M):
    return scaling.power_law(M, 1.5, noise=0.1)


def steeper(M):
    return scaling.power_law(M, 2.0, noise=0.5)


def operations(M, N, b):
    return M * N * b[0] ** 2


def energy(M, N, b):
    return M * N * (0.2 + b[0] ** 1.3) + 1e4 * M * b[0]


def memory(M, N, b):
    return M * b[0]


CASES = {
    "operations": (problem, additive, operations, 1e11, None),
    "a small budget": (problem, additive, operations, 1e9, None),
    "energy": (problem, multiplicative, energy, 1e10, None),
    "a steeper spectrum": (steeper, additive, energy, 1e10, None),
    "memory": (problem, additive, memory, 1e5, 1e6),
}


def exhaustive(problem, precision, cost, budget, steps, bits, sizes):
    """Least excess over whole bits, sizes and steps of 24 lengths below the limit; spends the budget by bisection."""

    def excess(place):
        b, M, fraction = place
        bits = b[None]

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            affordable = cost(M, jnp.exp(middle), bits) <= budget
            return jnp.where(affordable, middle, low), jnp.where(affordable, high, middle)

        N = steps
        if steps is None:
            N = jnp.exp(jax.lax.fori_loop(0, 50, halve, (jnp.zeros(()), jnp.asarray(45.0)))[0])
        p, e = problem(M), precision(bits)
        risk = scaling.sgd_risk(p, e, N, fraction * scaling.step_limit(p, e)).excess
        return jnp.where((cost(M, N, bits) <= budget * (1 + 1e-9)) & (N >= 64), risk, jnp.inf)

    grid = [jnp.asarray(x.ravel()) for x in np.meshgrid(bits, sizes, np.geomspace(0.02, 0.95, 16))]
    return float(jax.jit(lambda grid: jax.lax.map(excess, grid))(grid).min())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_exhaustive_search(name):
    """Within 1% of the best of some 3000 points around the optimum."""
    problem, precision, cost, budget, steps = CASES[name]
    split = allocate_budget(problem, precision, cost, budget, bits=[(1.0, 20.0)], steps=steps)
    assert split.converged
    assert split.cost <= budget
    b = split.bits[0]
    sizes = np.floor(budget / np.arange(b - 2, b + 3)) if steps else split.size * np.geomspace(0.25, 4, 41)
    sizes = sizes[sizes > 130]
    best = exhaustive(problem, precision, cost, budget, steps, np.arange(max(b - 2, 1), b + 3), sizes)
    print(f"{name}: M {split.size}, N {split.steps}, bits {b}, excess {float(split.risk.excess):.6g}, grid {best:.6g}")
    assert float(split.risk.excess) < 1.01 * best
    assert split.relaxed_excess <= float(split.risk.excess) * 1.001


@pytest.mark.optimized
def test_exhaustive_search_of_a_small_budget():
    """The same on some hundred points."""
    problem, precision, cost, budget, _ = CASES["a small budget"]
    split = allocate_budget(problem, precision, cost, budget, bits=[(1.0, 20.0)])
    (b,), sizes = split.bits, split.size * np.geomspace(0.7, 1.4, 7)
    best = exhaustive(problem, precision, cost, budget, None, np.arange(b - 1, b + 2), sizes)
    assert float(split.risk.excess) < 1.01 * best


@pytest.mark.optimized
def test_no_neighbour_is_better():
    """Bits one up and down, a fifth more or fewer features, longer and shorter steps, for the same money."""
    budget = 1e9
    split = allocate_budget(problem, additive, operations, budget, bits=[(2.0, 20.0)])
    assert split.converged
    assert split.cost <= budget
    (b,), M = split.bits, float(split.size)
    for bits, size, longer in (
        (b - 1, M, 1),
        (b + 1, M, 1),
        (b, M / 1.2, 1),
        (b, M * 1.2, 1),
        (b, M, 1.2),
        (b, M, 0.8),
    ):
        precision = additive(jnp.array([bits]))
        N = float(np.floor(budget / size / bits**2))
        found = scaling.sgd_risk(problem(size), precision, N, longer * split.step_size)
        assert split.relaxed_excess < float(found.excess)
    assert split.relaxed_excess < float(split.risk.excess) * 1.001


def test_costs():
    cost = TrainingCost([4, 8, 16], [1.0, 3.0, 20.0], macs=2.0, memory=0.5)
    np.testing.assert_allclose(cost(10.0, 100.0, jnp.array([8.0])), 2 * 10 * 100 * 3 + 0.5 * 10 * 8)
    np.testing.assert_allclose(cost(10.0, 100.0, jnp.array([16.0, 16.0])), 2 * 10 * 100 * 20 + 0.5 * 10 * 16)
    between = float(cost(1.0, 1.0, jnp.array([np.sqrt(32.0)])) - 0.5 * np.sqrt(32.0))
    np.testing.assert_allclose(between, 2 * np.sqrt(3.0))


def test_cost_file(tmp_path):
    path = tmp_path / "machine.toml"
    path.write_text("bits = [4, 8]\nprice = [1.0, 2.0]\nmacs = 3\n")
    assert float(TrainingCost.from_toml(path)(1.0, 1.0, jnp.array([4.0]))) == 3
    for text, message in (
        ("bits = [4", "is not TOML"),
        ("bits = [4, 8]", "must have bits"),
        ("volts = 3", "got volts"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            TrainingCost.from_toml(path)
    with pytest.raises(FileNotFoundError):
        TrainingCost.from_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cost": lambda M, N, b: jnp.nan * M * N}, "cost must return one positive number, got nan"),
        ({"cost": lambda M, N, b: -M * N}, "cost must return one positive number"),
        ({"cost": lambda M, N, b: 1.0 + 0 * N}, "cost must grow with steps"),
        ({"cost": lambda M, N, b: M * b[0]}, "cost must grow with steps"),
        ({"cost": lambda M, N, b: N * b[0], "steps": 1e5}, "cost must grow with size"),
        ({"cost": lambda M, N, b: M * N * b}, "cost must return one positive number"),
        ({"budget": 10.0}, "budget must be at least"),
        ({"budget": -1.0}, "budget must be positive"),
        ({"bits": [(8.0, 4.0)]}, r"bits and size must be ranges"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"cost": operations, "budget": 1e9} | arguments
    with pytest.raises(ValueError, match=message):
        allocate_budget(problem, additive, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingCost([8, 4], [1, 2]), "bits must increase"),
        (lambda: TrainingCost([4, 8], [1, 0]), "price must be positive"),
        (lambda: TrainingCost([4], [1]), "vectors of one length, at least 2"),
    ],
)
def test_bad_tables(make, message):
    with pytest.raises(ValueError, match=message):
        make()
