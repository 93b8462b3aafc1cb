"""`replicajax scaling`: exact risk of low-precision training, the law it follows, and how to divide a budget."""

import sys
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from replicajax import scaling
from replicajax.cli._problem import ProblemError, read_csv
from replicajax.cli._show import err, out, print_json
from replicajax.cli._sweep import check_figure
from replicajax.search import Split, TrainingCost, allocate_budget

app = typer.Typer(help="Scaling laws of low-precision training.", no_args_is_help=True)

Exponent = Annotated[float, typer.Option(help="Spectrum of the features: variance i^-exponent.")]
Source = Annotated[float | None, typer.Option(help="Label variance along feature i: i^-source (default: exponent).")]
Noise = Annotated[float, typer.Option(help="Variance of the label noise.")]
Kind = Annotated[str, typer.Option(help="Error: additive (integers), multiplicative or elementwise (floats).")]
Bits = Annotated[
    str, typer.Option(help="Bits of every site (mantissa bits unless additive), as in 8 or 4,6,8; inf: none.")
]
Sites = Annotated[str, typer.Option(help=f"Quantized sites, of {', '.join(scaling.SITES)}, or all.")]
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
    check_figure(figure)
    problem = _problem(size, exponent, source, noise, data, target)
    widths, times, chosen = _numbers("bits", bits), _numbers("steps", steps), _sites(sites)
    if schedule not in ("geometric", "constant"):
        raise ProblemError(f"--schedule must be geometric or constant, got {schedule!r}")
    rows = []
    for width in widths:
        precision = _precision(kind, width, chosen, reach, rounding)
        first = step * scaling.step_limit(problem, precision, batch)
        for count in times:
            risk = scaling.sgd_risk(problem, precision, int(count), first, schedule, batch=batch, average=average)
            rows.append({"bits": width, "steps": int(count), "step_size": float(first)} | _parts(risk))
    if figure is not None:
        _draw_risk(rows, figure, float(problem.noise), kind)
    if as_json:
        print_json({"size": float(problem.size), "noise": float(problem.noise), "kind": kind, "risks": rows})
        return
    table = Table(
        title=f"risk of one-pass SGD, {float(problem.size):,.0f} features, {kind} errors", title_justify="left"
    )
    headings = ("bits", "steps", "risk", "approx.", "quant.", "bias", "variance", "step limit")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        parts = (row["approximation"], row["quantization"], row["bias"], row["variance"], row["step_limit"])
        cells = (f"{row['total']:.6g}", *(f"{x:.4g}" for x in parts))
        table.add_row("exact" if np.isinf(row["bits"]) else f"{row['bits']:g}", f"{row['steps']:.3g}", *cells)
    noise_is = f"risk = noise ({float(problem.noise):g}) + approximation + quantization + bias + variance"
    table.caption, table.caption_justify = noise_is, "left"
    out.print(table)
    if not all(row["stable"] for row in rows):
        out.print("[bold]remark[/]: a step beyond the limit is unstable; its risk grows without bound")
    if figure is not None:
        out.print(f"figure: {figure}")


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
    if runs is None:
        size, steps = (x.ravel() for x in np.meshgrid(np.geomspace(200, 2e5, 7), np.geomspace(1e4, 1e8, 7)))
        precision = _precision(kind, bits, _sites(sites), reach, rounding)

        @jax.jit
        def excess(M, N):
            problem = scaling.power_law(M, exponent, source=source, noise=noise)
            return scaling.sgd_risk(problem, precision, N, 0.5 * scaling.step_limit(problem, precision)).excess

        values = np.array([excess(M, N) for M, N in zip(size, steps, strict=True)])
        where = f"exact risks of {size.size} runs, M 200 to 2e5, N 1e4 to 1e8"
    else:
        frame = read_csv(runs)
        missing = [name for name in ("size", "steps", "risk") if name not in frame]
        if missing:
            raise ProblemError(f"{runs} must have columns size, steps, risk; missing: {', '.join(missing)}")
        size, steps, risk = (frame[name].to_numpy(float) for name in ("size", "steps", "risk"))
        values, where = risk - noise, f"{runs}: {len(frame)} runs"
        if not (values > 0).all():
            raise ProblemError(f"{runs}: every risk must exceed --noise {noise:g}; the least is {risk.min():g}")
    law = scaling.fit_law(size, steps, values, floor=floor)
    a = exponent
    found: dict[str, Any] = {name: float(value) for name, value in law._asdict().items()}
    found["converged"] = bool(law.converged)
    if as_json:
        print_json({"from": where, **found})
    else:
        table = Table(title=where, title_justify="left")
        for heading in ("", "fitted", *(["theory"] if runs is None else [])):
            table.add_column(heading, justify="right" if heading else "left")
        theory = {"model_exponent": f"{(source or a) - 1:.4g}", "data_exponent": f"{((source or a) - 1) / a:.4g}"}
        for name, value in found.items():
            if name == "converged" or (name == "floor" and not floor):
                continue
            shown = f"{value:.2%}" if name == "error" else f"{value:.5g}"
            table.add_row(name.replace("_", " "), shown, *([theory.get(name, "")] if runs is None else []))
        table.caption, table.caption_justify = (
            "risk - noise = A M^-p + B (N/floor(log2 N))^-q; error: rms of its log",
            "left",
        )
        out.print(table)
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
    check_figure(figure)
    chosen, budgets = _sites(sites), _numbers("budget", budget)
    cost = TrainingCost() if costs is None else TrainingCost.from_toml(costs)
    try:
        low, high = (float(x) for x in bits.split("-"))
    except ValueError:
        raise ProblemError(f"--bits must be a range such as 2-12, got {bits!r}") from None

    def problem(M):
        return scaling.power_law(M, exponent, source=source, noise=noise)

    def precision(b):
        return scaling.of_bits(kind, b[0], reach=reach, rounding=rounding, sites=chosen)

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, disable=not sys.stderr.isatty(), transient=True) as bar:
        splits = [
            allocate_budget(problem, precision, cost, each, bits=[(low, high)], batch=batch)
            for each in bar.track(budgets, description="budgets")
        ]
    rows = [_split_row(each, split) for each, split in zip(budgets, splits, strict=True)]
    if figure is not None:
        _draw_frontier(rows, figure)
    if as_json:
        print_json({"kind": kind, "noise": noise, "splits": rows})
    else:
        table = Table(title=f"least risk for a budget, {kind} errors", title_justify="left")
        for heading in ("budget", "features M", "steps N", "bits", "best bits", "step size", "risk", "risk - noise"):
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(
                f"{row['budget']:.3g}",
                f"{row['size']:,}",
                f"{row['steps']:,}",
                f"{row['bits']:g}",
                f"{row['relaxed_bits']:.2f}",
                f"{row['step_size']:.4g}",
                f"{row['risk']:.6g}",
                f"{row['excess']:.6g}",
            )
        table.caption, table.caption_justify = "best bits: before rounding to a whole number", "left"
        out.print(table)
        if figure is not None:
            out.print(f"figure: {figure}")
    if not all(row["converged"] for row in rows):
        err.print("replicajax: a search did not converge; its row is the best point it saw")
        raise typer.Exit(1)


