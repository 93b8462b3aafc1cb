"""[S]: what low precision does to scaling laws.  Zhang, Tang, Liang, Zou, arXiv 2602.19241; theory 5."""

import numpy as np

import replicajax as rj
from docs.claims._claim import Evidence, agrees, below, claim, differs, near
from replicajax.scaling import Precision

s = rj.scaling
A = 1.5


def _slope(x, y) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _excess(size: float, steps: float, precision: Precision | None = None) -> float:
    """Risk above the noise, at half the largest stable step."""
    problem, precision = s.power_law(float(size), A), precision or Precision("additive")
    return float(s.sgd_risk(problem, precision, steps, 0.5 * s.step_limit(problem, precision)).excess)


@claim(
    "Quantization adds an error that no data removes",
    source="[S]",
    kind="exact",
    falsified_by="a risk that goes on falling to that of full precision as steps grow, or ends at another value than "
    "the shift of the limit predicts.",
)
def additive_error() -> Evidence:
    r"""Errors of the data change the second moment that SGD sees to $\tilde G = G + \mathbb{E}[\text{error covariance}]$,
    and so the weights it tends to: $v^\circ = \tilde G^{-1} c$ in the place of $v^* = G^{-1} c$. What is left for good is
    $(v^\circ - v^*)^\top G\, (v^\circ - v^*)$. For multiplicative errors it is $(\epsilon/(1+\epsilon))^2\, v^{*\top} G
    v^*$. Errors of the other four sites are noise, which a falling step averages out.
    """
    problem, eps = s.power_law(500, A), 0.01
    precisions = {"additive": Precision("additive", data=1e-4), "multiplicative": Precision("multiplicative", data=eps)}

    def risk(p: Precision, steps: float) -> float:
        return float(s.sgd_risk(problem, p, steps, 0.5 * s.step_limit(problem, p)).excess)

    ends = {kind: risk(p, 1e12) for kind, p in precisions.items()}
    floors = {kind: float(s.quantization_floor(problem, p)) for kind, p in precisions.items()}
    rest = float(problem.approximation)
    late = risk(Precision("additive", output=0.01), 1e16)

    def draw(axes) -> None:
        steps = np.geomspace(1e3, 1e12, 28)
        for kind, p in precisions.items():
            (line,) = axes.plot(steps, [risk(p, n) for n in steps], label=kind)
            axes.axhline(rest + floors[kind], color=line.get_color(), linestyle=":")
        axes.axhline(rest, color="black", linestyle="--", label="full precision, endless data")
        axes.set(xlabel="steps", ylabel="risk above noise", xscale="log", yscale="log")
        axes.legend()

    return Evidence(
        [
            near(
                "additive: risk after 10¹² steps over the predicted end",
                ends["additive"] / (rest + floors["additive"]),
                1.0,
                0.01,
            ),
            near("multiplicative: the same", ends["multiplicative"] / (rest + floors["multiplicative"]), 1.0, 0.01),
            near(
                "multiplicative: floor", floors["multiplicative"], (eps / (1 + eps)) ** 2 * float(problem.signal), 1e-12
            ),
            near(
                "errors of output gradients: risk after 10¹⁶ steps over that of full precision", late / rest, 1.0, 0.01
            ),
        ],
        draw,
    )


