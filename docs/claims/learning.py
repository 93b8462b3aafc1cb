"""[Q]: what quantization does to learning.  Kashiwamura, Sakata, Imaizumi, arXiv 2401.17269; theory 1 and 2."""

import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq, minimize_scalar

import replicajax as rj
from docs.claims._claim import Evidence, above, agrees, below, claim, near, true

TASK = rj.LinearRegression(alpha=2.0, signal=1.0, noise=0.1)


@claim(
    "Few bits and a large width are unstable",
    source="[Q] (i)",
    kind="exact",
    falsified_by="a replicon that grows with the width, or that is smaller at more bits of the same width; a sampler "
    "whose chains "
    "mix well where the replicon is negative, or a message passing that converges there.",
)
def instability() -> Evidence:
    r"""Replica symmetry is locally right where the replicon

    $$ r = 1 - \frac{\alpha}{(1+\chi)^2}\, \mathbb{E}\left[(\beta\, \mathrm{Var}_h(a))^2\right] $$

    is positive (the condition of de Almeida and Thouless), and message passing converges exactly there. When $\beta$ is
    large the average is carried by fields near the thresholds, $\beta \sum_k D_k^3 \varphi(t_k/s)/(6s)$ with gaps $D_k =
    2W/(2^b-1)$: it grows with the width $W$ and falls fast with the bits $b$. For a codebook of finitely many levels it
    diverges as $\beta \to \infty$: there replica symmetry is always unstable.
    """
    widths = np.linspace(0.5, 4.0, 36)
    replicon = {b: np.array([_replicon(b, width) for width in widths]) for b in (1, 2, 3, 4)}
    cold = rj.solve(TASK, rj.uniform(3, 1.5), jnp.inf)
    edge = brentq(lambda width: _replicon(2, width), 0.5, 3.0, xtol=1e-12)
    fine = [1 - _replicon(b, 1.5, 1e4) for b in (5, 6)]

    def draw(axes) -> None:
        for b, r in replicon.items():
            axes.plot(widths, r, label=f"{b} bits" if b > 1 else "1 bit")
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.set(xlabel="width W", ylabel="replicon r (stable above 0)", ylim=(-6, 1))
        axes.legend()

    wide = widths > 1.2
    return Evidence(
        [
            below("largest rise of r from a width to the next, W > 1.2, 2 bits", np.diff(replicon[2][wide]).max(), 0.0),
            above("r at 2 bits above r at 1 bit, at W = 2", float(replicon[2][15] - replicon[1][15]), 0.0),
            above("r at 3 bits above r at 2 bits, at W = 2", float(replicon[3][15] - replicon[2][15]), 0.0),
            above("r at 4 bits above r at 3 bits, at W = 2", float(replicon[4][15] - replicon[3][15]), 0.0),
            true("unstable at β = ∞, 3 bits, W = 1.5", not cold.stable),
            near(
                "(1 − r) at 5 bits over 6 bits, β = 10⁴: the sum of D³ falls fourfold, chi and s change little",
                fine[0] / fine[1],
                4.0,
                0.6,
            ),
        ],
        draw,
        [f"At α = 2, noise 0.1, β = 10 two bits are stable up to W = {edge:.6f}."],
    )


def _replicon(bits: int, width: float, beta: float = 10.0) -> float:
    return float(rj.solve(TASK, rj.uniform(bits, width), beta).replicon)


@claim(
    "There is a best width",
    source="[Q] (ii)",
    kind="exact",
    falsified_by="an error that only falls, or only rises, with the width; a derivative that does not vanish at the "
    "width found; a "
    "search without derivatives that does better.",
)
def best_width() -> Evidence:
    r"""The error of generalisation $\varepsilon_g = \rho - 2m + q$ has an interior minimum in the width of the codebook:
    narrow levels cannot reach the teacher, wide ones are too coarse. The minimum is found by the derivative through the
    fixed point; here a golden-section search, which uses none, checks it.
    """
    best = {b: rj.optimal_width(TASK, bits=b, beta=5.0) for b in (1, 2, 3, 4)}
    widths = np.linspace(0.4, 5.0, 60)

    def error(width: float, bits: int = 2) -> float:
        return float(rj.solve(TASK, rj.uniform(bits, width), 5.0).generalization_error)

    golden = minimize_scalar(error, bracket=(1.0, 1.7, 3.0), method="golden", options={"xtol": 1e-9})

    def draw(axes) -> None:
        for b in best:
            (line,) = axes.plot(widths, [error(width, b) for width in widths], label=f"{b} bits" if b > 1 else "1 bit")
            axes.plot(best[b].width, best[b].generalization_error, "o", color=line.get_color())
        axes.set(xlabel="width W", ylabel="generalisation error", ylim=(0.08, 0.6))
        axes.legend()

    two = best[2]
    h = 1e-4
    slope = (error(float(two.width) + h) - error(float(two.width) - h)) / (2 * h)
    return Evidence(
        [
            near("best width, 2 bits, against a search without derivatives", float(two.width), golden.x, 1e-6),
            near("its error", float(two.generalization_error), golden.fun, 1e-12),
            near("slope of the error there, by differences", slope, 0.0, 1e-7),
            above("error at a third of that width", error(float(two.width) / 3), float(two.generalization_error) * 1.5),
            above(
                "error at three times that width", error(float(two.width) * 3), float(two.generalization_error) * 1.5
            ),
            below("error at 3 bits", float(best[3].generalization_error), float(two.generalization_error)),
        ],
        draw,
    )


