"""What this project found beyond its sources."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

import replicajax as rj
from docs.claims._claim import Evidence, above, agrees, below, claim, differs, mean_and_error, near

f, s, L = rj.formats, rj.scaling, rj.layers


@claim(
    "At zero temperature replica symmetry is wrong, and one step of breaking is not",
    source="found here; theory 3 and 8",
    kind="asymptotic",
    falsified_by="ground states whose energy, extrapolated in the number of weights, leaves that of one step of "
    "breaking by more than three standard errors, or comes "
    "within five of the replica-symmetric one.",
)
def zero_temperature() -> Evidence:
    r"""At $\beta = \infty$, which is what people deploy, replica symmetry is unstable for every codebook of finitely many
    levels. Its numbers are then not approximations of unknown size: with one step of breaking, $f = \max_{y_P} f(y_P)$,
    they change visibly. Ground states of drawn instances decide. They are searched by replica exchange, which knows no
    theory. One step is not the last word either: its own replicons are negative here, so that its energy is
    a bound from below.
    """
    task, book = rj.LinearRegression(1.0, noise=0.1), rj.uniform(1, 2.5)
    symmetric, broken = rj.solve(task, book, jnp.inf), rj.solve(task, book, jnp.inf, breaking=1)
    found = rj.trials.ground_state(task, book, sizes=(10, 20), instances=256)
    energy, error = found.energy, found.error

    def draw(axes) -> None:
        x = [1 / each.size for each in found.trials]
        axes.errorbar(
            x,
            [each.energy.mean for each in found.trials],
            [each.energy.standard_error for each in found.trials],
            fmt="o",
            label="ground states",
        )
        axes.errorbar([0.0], [energy.mean], [energy.standard_error], fmt="s", label="extrapolated")
        axes.axhline(float(broken.training_error), color="tab:green", label="one step of breaking")
        axes.axhline(float(symmetric.training_error), color="tab:red", linestyle="--", label="replica symmetry")
        axes.set(xlabel="1/N", ylabel="energy per weight")
        axes.legend()

    return Evidence(
        [
            agrees(
                "energy at N = ∞, one step of breaking",
                energy.mean,
                energy.standard_error,
                float(broken.training_error),
            ),
            differs("the same, replica symmetry", energy.mean, energy.standard_error, float(symmetric.training_error)),
            agrees(
                "generalisation error at N = ∞, one step of breaking",
                error.mean,
                error.standard_error,
                float(broken.generalization_error),
            ),
            above("share of instances on which two searches agree", min(each.agreement for each in found.trials), 0.9),
        ],
        draw,
        ["α = 1, noise 0.1, two levels ±2.5."],
    )


@claim(
    "GPTQ has a state evolution",
    source="found here; theory 10",
    kind="exact",
    falsified_by="an error of GPTQ, run on drawn weights, that leaves the prediction by more than three standard "
    "errors and one percent.",
)
def gptq_evolution() -> Evidence:
    r"""GPTQ rounds a layer's columns one after the other, and hands what a column lost on to those that follow. A later
    column is thus the sum of its own weight and of Gaussian feedback of variance $v$; with $\epsilon(v) = \mathbb{E}(x -
    Q(x))^2$, $x = w + N(0, v)$, and $U^\top U = H^{-1}$,

    $$ \text{loss} = \sum_i \frac{\epsilon(v_i)}{U_{ii}^2}, \qquad
    v_j = \sum_{i<j} \epsilon(v_i) \left(\frac{U_{ij}}{U_{ii}}\right)^2 . $$

    No weight is touched: the error is known before GPTQ is run, and has derivatives in every level. Here it is run, on 384
    rows of Gaussian weights.
    """
    n, rows, book = 160, 384, rj.uniform(3, 2.2)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    predicted, measured, nearest = {}, {}, {}
    exponents = (0.5, 1.0, 1.5)
    for a in exponents:
        H = (turn * np.arange(1.0, n + 1) ** -a) @ turn.T
        layer = L.Layer(H, law=f.Normal())
        predicted[a] = float(L.gptq_error(layer, book))
        nearest[a] = float(L.rounding_error(layer, book))
        W = rng.normal(size=(rows, n))
        delta = np.asarray(L.gptq(W, H, book)) - W
        each = np.einsum("ri,ij,rj->r", delta, H, delta) / np.trace(H)
        measured[a] = mean_and_error(each)

    def draw(axes) -> None:
        axes.plot(exponents, [nearest[a] for a in exponents], "--", label="rounding, predicted")
        axes.plot(exponents, [predicted[a] for a in exponents], label="GPTQ, predicted")
        axes.errorbar(
            exponents,
            [measured[a][0] for a in exponents],
            [3 * measured[a][1] for a in exponents],
            fmt="o",
            label="GPTQ, run",
        )
        axes.set(xlabel="exponent a of the inputs' spectrum", ylabel="relative error of the outputs", yscale="log")
        axes.legend()

    return Evidence(
        [
            *(agrees(f"error of GPTQ, 3 bits, λ ∝ i^(−{a})", *measured[a], predicted[a]) for a in exponents),
            *(near(f"run over predicted, λ ∝ i^(−{a})", measured[a][0] / predicted[a], 1.0, 0.05) for a in exponents),
            below("GPTQ over rounding at a = 1.5", predicted[1.5] / nearest[1.5], 0.6),
        ],
        draw,
    )


@claim(
    "Quantized learning is ridge regression with noise",
    source="found here; theory 9",
    kind="asymptotic",
    falsified_by="sampled weights on a real table, turned at random, whose held-out error leaves the prediction by "
    "more than three standard errors where replica symmetry is stable.",
)
def ridge_and_noise() -> Evidence:
    r"""Quantize in axes that are turned at random against the principal axes of the rows, whatever these are. Then the mean
    of the quantized weights is

    $$ \langle w \rangle = V\,\frac{b}{\lambda + z} + V\,\frac{N(0, \kappa)}{\lambda + z}, $$

    ridge regression with an effective ridge $z$ plus isotropic noise of variance $\kappa$, both fixed by the codebook and
    the temperature. Nothing is assumed of the data, and the errors follow from the training rows alone. Measured here:
    weights sampled on 6 splits of the diabetes table with its squares (65 correlated columns), and tested on the rows held
    out.
    """
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import PolynomialFeatures

    X, y = load_diabetes(return_X_y=True)
    X = PolynomialFeatures(2, include_bias=False).fit_transform(X / X.std(0))
    splits, widths, beta = 6, (0.5, 1.0), 2.0
    gaps = {width: [] for width in widths}
    shown = {width: [] for width in widths}
    for seed in range(splits):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        train, test = order[:200], order[200:]
        mean, scale = X[train].mean(0), X[train].std(0)
        Z, (m, d) = (X - mean) / scale / np.sqrt(X.shape[1]), (y[train].mean(), y[train].std())
        t = (y - m) / d
        task = rj.GivenData(Z[train], t[train], 0.1, Z[test], t[test])
        turn = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))[0]
        for width in widths:
            theory = rj.solve(task, rj.uniform(3, width), beta)
            sample = rj.gibbs(
                Z[train] @ turn, t[train], rj.uniform(3, width), beta, ridge=0.1, sweeps=300, key=jax.random.key(seed)
            )
            error = float(np.mean((t[test] - Z[test] @ turn @ np.asarray(sample.weights)) ** 2))
            gaps[width].append(error - float(theory.generalization_error))
            shown[width].append((float(theory.generalization_error), error))

    def draw(axes) -> None:
        for width, pairs in shown.items():
            axes.plot(*zip(*pairs, strict=True), "o", label=f"width {width:g}")
        axes.axline((0.6, 0.6), slope=1, color="black", linewidth=0.8)
        axes.set(xlabel="predicted held-out error", ylabel="measured, sampled weights")
        axes.legend()

    stats = {width: mean_and_error(g) for width, g in gaps.items()}
    return Evidence(
        [agrees(f"measured less predicted held-out error, 3 bits, width {w:g}", *stats[w], 0.0) for w in widths]
        + [below(f"its size, width {w:g}", abs(stats[w][0]), 0.02) for w in widths],
        draw,
    )


@claim(
    "Floats after a sketch lose the model's size",
    source="found here; theory 5",
    kind="asymptotic",
    falsified_by="a floor of elementwise errors after a sketch that is of the order of multiplicative ones.",
)
def floats_after_a_sketch() -> Evidence:
    r"""Floating point errs elementwise, $\epsilon\,\mathrm{diag}(u^2)$. On features that are their own eigenvectors that is
    as good as multiplicative. But a sketch (as any layer before) mixes all directions into every feature, so that
    $\mathrm{diag}\, G \approx \mathrm{tr}\,G/M$ whatever the direction: the error falls on weak directions as on strong
    ones, as additive errors of variance $\epsilon\, \mathrm{tr}\, G/M$ do. The advantage of multiplicative quantization
    over additive is then not there for floats.
    """
    spectrum, eps = np.arange(1, 2001.0) ** -1.5, 1e-3
    sizes = (64, 256)
    floors = {"elementwise": [], "additive": [], "multiplicative": []}
    for size in sizes:
        problem = s.sketched(spectrum, np.ones(spectrum.size), size, jax.random.key(0))
        level = {"elementwise": eps, "multiplicative": eps, "additive": eps * float(problem.eigenvalues.sum()) / size}
        for kind, e in level.items():
            floors[kind].append(float(s.quantization_floor(problem, s.Precision(kind, data=e))))
    table = {kind: np.array(values) for kind, values in floors.items()}
    ratio = table["elementwise"] / table["multiplicative"]

    def draw(axes) -> None:
        for kind, values in table.items():
            axes.plot(sizes, values, "o-", label=kind if kind != "additive" else "additive, ε tr G/M")
        axes.set(xlabel="size of the sketch M", ylabel="risk that stays for good", xscale="log", yscale="log")
        axes.legend()

    return Evidence(
        [
            above("elementwise over multiplicative floor, M = 64", float(ratio[0]), 3.0),
            above("the same, M = 256", float(ratio[1]), 1.5 * float(ratio[0])),
            above(
                "elementwise over additive floor, least", float((table["elementwise"] / table["additive"]).min()), 1 / 3
            ),
            below(
                "elementwise over additive floor, largest", float((table["elementwise"] / table["additive"]).max()), 3.0
            ),
        ],
        draw,
    )


def _error(book: rj.Codebook) -> float:
    return float(rj.solve(rj.LinearRegression(2.0, noise=0.1), book, 5.0).generalization_error)


@claim(
    "Learned levels beat even ones, by little",
    source="found here; theory 12",
    kind="exact",
    falsified_by="a uniform or power-law codebook of as many levels with less error, or a gain that message passing on "
    "drawn instances does not show.",
)
def learned_levels() -> Evidence:
    r"""Every level is a parameter of the free energy, so the error of generalisation has a derivative in each. At its
    minimum four levels at $\alpha = 2$, $\beta = 5$ err by 1.5 % less than four even ones at their best width. With many
    rows they become Lloyd's and Max's.
    """
    task = rj.LinearRegression(2.0, noise=0.1)
    best, even = rj.optimal_codebook(task, 4, 5.0), rj.optimal_width(task, bits=2, beta=5.0)
    powers = np.linspace(0.7, 1.6, 10)
    power = min(
        minimize_scalar(lambda w, p=p: _error(rj.power(2, w, p)), bounds=(1.0, 3.0), method="bounded").fun
        for p in powers
    )
    levels = np.asarray(best.levels)
    h, slopes = 1e-4, []
    for k in range(4):
        up, down = (_error(rj.codebook(levels + sign * h * np.eye(4)[k])) for sign in (1, -1))
        slopes.append((up - down) / (2 * h))
    rows = np.array([1.0, 2.0, 4.0, 16.0, 64.0])

    def draw(axes) -> None:
        found = [np.asarray(rj.optimal_codebook(rj.LinearRegression(a, noise=0.1), 4, 5.0).levels) for a in rows]
        axes.plot(rows, [x[2:] for x in found], "o-", color="tab:blue")
        for level in np.asarray(f.lloyd_max(f.Normal(), 2).levels)[2:]:
            axes.axhline(level, color="black", linestyle=":")
        axes.set(xlabel="rows per weight α", ylabel="positive levels (dotted: Lloyd and Max)", xscale="log")

    return Evidence(
        [
            below(
                "error over that of the best even levels",
                float(best.generalization_error / even.generalization_error),
                0.99,
            ),
            below("error over that of the best of ten power laws", float(best.generalization_error) / power, 1.0),
            near("largest slope of the error in a level, by differences", float(np.abs(slopes).max()), 0.0, 1e-7),
        ],
        draw,
        ["Levels: " + ", ".join(f"{x:.6f}" for x in levels) + "."],
    )