@claim(
    "Multiplicative errors keep the model's size, additive ones lose it",
    source="[S], abstract on arXiv",
    kind="exact",
    falsified_by="an exponent of the risk in the model's size that multiplicative errors change, or an effective size "
    "under additive errors that grows "
    "beyond ε^(−1/a).",
)
def model_size() -> Evidence:
    r"""The preprint's wording: *multiplicative quantization maintains the full-precision model size, additive quantization
    reduces it*. With eigenvalues $\lambda_i = i^{-a}$: additive errors make $\tilde G = G + \epsilon I$, which is ridge;
    directions of $\lambda_i < \epsilon$ are lost, so the effective size is $\min(M, \sim\epsilon^{-1/a})$. Multiplicative
    ones make $\tilde G = (1+\epsilon) G$, with the same eigenvectors and the same loss in each.
    """
    eps = np.geomspace(1e-8, 1e-4, 9)
    sizes = [float(s.effective_model_size(s.power_law(1e8, A), Precision("additive", data=e))) for e in eps]
    M = np.geomspace(200, 2e5, 7)
    noisy = Precision("multiplicative", data=0.01)
    floors = np.array([float(s.quantization_floor(s.power_law(float(m), A), noisy)) for m in M])
    multiplicative = np.array([_excess(m, 1e18, noisy) for m in M]) - floors
    additive = np.array([_excess(m, 1e18, Precision("additive", data=1e-5)) for m in M])

    def draw(axes) -> None:
        axes.plot(M, [_excess(m, 1e18) for m in M], "k--", label="full precision")
        axes.plot(M, multiplicative, "o-", label="multiplicative, ε = .01, less its floor")
        axes.plot(M, additive, "s-", label="additive, ε = 10⁻⁵")
        axes.set(xlabel="model size M", ylabel="risk above noise, endless data", xscale="log", yscale="log")
        axes.legend()

    kept = float(s.effective_model_size(s.power_law(1000.0, A), noisy))
    return Evidence(
        [
            near("multiplicative: exponent of M", _slope(M, multiplicative), -(A - 1), 0.03),
            near("multiplicative: effective size of a model of 1000", kept, 1000.0, 1e-9),
            near("additive: exponent of the effective size in ε", _slope(eps, sizes), -1 / A, 0.05 / A),
            below(
                "additive: fall of the risk from M = 2·10⁴ to 2·10⁵, as a share of that at full precision",
                (additive[-3] - additive[-1]) / (_excess(M[-3], 1e18) - _excess(M[-1], 1e18)),
                0.2,
            ),
        ],
        draw,
    )


@claim(
    "Multiplicative errors mainly cost data",
    source="[S], abstract as published (ICML 2026)",
    kind="exact",
    falsified_by="multiplicative errors that leave the effective data size alone, or cost more of the model's than of "
    "the data's.",
)
def data_size() -> Evidence:
    r"""The published wording: quantization *introduces an additive error and shrinks the effective model and data sizes*;
    multiplicative quantization *primarily reduces the effective data size*, additive quantization *diminishes both*. The
    two wordings differ in whether multiplicative errors touch the model's size at all: in this theory they do not
    (exactly), so both hold, the preprint's being the sharper. The effective data size is the number of steps after which
    full precision has the same bias and variance, each run at half its own largest stable step.
    """
    problem, steps = s.power_law(100, A, noise=1.0), 1e5

    def share(precision: Precision) -> float:
        return float(s.effective_data_size(problem, precision, steps)) / steps

    def multiplicative(e: float) -> float:
        return share(Precision("multiplicative", data=e, output=e))

    whole, noisy, outputs = multiplicative(0.0), multiplicative(0.4), share(Precision("additive", output=0.4))

    def draw(axes) -> None:
        eps = (0.0, 0.1, 0.2, 0.4)
        axes.plot(eps, [multiplicative(e) for e in eps], "o-", label="multiplicative: data and output gradients")
        axes.plot(eps, [share(Precision("additive", output=e)) for e in eps], "s-", label="additive: output gradients")
        axes.set(xlabel="error variance ε", ylabel="effective share of the data", ylim=(0, 1.05))
        axes.legend()

    return Evidence(
        [
            near("no errors: share of the data kept", whole, 1.0, 1e-6),
            below("multiplicative, ε = .4: share of the data kept", noisy, 0.8),
            near(
                "multiplicative, ε = .4: share of the model's size kept",
                float(s.effective_model_size(problem, Precision("multiplicative", data=0.4))) / 100,
                1.0,
                1e-12,
            ),
            below("additive, ε = .4 at output gradients: share of the data kept", outputs, 0.9),
        ],
        draw,
    )


