"""`replicajax scaling`: exact risk of low-precision training, the law it follows, and how to divide a budget."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from replicajax.cli._console import err, out, written
from replicajax.cli._engine import start
from replicajax.cli._progress import Progress
from replicajax.cli._request import PICTURES, ProblemError, check, check_all, choice, numbers, readable, writable
from replicajax.cli._table import columns_of, read_csv

app = typer.Typer(help="Scaling laws of low-precision training.")

SITES = ("data", "label", "parameter", "activation", "output")
KINDS = ("additive", "multiplicative", "elementwise")
ROUNDINGS = ("stochastic", "nearest")

Exponent = Annotated[float, typer.Option(help="Spectrum of the features: variance i^-exponent.")]
Source = Annotated[float | None, typer.Option(help="Label variance along feature i: i^-source (default: exponent).")]
Noise = Annotated[float, typer.Option(help="Variance of the label noise.")]
Kind = Annotated[str, typer.Option(help="Error: additive (integers), multiplicative or elementwise (floats).")]
Bits = Annotated[
    str, typer.Option(help="Bits of every site (mantissa bits unless additive), as in 8 or 4,6,8; inf: none.")
]
Sites = Annotated[str, typer.Option(help=f"Quantized sites, of {', '.join(SITES)}, or all.")]
Reach = Annotated[float, typer.Option(help="Integers span -reach to reach, in the data's own units.")]
Rounding = Annotated[str, typer.Option(help="stochastic or nearest.")]
Batch = Annotated[float, typer.Option(help="Samples a step.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]
FigureFile = Annotated[Path | None, typer.Option("--figure", help="Write the figure here (png, pdf, svg).")]


@app.command("risk")
def risk_command(
    size: Annotated[float, typer.Option(help="Features M: a whole number up to 4096, or any larger one.")] = 1000,
    exponent: Exponent = 1.5,
    source: Source = None,
    noise: Noise = 0.1,
    data: Annotated[Path | None, typer.Option(help="CSV file to estimate the problem from instead.")] = None,
    target: Annotated[str | None, typer.Option(help="Label column of the CSV file.")] = None,
    kind: Kind = "additive",
    bits: Bits = "4,6,8,inf",
    sites: Sites = "all",
    reach: Reach = 4.0,
    rounding: Rounding = "stochastic",
    steps: Annotated[str, typer.Option(help="SGD steps N, as in 1e4,1e6.")] = "1e4,1e6,1e8",
    step: Annotated[float, typer.Option(help="First step size, as a fraction of the stability limit.")] = 0.5,
    schedule: Annotated[str, typer.Option(help="geometric or constant.")] = "geometric",
    batch: Batch = 1.0,
    average: Annotated[float, typer.Option(help="Average this last fraction of the iterates.")] = 0.0,
    figure: FigureFile = None,
    as_json: AsJson = False,
) -> None:
    """Exact risk of one-pass SGD with quantizers, and its parts."""
    _check(exponent, source, noise, kind, reach, rounding, batch)
    check_all(size=size, step=step, average=average)
    widths, times, chosen = _bits(bits, kind), _counts("--steps", steps), _sites(sites)
    choice("--schedule", schedule, ("geometric", "constant"))
    writable("--figure", figure, PICTURES, data)
    rows_of_data = None
    if data is not None:
        frame = columns_of(data, target)
        rows_of_data = frame.drop(columns=target).to_numpy(), frame[target].to_numpy()
    elif target is not None:
        raise ProblemError("--target needs --data FILE.csv")

    start()
    from replicajax.cli import _risks

    problem = _risks.problem_of(size, exponent, source, noise, rows_of_data)
    precisions = {width: _risks.precision_of(kind, width, chosen, reach, rounding) for width in widths}
    with Progress(f"exact risks at {len(widths) * len(times)} points"):
        rows = _risks.risk_rows(problem, precisions, times, step, schedule, batch, average)
    if as_json:
        from replicajax.cli._show import print_json

        print_json({"size": float(problem.size), "noise": float(problem.noise), "kind": kind, "risks": rows})
    else:
        out.print(_risks.risk_table(problem, kind, rows))
        if not all(row["stable"] for row in rows):
            out.print("[bold]remark[/]: a step beyond the limit is unstable; its risk grows without bound")
    if figure is not None:
        _risks.draw_risk(rows, figure, float(problem.noise), kind)
        if not as_json:
            written("figure", figure)


@app.command("fit")
def fit_command(
    runs: Annotated[
        Path | None, typer.Argument(help="CSV with columns size, steps, risk. Left out: theory's own.")
    ] = None,
    noise: Noise = 0.1,
    exponent: Exponent = 1.5,
    source: Source = None,
    kind: Kind = "additive",
    bits: Annotated[float, typer.Option(help="Bits of every site, or inf.")] = float("inf"),
    sites: Sites = "data",
    reach: Reach = 4.0,
    rounding: Rounding = "stochastic",
    floor: Annotated[bool, typer.Option("--floor", help="Fit a constant floor too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Constants and exponents of risk - noise = A M^-p + B (N/log2 N)^-q, from runs or from exact risks."""
    _check(exponent, source, noise, kind, reach, rounding)
    check("mantissa", bits, "--bits")
    chosen, frame = _sites(sites), None
    if runs is not None:
        frame = read_csv(runs)
        missing = [name for name in ("size", "steps", "risk") if name not in frame]
        if missing:
            raise ProblemError(f"{runs} must have columns size, steps, risk; missing: {', '.join(missing)}")
        if not (frame.risk > noise).all():
            raise ProblemError(f"{runs}: every risk must exceed --noise {noise:g}; the least is {frame.risk.min():g}")

    start()
    from replicajax import scaling
    from replicajax.cli import _risks

    with Progress("law of the runs" if frame is not None else "exact risks of 49 runs"):
        if frame is None:
            size, steps, excess = _risks.exact_excess(
                _risks.precision_of(kind, bits, chosen, reach, rounding), exponent, source, noise
            )
            where = f"exact risks of {size.size} runs, M 200 to 2e5, N 1e4 to 1e8"
            power = (source or exponent) - 1
            theory = {"model_exponent": f"{power:.4g}", "data_exponent": f"{power / exponent:.4g}"}
        else:
            size, steps, risk = (frame[name].to_numpy() for name in ("size", "steps", "risk"))
            excess, where, theory = risk - noise, f"{runs}: {len(frame)} runs", None
        law = scaling.fit_law(size, steps, excess, floor=floor)
    found: dict[str, Any] = {name: float(value) for name, value in law._asdict().items()}
    found["converged"] = bool(law.converged)
    if as_json:
        from replicajax.cli._show import print_json

        print_json({"from": where, **found})
    else:
        out.print(_risks.fit_table(where, found, floor, theory))
    if not found["converged"]:
        raise typer.Exit(1)