@claim(
    "Fewer bits move the double descent to fewer rows",
    source="[Q] (iii)",
    kind="exact",
    falsified_by="an error that falls monotonically with the number of rows at low temperature, or a peak that moves "
    "the other way.",
)
def double_descent() -> Evidence:
    r"""At low temperature and without ridge the error first falls with $\alpha$, then rises to a peak, and falls again.
    With fine levels the peak is where the labels stop being fitted exactly, $\alpha = 1$; a coarse codebook stops fitting
    earlier, so its peak is at smaller $\alpha$.
    """
    fine = _peak(8, 6.0)
    coarse = _peak(2, 1.5)
    rows = np.linspace(0.2, 2.0, 91)

    def draw(axes) -> None:
        for bits, width in ((8, 6.0), (2, 1.5)):
            axes.plot(rows, [_cold_error(a, bits, width) for a in rows], label=f"{bits} bits, width {width:g}")
        axes.set(xlabel="rows per weight α", ylabel="generalisation error", yscale="log")
        axes.legend()

    return Evidence(
        [
            near("α of the peak, 8 bits, width 6, β = 200", fine, 1.0, 0.05),
            near("α of the peak, 2 bits, width 1.5", coarse, 0.7, 0.05),
            below("shift of the peak from 8 bits to 2", coarse - fine, 0.0),
        ],
        draw,
    )


def _cold_error(alpha: float, bits: int, width: float) -> float:
    task = rj.LinearRegression(alpha, 1.0, 0.1)
    return float(rj.solve(task, rj.uniform(bits, width), 200.0).generalization_error)


def _peak(bits: int, width: float) -> float:
    found = minimize_scalar(
        lambda alpha: -_cold_error(alpha, bits, width), bounds=(0.3, 1.6), method="bounded", options={"xatol": 1e-4}
    )
    return float(found.x)


@claim(
    "Levels denser near zero are more stable",
    source="[Q] (iv)",
    kind="heuristic",
    falsified_by="a replicon that falls when the exponent of the power-law codebook rises, at the same width.",
)
def power_levels() -> Evidence:
    r"""Levels $a_k = W\, \mathrm{sign}(u_k)|u_k|^p$ with $u_k$ even in $[-1, 1]$ crowd near zero as $p$ grows. The fields
    are most often near zero, so their gaps there matter most: $1 - r$ falls. It is a rule about some range of $p$: the
    outer gaps grow, and too large a $p$ undoes it.
    """
    powers = np.linspace(1.0, 3.0, 41)
    lack = np.array([1 - float(rj.solve(TASK, rj.power(2, 3.0, p), 10.0).replicon) for p in powers])

    def draw(axes) -> None:
        axes.plot(powers, lack)
        axes.set(xlabel="exponent p of the codebook", ylabel="1 − r (stable below 1)")

    return Evidence(
        [
            near("1 − r, 2 bits, width 3, β = 10, p = 1", lack[0], 3.33, 0.005),
            near("1 − r at p = 1.3", lack[6], 2.88, 0.005),
            below("change of 1 − r from p = 1 to 1.3", lack[6] - lack[0], 0.0),
            above("1 − r at p = 3 above its least value: the rule ends", lack[-1] - lack.min(), 0.0),
        ],
        draw,
        [f"Of the exponents drawn p = {powers[lack.argmin()]:.2f} is the most stable."],
    )


@claim(
    "Message passing does what its state evolution says",
    source="[Q] (v)",
    kind="asymptotic",
    falsified_by="a mean error over drawn instances that leaves the prediction by more than three standard errors at "
    "some iteration, and does not "
    "come nearer as instances grow.",
)
def message_passing() -> Evidence:
    r"""Approximate message passing on actual rows has, at every iteration, the error that the map of the saddle point
    predicts from the iteration before; where it converges it ends at the replica-symmetric error. Finite size changes it by
    $O(1/N)$.
    """
    instances, steps = 16, 8
    compared = rj.compare(TASK, rj.uniform(2, 1.5), 5.0, size=800, instances=instances, iterations=steps, seed=1)
    scores = {score.name: score for score in compared.scores()}
    rows = [scores[f"AMP eg, iteration {t}"] for t in range(1, steps + 1)]

    def draw(axes) -> None:
        axes.plot(range(1, steps + 1), [row.theory for row in rows], label="state evolution")
        axes.errorbar(
            range(1, steps + 1),
            [row.mean for row in rows],
            [row.standard_error for row in rows],
            fmt="o",
            label=f"message passing, {instances} instances of 800 weights",
        )
        axes.set(xlabel="iteration", ylabel="generalisation error")
        axes.legend()

    ended = scores["AMP eg, converged"]
    return Evidence(
        [
            agrees(f"error after iteration {t}", rows[t - 1].mean, rows[t - 1].standard_error, rows[t - 1].theory)
            for t in (1, 2, 4, 8)
        ]
        + [agrees("error where it converged", ended.mean, ended.standard_error, ended.theory)],
        draw,
    )