@claim(
    "Larger batches suppress additive noise",
    source="[S]",
    kind="exact",
    falsified_by="noise of activations and output gradients whose share of the risk does not fall as one over the "
    "batch, or a floor of data errors that does.",
)
def batch_suppression() -> Evidence:
    r"""In the recursion of the weights' covariance, $C \leftarrow C - \eta(\tilde G C + C\tilde G) +
    \tfrac{\eta^2}{B}(\dots)$, the noise of additive errors, $(\epsilon_a + \epsilon_o)\tilde G$, enters divided by the
    batch $B$ at a given step: after as many steps its part of the risk is smaller by $B$, up to terms of the order of the
    step. The bias that errors of the data leave in the limit, $v^\circ$, does not know the batch.
    """
    problem, steps, step = s.power_law(500, A, noise=0.1), 1e6, 0.01
    batches = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    noise = Precision("additive", activation=0.1, output=0.1)
    own = np.array(
        [
            float(s.sgd_risk(problem, noise, steps, step, batch=b).variance)
            - float(s.sgd_risk(problem, Precision("additive"), steps, step, batch=b).variance)
            for b in batches
        ]
    )
    data = Precision("additive", data=1e-3)
    floors = [float(s.sgd_risk(problem, data, steps, step, batch=b).quantization) for b in batches]

    def draw(axes) -> None:
        axes.plot(batches, own, "o-", label="noise of activations and output gradients")
        axes.plot(batches, floors, "s-", label="floor of data errors")
        axes.plot(batches, own[0] / batches, "k:", label="1/B")
        axes.set(xlabel="batch B", ylabel="part of the risk", xscale="log", yscale="log")
        axes.legend()

    return Evidence(
        [
            near("exponent of that noise in the batch", _slope(batches, own), -1.0, 0.02),
            near("floor of data errors at B = 256 over B = 1", floors[-1] / floors[0], 1.0, 1e-9),
        ],
        draw,
    )


@claim(
    "Each of the five sites costs what the exact recursion says",
    source="[S]",
    kind="exact",
    falsified_by="simulated SGD that leaves the exact risk by more than three standard errors at some site.",
)
def five_sites() -> Evidence:
    r"""Data, labels, parameters, activations and output gradients are quantized, one at a time, in $v \leftarrow v + \eta\,
    \tilde u\, Q_o(\tilde y - Q_a(\tilde u \cdot Q_p(v)))$. For additive errors the exact recursion of the weights'
    covariance gives the risk; here SGD itself is run.
    """
    problem, steps, step, error = s.power_law(10, A, noise=0.1), 100, 0.2, 0.5
    full = float(s.sgd_risk(problem, Precision("additive"), steps, step).total)
    theory, measured = {}, {}
    for site in s.SITES:
        precision = Precision("additive", **{site: error})
        theory[site] = float(s.sgd_risk(problem, precision, steps, step).total)
        run = rj.trials.simulate_sgd(problem, precision, steps, step, runs=600)
        measured[site] = run.mean, run.error

    def draw(axes) -> None:
        names = list(s.SITES)
        axes.bar(names, [theory[name] for name in names], alpha=0.4, label="exact")
        axes.errorbar(
            names,
            [measured[n][0] for n in names],
            [3 * measured[n][1] for n in names],
            fmt="o",
            label="simulated, 3 standard errors",
        )
        axes.axhline(full, color="black", linestyle="--", label="full precision")
        axes.set(ylabel="risk", ylim=(0.9 * full, None))
        axes.legend()

    return Evidence(
        [
            *(agrees(f"{site}: simulated risk", *measured[site], theory[site]) for site in s.SITES),
            *(differs(f"{site}: the same, full precision", *measured[site], full) for site in s.SITES),
        ],
        draw,
    )
