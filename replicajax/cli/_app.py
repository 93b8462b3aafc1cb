"""The commands: solve, optimize, amp, phase-diagram, plot, formats, allocate, scaling."""

import math
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from replicajax import Codebook, codebook, open_sweep, optimal_ridge, phase_diagram, power, ridge_regression, solve
from replicajax import formats as weight_formats
from replicajax.cli._formats import (
    allocation_rows,
    compare_formats,
    draw_formats,
    law_of,
    limits,
    print_allocation,
    print_formats,
)
from replicajax.cli._problem import BUNDLED, Problem, ProblemError, default_beta, from_data, from_numbers, from_toml
from replicajax.cli._scaling import app as scaling_app
from replicajax.cli._show import (
    draw,
    err,
    observables,
    out,
    print_json,
    print_table,
    print_trained,
    report,
    trained_report,
)
from replicajax.cli._sweep import as_json as sweep_json
from replicajax.cli._sweep import axis, check_figure, draw_sweep, fixed, print_summary
from replicajax.search import OptimalWidth, fewest_bits, optimal_width
from replicajax.trials import HeldOut, measure_widths, train

app = typer.Typer(
    help="Theory of learning with quantized weights: which width, how many bits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(scaling_app, name="scaling")

Data = Annotated[str | None, typer.Option(help=f"CSV file, or one of {', '.join(BUNDLED)}.")]
Target = Annotated[str | None, typer.Option(help="Label column of the CSV file.")]
ProblemFile = Annotated[Path | None, typer.Option("--problem", help="TOML file with alpha, signal, noise, ...")]
Alpha = Annotated[float | None, typer.Option(help="Training rows per feature. With data: 0.8 of what there is.")]
Signal = Annotated[float | None, typer.Option(help="Variance of a teacher weight (default 1).")]
Noise = Annotated[float | None, typer.Option(help="Variance of the label noise (default 0.1).")]
Ridge = Annotated[float | None, typer.Option(help="Coefficient of |w|²/2 (default 0).")]
Beta = Annotated[float | None, typer.Option(help="Inverse temperature, or inf (default 1/noise).")]
Bits = Annotated[int | None, typer.Option(help="Bits of a uniform codebook (default 2).")]
Width = Annotated[float | None, typer.Option(help="Largest level (default: the best one).")]
Exponent = Annotated[float | None, typer.Option(help="Power-law codebook; 1 is uniform.")]
Levels = Annotated[str | None, typer.Option(help="Any levels, as in --levels=-1,0,1.")]
Rotate = Annotated[bool, typer.Option(help="Quantize in randomly rotated axes, or in the principal ones.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]
Figure = Annotated[Path | None, typer.Option(help="Write the figure here (png, pdf, svg).")]

_MEASURED = np.geomspace(0.4, 4.0, 9)
"""Widths measured, in units of the teacher's standard deviation."""


def main() -> None:
    """Entry point: computes in float64; a mistake of the user's is one line on standard error and exit code 2."""
    jax.config.update("jax_enable_x64", True)
    try:
        app()
    except (ProblemError, ValueError, TypeError, FileNotFoundError) as error:
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
    bits: Bits = None,
    width: Width = None,
    exponent: Exponent = None,
    levels: Levels = None,
    as_json: AsJson = False,
) -> None:
    """Solve the theory at one codebook and print every observable."""
    found, extra = _problem(data, target, problem, alpha, signal, noise, ridge)
    heat: float = _first(beta, extra.get("beta"), default_beta(found.task))
    book = _book(found.task, heat, extra, bits, width, exponent, levels)
    solution = solve(found.task, book, heat)
    if as_json:
        print_json({"problem": found.name, "beta": heat, "levels": book.levels, **observables(solution)})
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
    rotate: Rotate = True,
    seed: Annotated[int, typer.Option(help="Of the splits and the sampler.")] = 0,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Find the quantization width, and the cheapest bits, that minimise generalisation error."""
    found, extra = _problem(data, target, problem, alpha, signal, noise, ridge)
    heat: float = _first(beta, extra.get("beta"), default_beta(found.task))
    tried = _bits(bits)
    if measure and found.X is None:
        raise ProblemError("--measure needs data: give --data FILE.csv --target COLUMN, or a bundled set")
    if measure and math.isinf(heat):
        raise ProblemError("--measure needs a finite --beta: the Gibbs sampler has no zero temperature")
    check_figure(figure)
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
            best[b] = optimal_width(found.task, b, heat, require_stable=require_stable)
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
                    heat,
                    alpha=float(found.task.alpha),
                    ridge=float(found.task.ridge),
                    baseline_ridge=baseline_ridge,
                    splits=splits,
                    sweeps=sweeps,
                    seed=seed,
                    rotate=rotate,
                    tick=lambda: progress.advance(bar),
                )
    cheapest = fewest_bits(best, factor * float(baseline.generalization_error))
    if figure is not None:
        draw(figure, found, heat, tried, best, measured, unit, float(baseline.test_error))
    if as_json:
        print_json(report(found, heat, baseline, best, measured, factor, cheapest, figure))
    else:
        print_table(out, found, heat, baseline, best, measured, unit, factor, cheapest, figure)
    if not all(b.converged for b in best.values()):
        raise typer.Exit(1)


@app.command("amp")
def amp_command(
    data: Data = None,
    target: Target = None,
    alpha: Alpha = None,
    ridge: Ridge = None,
    beta: Beta = None,
    bits: Bits = None,
    width: Width = None,
    exponent: Exponent = None,
    levels: Levels = None,
    iterations: Annotated[int, typer.Option(help="Most iterations of AMP.")] = 500,
    damping: Annotated[float, typer.Option(help="Fraction of the old weights AMP keeps, in [0, 1).")] = 0.0,
    sweeps: Annotated[int, typer.Option(help="Sweeps of the Gibbs sampler.")] = 1000,
    rotate: Rotate = True,
    seed: Annotated[int, typer.Option(help="Of the split and the sampler.")] = 0,
    file: Annotated[Path | None, typer.Option("--out", help="Write codes, levels and axes here (.npz).")] = None,
    as_json: AsJson = False,
) -> None:
    """Train quantized weights on rows of data by message passing and by sampling, and compare with theory."""
    if data is None:
        raise ProblemError("amp needs data: give --data FILE.csv --target COLUMN, or a bundled set")
    if file is not None and (file.suffix != ".npz" or not file.absolute().parent.is_dir()):
        raise ProblemError(f"--out must end in .npz in a folder that exists, got {file}")
    found, extra = _problem(data, target, None, alpha, None, None, ridge)
    heat: float = _first(beta, default_beta(found.task))
    if math.isinf(heat):
        raise ProblemError("amp needs a finite --beta: the Gibbs sampler beside it has no zero temperature")
    assert found.X is not None
    assert found.y is not None
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:
        progress.add_task("best width" if width is None and levels is None else "training", total=None)
        book = _book(found.task, heat, extra, bits, width, exponent, levels)
        progress.update(progress.task_ids[0], description="training")
        effort = {"iterations": iterations, "damping": damping, "sweeps": sweeps}
        trained = train(found.X, found.y, book, heat, task=found.task, rotate=rotate, seed=seed, **effort)
    if file is not None:
        trained.save(file, found.y_scale, found.y_mean)
    if as_json:
        print_json(trained_report(found, trained, file))
    else:
        print_trained(out, found, trained, file)
    if not (trained.amp.converged and trained.solution.converged):
        raise typer.Exit(1)


@app.command("phase-diagram")
def phase_diagram_command(
    alpha: Annotated[str, typer.Option(help="Rows per weight: a number, 1,2,4, or 0.3:4:64[:log].")],
    width: Annotated[str, typer.Option(help="Largest level, in the same way.")],
    bits: Annotated[str, typer.Option(help="Bits, as in 3, 1,2,4 or 1-4.")] = "2",
    exponent: Annotated[str, typer.Option(help="Power-law codebook; 1 is uniform.")] = "1",
    beta: Annotated[str | None, typer.Option(help="Inverse temperature, inf allowed (default 1/noise).")] = None,
    signal: Annotated[str, typer.Option(help="Variance of a teacher weight.")] = "1",
    noise: Annotated[str, typer.Option(help="Variance of the label noise.")] = "0.1",
    ridge: Annotated[str, typer.Option(help="Coefficient of |w|²/2.")] = "0",
    optimum: Annotated[str | None, typer.Option(help="Axis whose best value is refined on every slice.")] = None,
    gradient: Annotated[list[str] | None, typer.Option(help="Parameter to differentiate eg in (repeatable).")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder for the result (zarr); resumes what is there.")] = None,
    variable: Annotated[str, typer.Option(help="What --figure shows.")] = "generalization_error",
    figure: Annotated[Path | None, typer.Option(help="Write a picture here (png, pdf, svg).")] = None,
    json_only: AsJson = False,
) -> None:
    """Solve the theory on a grid of any parameters; resumable, with progress on standard error."""
    check_figure(figure)
    names = {"alpha": alpha, "width": width, "bits": bits, "exponent": exponent, "beta": beta}
    names |= {"signal": signal, "noise": noise, "ridge": ridge}
    values = {name: axis(name, text) for name, text in names.items() if text is not None}
    axes = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    if not axes:
        raise ProblemError("phase-diagram needs at least one axis, such as --alpha 0.3:4:64; for one point use solve")
    numbers = {name: value for name, value in values.items() if name not in axes}
    task_values: dict[str, Any] = {name: numbers.get(name, 1.0) for name in ("alpha", "signal", "noise", "ridge")}
    task = from_numbers(**task_values).task
    if "beta" not in values:
        numbers["beta"] = default_beta(task)
    book: dict[str, Any] = {name: numbers.get(name) for name in ("bits", "width", "exponent", "beta")}
    start = perf_counter()
    dataset = phase_diagram(
        task,
        **book,
        axes=axes,
        optimum=optimum,
        gradients=gradient or (),
        store=store,
        progress=False if json_only else None,
    )
    rate = dataset.generalization_error.size / (perf_counter() - start)
    if figure is not None:
        draw_sweep(dataset, variable, figure)
    written = [path for path in (store, figure) if path is not None]
    if json_only:
        print(sweep_json(dataset, written))
    else:
        print_summary(out, dataset, rate, written)
    if not bool(dataset.converged.all()):
        raise typer.Exit(1)


@app.command("plot")
def plot_command(
    sweep: Annotated[Path, typer.Argument(help="A folder written by phase-diagram --store.")],
    figure: Annotated[Path, typer.Option(help="Write the picture here (png, pdf, svg).")],
    variable: Annotated[str, typer.Option(help="What to show.")] = "generalization_error",
    at: Annotated[list[str] | None, typer.Option(help="Fix an axis, as in bits=3 (repeatable).")] = None,
) -> None:
    """Draw a saved sweep: one axis as a line, two as a heat map."""
    check_figure(figure)
    dataset = fixed(open_sweep(sweep), at or [])
    draw_sweep(dataset, variable, figure)
    print_summary(out, dataset, None, [figure])


@app.command("formats")
def formats_command(
    distribution: Annotated[str, typer.Option(help="Law of the weights: normal, laplace or student-t.")] = "normal",
    df: Annotated[float | None, typer.Option(help="Degrees of freedom of student-t (default 5).")] = None,
    bits: Annotated[str, typer.Option(help="Element bits, as in 2-5 or 3,4.")] = "3-5",
    block_size: Annotated[int, typer.Option(help="Weights that share a scale.")] = 64,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Compare weight formats for a distribution: exact error, bits, and how far from the limits."""
    check_figure(figure)
    law, widths = law_of(distribution, df), _bits(bits)
    rows, lines = compare_formats(law, widths, block_size), limits(law)
    if figure is not None:
        draw_formats(law, rows, lines, figure)
    if as_json:
        entries = [row._asdict() | {"figure_of_merit": row.figure_of_merit} for row in rows]
        print_json({"distribution": str(law), "formats": entries, "limits": lines})
        return
    print_formats(law, rows, lines, out)
    if figure is not None:
        out.print(f"figure: {figure}")


@app.command("allocate")
def allocate_command(
    weights: Annotated[Path, typer.Argument(help="Weights: a .safetensors or .npz file.")],
    fisher: Annotated[
        Path | None, typer.Option(help="Diagonal Fisher information: a file of the same tensors.")
    ] = None,
    bits: Annotated[float, typer.Option(help="Bits per weight on average.")] = 4.0,
    minimum: Annotated[float, typer.Option(help="Fewest bits of a tensor.")] = 1.0,
    maximum: Annotated[float, typer.Option(help="Most bits of a tensor.")] = 8.0,
    whole: Annotated[bool, typer.Option("--whole", help="Whole bits, exactly optimal.")] = False,
    quantize: Annotated[Path | None, typer.Option(help="Write the codes here (.safetensors).")] = None,
    as_json: AsJson = False,
) -> None:
    """Divide bits among the tensors of a weight file so that the predicted KL is least."""
    if quantize is not None and quantize.suffix != ".safetensors":
        raise ProblemError(f"--quantize must end in .safetensors, got {quantize}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, disable=not sys.stderr.isatty(), transient=True) as bar:
        reading = bar.add_task("weights read", total=None)
        tensors = weight_formats.describe_weights(weights, fisher, lambda n: bar.advance(reading, n))
        plan = weight_formats.allocate(tensors, bits, minimum, maximum, whole)
        uniform = weight_formats.allocate_evenly(tensors, bits)
        size = None
        if quantize is not None:
            writing = bar.add_task("weights quantized", total=sum(t.count for t in plan.tensors))
            size = weight_formats.quantize_file(weights, quantize, plan, lambda n: bar.advance(writing, n))
    if as_json:
        total = {"divergence": plan.divergence.sum(), "uniform_divergence": uniform.divergence.sum(), "bytes": size}
        print_json({"tensors": allocation_rows(plan), "kept": [t.name for t in plan.kept], **total})
        return
    print_allocation(plan, uniform, out)
    if quantize is not None and size is not None:
        before = sum(t.count * t.dtype.itemsize for t in (*plan.tensors, *plan.kept))
        out.print(f"written: {quantize} ({before / 1e6:,.2f} MB of weights to {size / 1e6:,.2f} MB)")


def _book(task, beta: float, extra: dict[str, Any], bits, width, exponent, levels) -> Codebook:
    """The codebook of the flags, else of the file, else 2 bits; of the best width if none is given."""
    if levels is not None:
        return codebook(_numbers("levels", levels))
    size: int = _first(bits, extra.get("bits"), 2)
    reach: float | None = _first(width, extra.get("width"))
    bend: float = _first(exponent, extra.get("exponent"), 1.0)
    return power(size, float(optimal_width(task, size, beta).width) if reach is None else reach, bend)


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


def _first(*values: Any) -> Any:
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