@app.command("allocate")
def allocate_command(
    budget: Annotated[str, typer.Option(help="What may be spent, as in 1e9,1e11,1e13.")] = "1e9,1e11,1e13",
    costs: Annotated[
        Path | None, typer.Option(help="TOML file: bits, price[, macs, memory]. Default: (bits/16)^2.")
    ] = None,
    exponent: Exponent = 1.5,
    source: Source = None,
    noise: Noise = 0.1,
    kind: Kind = "additive",
    bits: Annotated[str, typer.Option(help="Fewest and most bits, as in 2-12.")] = "2-20",
    sites: Sites = "all",
    reach: Reach = 4.0,
    rounding: Rounding = "stochastic",
    batch: Batch = 1.0,
    figure: FigureFile = None,
    as_json: AsJson = False,
) -> None:
    """Divide a budget among model size, data and bits: the least exact risk, by gradients."""
    _check(exponent, source, noise, kind, reach, rounding, batch)
    chosen, budgets = _sites(sites), sorted(_counts("--budget", budget))  # one too small is refused before any work
    readable("--costs", costs)
    writable("--figure", figure, PICTURES, costs)
    try:
        low, high = (float(x) for x in bits.split("-"))
        if not 1 <= low < high < math.inf:
            raise ValueError
    except ValueError:
        raise ProblemError(f"--bits must be a range such as 2-12, from 1 on, got {bits!r}") from None

    start()
    from replicajax import scaling
    from replicajax.cli import _risks
    from replicajax.search import TrainingCost, allocate_budget

    cost = TrainingCost() if costs is None else TrainingCost.from_toml(costs)

    def problem(M):
        return scaling.power_law(M, exponent, source=source, noise=noise)

    def precision(b):
        return scaling.of_bits(kind, b[0], reach=reach, rounding=rounding, sites=chosen)

    rows = []
    with Progress("budgets") as progress:
        progress.stage("budgets", len(budgets))
        for each in budgets:
            split = allocate_budget(problem, precision, cost, each, bits=[(low, high)], batch=batch)
            rows.append(_risks.split_row(each, split))
            progress.advance()
    if as_json:
        from replicajax.cli._show import print_json

        print_json({"kind": kind, "noise": noise, "splits": rows})
    else:
        out.print(_risks.split_table(kind, rows))
    if figure is not None:
        _risks.draw_frontier(rows, figure)
        if not as_json:
            written("figure", figure)
    if not all(row["converged"] for row in rows):
        err.print("replicajax: a search did not converge; its row is the best point it saw")
        raise typer.Exit(1)


def _check(exponent, source, noise, kind, reach, rounding, batch=1.0) -> None:
    check("spectrum", exponent, "--exponent")
    check_all(source=source, noise=noise, reach=reach, batch=batch)
    choice("--kind", kind, KINDS)
    choice("--rounding", rounding, ROUNDINGS)


def _bits(text: str, kind: str) -> list[float]:
    least = 1 if kind == "additive" else 0
    return numbers("--bits", text, f"numbers from {least} on, or inf,", lambda x: x >= least)


def _counts(flag: str, text: str) -> list[float]:
    return numbers(flag, text, "finite numbers from 1 on", lambda x: 1 <= x < math.inf)


def _sites(text: str) -> tuple[str, ...]:
    if text == "all":
        return SITES
    sites = tuple(text.split(","))
    if not set(sites) <= set(SITES):
        raise ProblemError(f"--sites must be all or some of {', '.join(SITES)}, got {text!r}")
    return sites
