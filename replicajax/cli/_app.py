"""`replicajax solve` and `replicajax optimize`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from replicajax import codebook, optimal_ridge, power, ridge_regression, solve, uniform
from replicajax.cli._problem import BUNDLED, Problem, ProblemError, default_beta, from_data, from_numbers, from_toml
from replicajax.plot import WidthCurve, plot_widths
from replicajax.search import HeldOut, OptimalWidth, measure_widths, optimal_width

app = typer.Typer(
    help="Theory of learning with quantized weights: which width, how many bits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(soft_wrap=True), Console(stderr=True)

Data = Annotated[str | None, typer.Option(help=f"CSV file, or one of {', '.join(BUNDLED)}.")]
Target = Annotated[str | None, typer.Option(help="Label column of the CSV file.")]
ProblemFile = Annotated[Path | None, typer.Option("--problem", help="TOML file with alpha, signal, noise, ...")]
Alpha = Annotated[float | None, typer.Option(help="Training rows per feature. With data: 0.8 of what there is.")]
Signal = Annotated[float | None, typer.Option(help="Variance of a teacher weight (default 1).")]
Noise = Annotated[float | None, typer.Option(help="Variance of the label noise (default 0.1).")]
Ridge = Annotated[float | None, typer.Option(help="Coefficient of |w|²/2 (default 0).")]
Beta = Annotated[float | None, typer.Option(help="Inverse temperature, or inf (default 1/noise).")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]
Figure = Annotated[Path | None, typer.Option(help="Write the test error against width here (png, pdf, svg).")]

_GRID = np.geomspace(0.1, 8.0, 81)
_MEASURED = np.geomspace(0.4, 4.0, 9)
"""Widths drawn and measured, in units of the teacher's standard deviation."""