def _problem(size, exponent, source, noise, data, target) -> scaling.Regression:
    if data is None:
        if target is not None:
            raise ProblemError("--target needs --data FILE.csv")
        return scaling.power_law(int(size) if size <= 4096 else size, exponent, source=source, noise=noise)
    frame = read_csv(data)
    if target is None or target not in frame:
        raise ProblemError(f"--target must be a column of {data}: {', '.join(frame.columns)}, got {target!r}")
    others = [c for c in frame.columns if c != target]
    return scaling.from_data(frame[others].to_numpy(float), frame[target].to_numpy(float))


def _precision(kind: str, bits: float, sites, reach: float, rounding: str) -> scaling.Precision:
    if np.isinf(bits):
        return scaling.Precision(kind)
    return scaling.of_bits(kind, bits, reach=reach, rounding=rounding, sites=sites)


def _parts(risk: scaling.SGDRisk) -> dict[str, Any]:
    names = ("total", "excess", "approximation", "quantization", "bias", "variance", "floor", "step_limit")
    return {name: float(getattr(risk, name)) for name in names} | {"stable": bool(risk.stable)}


def _split_row(budget: float, split: Split) -> dict[str, Any]:
    return {
        "budget": budget,
        "cost": split.cost,
        "size": split.size,
        "steps": split.steps,
        "bits": split.bits[0],
        "relaxed_bits": split.relaxed_bits[0],
        "step_size": split.step_size,
        "risk": float(split.risk.total),
        "excess": float(split.risk.excess),
        "converged": split.converged,
    }


def _sites(text: str) -> tuple[str, ...]:
    if text == "all":
        return scaling.SITES
    sites = tuple(text.split(","))
    if not set(sites) <= set(scaling.SITES):
        raise ProblemError(f"--sites must be all or some of {', '.join(scaling.SITES)}, got {text!r}")
    return sites


def _numbers(name: str, text: str) -> list[float]:
    try:
        values = [float(x) for x in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(x > 0 for x in values):
        raise ProblemError(f"--{name} must be positive numbers separated by commas, got {text!r}")
    return values


def _draw_risk(rows: list[dict[str, Any]], path: Path, noise: float, kind: str) -> None:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    for bits in dict.fromkeys(row["bits"] for row in rows):
        each = [row for row in rows if row["bits"] == bits]
        label = "exact" if np.isinf(bits) else f"{bits:g} bits"
        panel.loglog([r["steps"] for r in each], [r["excess"] for r in each], "o-", ms=4, label=label)
    panel.set(xlabel="steps N", ylabel=f"risk − noise (noise {noise:g})", title=f"{kind} errors")
    panel.grid(alpha=0.25)
    panel.legend(frameon=False)
    figure.savefig(path, dpi=160)


def _draw_frontier(rows: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    budget = [row["budget"] for row in rows]
    left.loglog(budget, [row["excess"] for row in rows], "o-")
    left.set(xlabel="budget", ylabel="least risk − noise")
    right.semilogx(budget, [row["bits"] for row in rows], "o", label="whole")
    right.semilogx(budget, [row["relaxed_bits"] for row in rows], "-", label="before rounding")
    right.set(xlabel="budget", ylabel="best bits")
    right.legend(frameon=False)
    for panel in (left, right):
        panel.grid(alpha=0.25)
    figure.savefig(path, dpi=160)