def main() -> None:
    """Entry point: computes in float64; a mistake of the user's is one line on standard error and exit code 2."""
    jax.config.update("jax_enable_x64", True)
    try:
        app()
    except (ProblemError, ValueError, TypeError) as error:
        err.print(f"[bold red]replicajax:[/] {' '.join(str(error).split())}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        err.print("replicajax: interrupted")
        raise SystemExit(130) from None


@app.command("solve")
def solve_command(
    data: Data = None,
    target: Target = None,
    problem: ProblemFile = None,
    alpha: Alpha = None,
    signal: Signal = None,
    noise: Noise = None,
    ridge: Ridge = None,
    beta: Beta = None,
    bits: Annotated[int | None, typer.Option(help="Bits of a uniform codebook (default 2).")] = None,
    width: Annotated[float | None, typer.Option(help="Largest level (default: the best one).")] = None,
    exponent: Annotated[float | None, typer.Option(help="Power-law codebook; 1 is uniform.")] = None,
    levels: Annotated[str | None, typer.Option(help="Any levels, as in --levels=-1,0,1.")] = None,
    as_json: AsJson = False,
) -> None:
    """Solve the theory at one codebook and print every observable."""
    found, extra = _problem(data, target, problem, alpha, signal, noise, ridge)
    beta = _first(beta, extra.get("beta"), default_beta(found.task))
    bits, width, exponent = (
        _first(*pair)
        for pair in ((bits, extra.get("bits"), 2), (width, extra.get("width")), (exponent, extra.get("exponent"), 1.0))
    )
    if levels is not None:
        book = codebook(_numbers("levels", levels))
    else:
        if width is None:
            width = float(optimal_width(found.task, bits, beta).width)
        book = power(bits, width, exponent)
    solution = solve(found.task, book, beta)
    if as_json:
        _print_json({"problem": found.name, "beta": beta, "levels": book.levels, **_observables(solution)})
    else:
        out.print(f"[bold]{found.name}[/]", highlight=False)
        out.print(str(solution), highlight=False)
    if not solution.converged:
        raise typer.Exit(1)


@app.command()
def optimize(
    data: Data = None,
    target: Target = None,
    problem: ProblemFile = None,
    alpha: Alpha = None,
    signal: Signal = None,
    noise: Noise = None,
    ridge: Ridge = None,
    beta: Beta = None,
    bits: Annotated[str, typer.Option(help="Bit widths to try, as in 1-4 or 2,3,8.")] = "1-4",
    factor: Annotated[float, typer.Option(help="Acceptable error, as a multiple of the unquantized one.")] = 1.1,
    require_stable: Annotated[bool, typer.Option("--require-stable", help="Only widths with replicon > 0.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Also measure held-out rows by Gibbs sampling.")] = False,
    splits: Annotated[int, typer.Option(help="Random train/test splits to measure.")] = 8,
    sweeps: Annotated[int, typer.Option(help="Gibbs sweeps per measurement.")] = 400,
    rotate: Annotated[bool, typer.Option(help="Measure in randomly rotated axes, or in the principal ones.")] = True,
    seed: Annotated[int, typer.Option(help="Of the splits and the sampler.")] = 0,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Find the quantization width, and the cheapest bits, that minimise generalisation error."""
    found, extra = _problem(data, target, problem, alpha, signal, noise, ridge)
    beta = _first(beta, extra.get("beta"), default_beta(found.task))
    tried = _bits(bits)
    if measure and found.X is None:
        raise ProblemError("--measure needs data: give --data FILE.csv --target COLUMN, or a bundled set")
    if measure and math.isinf(beta):
        raise ProblemError("--measure needs a finite --beta: the Gibbs sampler has no zero temperature")
    if figure is not None and (figure.suffix[1:] not in {"png", "pdf", "svg"} or not figure.absolute().parent.is_dir()):
        raise ProblemError(f"--figure must end in .png, .pdf or .svg in a folder that exists, got {figure}")
    if factor < 1:
        raise ProblemError(f"--factor must be at least 1, got {factor:g}")

    unit = float(jnp.sqrt(found.task.signal))
    baseline_ridge = float(optimal_ridge(found.task))
    baseline = ridge_regression(found.task, baseline_ridge)
    best: dict[int, OptimalWidth] = {}
    measured: dict[int, HeldOut] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:
        bar = progress.add_task("theory", total=len(tried) * (1 + measure * splits))
        for b in tried:
            progress.update(bar, description=f"theory, {b} bits")
            best[b] = optimal_width(found.task, b, beta, require_stable=require_stable)
            progress.advance(bar)
            if measure:
                assert found.X is not None
                assert found.y is not None
                progress.update(bar, description=f"held-out rows, {b} bits")
                measured[b] = measure_widths(
                    found.X,
                    found.y,
                    b,
                    _MEASURED * unit,
                    beta,
                    alpha=float(found.task.alpha),
                    ridge=float(found.task.ridge),
                    baseline_ridge=baseline_ridge,
                    splits=splits,
                    sweeps=sweeps,
                    seed=seed,
                    rotate=rotate,
                    tick=lambda: progress.advance(bar),
                )
    baseline_error = float(baseline.generalization_error)
    enough = [b for b in tried if best[b].converged and float(best[b].generalization_error) <= factor * baseline_error]
    cheapest = enough[0] if enough else None
    if figure is not None:
        _draw(figure, found, beta, tried, best, measured, unit, float(baseline.test_error))
    if as_json:
        _print_json(_report(found, beta, baseline, best, measured, factor, cheapest, figure))
    else:
        _print_table(found, beta, baseline, best, measured, unit, factor, cheapest, figure)
    if not all(b.converged for b in best.values()):
        raise typer.Exit(1)


def _problem(data, target, toml, alpha, signal, noise, ridge) -> tuple[Problem, dict[str, Any]]:
    """The problem, and what else a TOML file says; flags override the file."""
    if data is not None:
        if toml is not None or signal is not None or noise is not None:
            raise ProblemError("--data estimates signal and noise itself: leave out --problem, --signal and --noise")
        return from_data(data, target, alpha, ridge), {}
    if target is not None:
        raise ProblemError("--target needs --data FILE.csv")
    extra = from_toml(toml) if toml is not None else {}
    numbers = {"alpha": alpha, "signal": signal, "noise": noise, "ridge": ridge}
    return from_numbers(**{k: _first(v, extra.get(k)) for k, v in numbers.items()}), extra


def _first(*values):
    return next((v for v in values if v is not None), None)


def _bits(text: str) -> list[int]:
    try:
        spans = [[int(x) for x in part.split("-")] for part in text.split(",")]
        values = sorted({b for span in spans for b in range(span[0], span[-1] + 1) if len(span) <= 2})
    except ValueError:
        values = []
    if not values or values[0] < 1 or values[-1] > 8:
        raise ProblemError(f"--bits must be whole numbers from 1 to 8, as in 1-4 or 2,3,8, got {text!r}")
    return values


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise ProblemError(f"--{name} must be numbers separated by commas, got {text!r}") from None


def _observables(solution) -> dict[str, Any]:
    names = (
        "overlap self_overlap replica_overlap susceptibility generalization_error gibbs_error test_error training_error "
        "free_energy entropy rate replicon stable interpolates converged steps"
    )
    return {name: getattr(solution, name) for name in names.split()}


def _report(found, beta, baseline, best, measured, factor, cheapest, figure) -> dict[str, Any]:
    task = found.task
    rows = []
    for bits, b in best.items():
        row = {"bits": bits, "width": b.width, "minima": b.minima, "at_edge": b.at_edge}
        row |= {
            "at_stability_limit": b.at_stability_limit,
            "ratio": b.generalization_error / baseline.generalization_error,
        }
        row |= _observables(b.solution) | {"converged": b.converged}
        if bits in measured:
            m = measured[bits]
            row["measured"] = {"width": m.widths, "error": m.error, "standard_error": m.standard_error}
            row["measured"] |= {"best_width": m.best_width, "ridge_error": m.ridge_errors.mean()}
        rows.append(row)
    return {
        "problem": found.name,
        "task": {"alpha": task.alpha, "signal": task.signal, "noise": task.noise, "ridge": task.ridge},
        "beta": beta,
        "unquantized": {"ridge": baseline.ridge, "generalization_error": baseline.generalization_error},
        "results": rows,
        "factor": factor,
        "cheapest_bits": cheapest,
        "figure": None if figure is None else str(figure),
    }


def _print_json(value: Any) -> None:
    def plain(x):
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [plain(v) for v in x]
        if hasattr(x, "tolist"):
            x = x.tolist()
        if isinstance(x, list):
            return [plain(v) for v in x]
        # JSON has no infinity: null where the theory says inf or NaN.
        return None if isinstance(x, float) and not math.isfinite(x) else x

    print(json.dumps(plain(value), indent=2, allow_nan=False))


def _print_table(found, beta, baseline, best, measured, unit, factor, cheapest, figure) -> None:
    task = found.task
    out.print(f"[bold]{found.name}[/]", highlight=False)
    out.print(
        f"alpha {task.alpha:.4g} rows per feature, signal {task.signal:.4g}, noise {task.noise:.4g}, "
        f"ridge {task.ridge:.4g}, beta {beta:.4g}",
        highlight=False,
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    heads = ["bits", "width", "width/σ", "error", "ratio", "replicon", "phase"]
    heads += ["measured/σ", "error"] if measured else []
    for head in heads:
        table.add_column(head, justify="left" if head == "phase" else "right", no_wrap=True)
    for bits, b in best.items():
        s = b.solution
        if not b.converged:
            table.add_row(
                str(bits), "–", "–", "–", "–", "–", "no stable width" if jnp.isnan(b.width) else "not converged"
            )
            continue
        phase = "stable" if s.stable else "unstable"
        phase += ", limit" if b.at_stability_limit else ", at range end" if b.at_edge else ""
        ratio = b.generalization_error / baseline.generalization_error
        row = [str(bits), f"{b.width:.4f}", f"{b.width / unit:.2f}", f"{s.test_error:.4f}", f"{ratio:.3f}"]
        row += [f"{s.replicon:.3f}", phase]
        if bits in measured:
            m = measured[bits]
            i = int(jnp.argmin(m.error))
            row += [f"{m.best_width / unit:.2f}", f"{m.error[i]:.3f} ± {m.standard_error[i]:.3f}"]
        table.add_row(*row, style="bold green" if bits == cheapest else None)
    ridge_row = ["real", "–", "–", f"{baseline.test_error:.4f}", "1.000", "", "ridge"]
    if measured:
        errors = np.asarray(next(iter(measured.values())).ridge_errors)
        ridge_row += ["", f"{errors.mean():.3f} ± {errors.std(ddof=1) / math.sqrt(len(errors)):.3f}"]
    table.add_row(*ridge_row)
    out.print(table)
    out.print(
        "error: mean squared test error; ratio: error less noise, over that of the best unquantized (ridge) fit; "
        "σ = √signal.",
        style="dim",
        highlight=False,
    )
    if cheapest is None:
        out.print(f"No bit width tried comes within {factor:g} × the unquantized error.", highlight=False)
    else:
        b = best[cheapest]
        out.print(
            f"Cheapest within {factor:g} ×: [bold]{cheapest} bit{'s' * (cheapest > 1)}[/], width [bold]{b.width:.4f}[/].",
            highlight=False,
        )
    if measured:
        m = next(iter(measured.values()))
        out.print(
            f"Measured on {m.errors.shape[0]} random splits, {m.training_rows} rows to train, {m.held_out_rows} held out; "
            f"widths stepped by a factor {_MEASURED[1] / _MEASURED[0]:.2f}.",
            highlight=False,
        )
    if figure is not None:
        out.print(f"Figure: {figure}", highlight=False, soft_wrap=True)


def _draw(path: Path, found, beta, tried: Sequence[int], best, measured, unit: float, baseline: float) -> None:
    import matplotlib.pyplot as plt

    curves = []
    for bits in tried:
        grid = jnp.asarray(_GRID * unit)
        batch = max(1, 2 ** (13 - 2 * bits))
        s = jax.lax.map(
            lambda w, b=bits: solve(found.task, uniform(b, w), beta), grid, batch_size=min(batch, len(grid))
        )
        width, error = float(best[bits].width), float(best[bits].solution.test_error)
        errors = np.where(np.asarray(s.converged), np.asarray(s.test_error), np.nan)
        curves.append(WidthCurve(bits, _GRID * unit, errors.tolist(), np.asarray(s.stable).tolist(), width, error))
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    plot_widths(axes, curves, unit=unit, baseline=baseline, measured=measured)
    task = found.task
    axes.set_title(
        f"{found.name}\nalpha {task.alpha:.3g}, signal {task.signal:.3g}, noise {task.noise:.3g}, beta {beta:.3g}",
        fontsize=9,
    )
    figure.savefig(path, dpi=160)
    plt.close(figure)
