"""The commands: those of the theory (solve, optimize, codebook, train, amp, predict, phase-diagram, plot), of weight files
(formats, allocate, recommend, dequantize, layer), of training budgets (scaling), and a page of all three (explore).

Every command has three parts: the request, checked whole in plain Python; `start`, which imports JAX; the answer.
"""

import atexit
import errno
import gc
import math
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from io import StringIO
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from replicajax.cli._console import complain, out, written
from replicajax.cli._engine import start
from replicajax.cli._loss import LOSSES, read_loss
from replicajax.cli._problem import BUNDLED, NOISE, ask, check_temperature, default_beta, pose, task_of
from replicajax.cli._progress import Progress
from replicajax.cli._refusal import refused
from replicajax.cli._request import (
    PICTURES,
    WEIGHTS,
    ProblemError,
    axis,
    check,
    checkpoint,
    choice,
    informed,
    level_list,
    numbers,
    readable,
    try_writing,
    whole_numbers,
    writable,
)
from replicajax.cli._scaling import app as scaling_app

app = typer.Typer(
    help="Theory of learning with quantized weights: which width, how many bits.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(scaling_app, name="scaling")

Data = Annotated[str | None, typer.Option(help=f"CSV file, or one of {', '.join(BUNDLED)}.")]
Target = Annotated[str | None, typer.Option(help="Label column of the CSV file: numbers, or two classes.")]
ProblemFile = Annotated[Path | None, typer.Option("--problem", help="TOML file with alpha, noise, loss, features, ...")]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="Training rows per feature. With data: so many at random, errors on the rest (default: see above)."
    ),
]
Signal = Annotated[float | None, typer.Option(help="Variance of a teacher weight (default 1).")]
Noise = Annotated[float | None, typer.Option(help="Variance of the label noise (default 0.1).")]
Ridge = Annotated[float | None, typer.Option(help="Coefficient of |w|²/2 (default 0).")]
Loss = Annotated[
    str | None,
    typer.Option(help=f"{LOSSES} (default square); the last three are of labels ±1, sign(teacher + noise)."),
]
Beta = Annotated[float | None, typer.Option(help="Inverse temperature, or inf (default 1/noise).")]
Bits = Annotated[int | None, typer.Option(help="Bits of a uniform codebook (default 2).")]
Width = Annotated[float | None, typer.Option(help="Largest level (default: the best one).")]
Exponent = Annotated[float | None, typer.Option(help="Power-law codebook; 1 is uniform.")]
Levels = Annotated[str | None, typer.Option(help="Any levels, as in --levels=-1,0,1.")]
Rotate = Annotated[bool, typer.Option(help="Quantize in randomly rotated axes, or in the principal ones.")]
Breaking = Annotated[
    str, typer.Option(help="Steps of replica symmetry breaking: 0, 1, or auto, where symmetry cannot be right.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]
Figure = Annotated[Path | None, typer.Option(help="Write the figure here (png, pdf, svg).")]

Seed = Annotated[int, typer.Option(help="Of the splits and the sampler.", min=0, max=2**32 - 1)]
Sweeps = Annotated[int, typer.Option(help="Gibbs sweeps per measurement.", min=1, max=10**9)]

LAWS = ("normal", "laplace", "student-t")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Entry point: a mistake of the user's is one line on standard error and exit code 2, a bug keeps its traceback."""
    # Imports make many objects and no garbage: looking for it, then and at the end, takes a fifth of a short command.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        status = 130
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        hint = "" if context is None else f" (see {context.command_path} --help)"
        status = complain(error.format_message().rstrip(".") + hint)
    except (ProblemError, ValueError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            sys.stdout = StringIO()  # or the interpreter, when it ends, tries once more
        elif not (isinstance(error, ProblemError) or refused(error)):
            raise
        status = complain(getattr(error, "strerror", None) or str(error))
    if status == 130:
        complain("interrupted")
    raise SystemExit(status)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"replicajax {version('replicajax')}")
        raise typer.Exit()


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and stop.")
    ] = False,
) -> None:
    """Theory of learning with quantized weights: which width, how many bits."""


@app.command("solve")
def solve_command(
    data: Data = None,
    target: Target = None,
    problem: ProblemFile = None,
    alpha: Alpha = None,
    signal: Signal = None,
    noise: Noise = None,
    ridge: Ridge = None,
    loss: Loss = None,
    beta: Beta = None,
    bits: Bits = None,
    width: Width = None,
    exponent: Exponent = None,
    levels: Levels = None,
    breaking: Breaking = "0",
    as_json: AsJson = False,
) -> None:
    """Solve the theory at one codebook and print every observable.

    Of data it is that of the rows themselves, each left out once where no --alpha is given.
    """
    numbers = {"alpha": alpha, "signal": signal, "noise": noise, "ridge": ridge, "beta": beta}
    named = None if loss is None else read_loss(loss)
    asked = ask(data, target, problem, named, **numbers, bits=bits, width=width, exponent=exponent)
    chosen = _levels(levels, asked)
    scheme = _scheme(breaking)

    start()
    from replicajax import solve
    from replicajax.cli._show import expected_accuracy, observables, print_accuracy, print_json, print_name

    found = pose(asked)
    heat = asked.get("beta", default_beta(float(found.task.noise)))
    with Progress("best width" if chosen is None and asked.get("width") is None else "saddle point"):
        book = _book(found.task, heat, asked, chosen, scheme)
        solution = solve(found.task, book, heat, breaking=scheme)
    if as_json:
        print_json(
            {"problem": found.name, "beta": heat, "levels": book.levels}
            | {"loss": str(found.task.loss), "error_is": found.task.error_is, "classes": found.classes}
            | observables(solution)
            | expected_accuracy(found, solution)
        )
    else:
        print_name(out, found)
        out.print(str(solution), markup=False, highlight=False)
        print_accuracy(out, found, solution)
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
    loss: Loss = None,
    beta: Beta = None,
    bits: Annotated[str, typer.Option(help="Bit widths to try, as in 1-4 or 2,3,8.")] = "1-4",
    factor: Annotated[float, typer.Option(help="Acceptable error, as a multiple of the unquantized one.")] = 1.1,
    require_stable: Annotated[bool, typer.Option("--require-stable", help="Only widths with replicon > 0.")] = False,
    breaking: Breaking = "0",
    measure: Annotated[bool, typer.Option("--measure", help="Also measure held-out rows by Gibbs sampling.")] = False,
    splits: Annotated[int, typer.Option(help="Random train/test splits to measure.", min=2, max=10**4)] = 8,
    sweeps: Sweeps = 400,
    rotate: Rotate = True,
    seed: Seed = 0,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Find the quantization width, and the cheapest bits, that minimise generalisation error.

    Of data: by every row, each left out once, where no --alpha is given; --measure trains on 4 of 5 rows then.
    """
    if measure and data is None:
        raise ProblemError("--measure needs data: give --data FILE.csv --target COLUMN, or a bundled set")
    if measure and beta is not None and math.isinf(beta):
        raise ProblemError("--measure needs a finite --beta: the Gibbs sampler has no zero temperature")
    check("factor", factor)
    tried, scheme = whole_numbers("--bits", bits, 8), _scheme(breaking)
    if require_stable and scheme:
        raise ProblemError(f"--require-stable asks for replica symmetry: --breaking must be 0 with it, got {breaking}")
    writable("--figure", figure, PICTURES, data, problem)
    named = None if loss is None else read_loss(loss)
    asked = ask(data, target, problem, named, alpha=alpha, signal=signal, noise=noise, ridge=ridge, beta=beta)

    start()
    import numpy as np

    from replicajax.cli._show import draw, print_json, print_measured, print_theory, report
    from replicajax.replica import unquantized
    from replicajax.search import fewest_bits

    found = pose(asked, seed)
    task, heat = found.task, asked.get("beta", default_beta(float(found.task.noise)))
    if measure:
        from replicajax.trials import training_rows

        training_rows(found.X, found.y, alpha)
    unit = float(np.sqrt(task.signal))
    baseline = unquantized(task)
    measured: dict[int, Any] = {}
    with Progress(f"theory, {bits} bits"):
        best = _best_widths(task, tried, heat, require_stable, scheme)
        limit = factor * float(baseline.generalization_error) if baseline is not None else math.nan
        cheapest, enough = fewest_bits(best, limit), None
        further = not scheme and max(tried) < 8  # one step of breaking among 256 levels takes minutes
        if baseline is not None and cheapest is None and further:

            def would(more: int) -> bool:
                return fewest_bits(_best_widths(task, [more], heat, require_stable), limit) is not None

            if would(8):  # mostly not, and then none does
                enough = next((more for more in range(max(tried) + 1, 8) if would(more)), 8)
    if not as_json:
        print_theory(out, found, heat, baseline, best, unit, factor, cheapest, enough, further)
    if measure:
        from replicajax.trials import measure_widths

        with Progress("held-out rows") as progress:
            for b in tried:
                progress.stage(f"held-out rows, {b} bit{'s' * (b > 1)}, splits", splits)
                measured[b] = measure_widths(
                    found.X,
                    found.y,
                    b,
                    np.geomspace(0.4, 4.0, 9) * unit,
                    heat,
                    alpha=alpha,
                    ridge=float(task.ridge),
                    splits=splits,
                    sweeps=sweeps,
                    seed=seed,
                    rotate=rotate,
                    tick=progress.advance,
                )
        if not as_json:
            print_measured(out, measured, unit)
    if figure is not None:
        with Progress("figure"):
            draw(figure, found, heat, tried, best, measured, unit, baseline, scheme)
        if not as_json:
            written("Figure", figure)
    if as_json:
        print_json(report(found, heat, baseline, best, measured, factor, cheapest, figure))
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
    iterations: Annotated[int, typer.Option(help="Most iterations of AMP.", min=1, max=10**6)] = 500,
    damping: Annotated[float, typer.Option(help="Fraction of the old fields AMP keeps, in [0, 1).")] = 0.3,
    sweeps: Sweeps = 1000,
    rotate: Rotate = True,
    seed: Seed = 0,
    file: Annotated[Path | None, typer.Option("--out", help="Write codes, levels and axes here (.npz).")] = None,
    as_json: AsJson = False,
) -> None:
    """Train quantized weights on rows of data by message passing and by sampling, and compare with theory.

    On 4 of 5 rows where no --alpha is given; errors are of the others.
    """
    if data is None:
        raise ProblemError("amp needs data: give --data FILE.csv --target COLUMN, or a bundled set")
    if beta is not None and math.isinf(beta):
        raise ProblemError("amp needs a finite --beta: the Gibbs sampler beside it has no zero temperature")
    check("damping", damping)
    writable("--out", file, (".npz",), data)
    numbers = {"alpha": alpha, "ridge": ridge, "beta": beta, "bits": bits, "width": width, "exponent": exponent}
    asked = ask(data, target, None, **numbers)
    chosen = _levels(levels, asked)

    start()
    import numpy as np

    from replicajax import GivenData, solve
    from replicajax.cli._show import print_expected, print_json, print_trained, trained_report
    from replicajax.replica import accuracy
    from replicajax.trials import split, train, training_rows

    found = pose(asked, seed)
    rows = split(found.X, found.y, training_rows(found.X, found.y, alpha), np.random.default_rng(seed))
    task = GivenData(rows.X, rows.y, asked.get("ridge", 0.0))  # of what is trained on: nothing else is known yet
    heat = asked.get("beta", default_beta(float(task.noise)))
    with Progress("theory" if chosen is not None or width is not None else "best width"):
        book = _book(task, heat, asked, chosen)
        expected = solve(task, book, heat)
    if not as_json:
        right = None
        if found.classes is not None:
            right = accuracy(task, book, heat, float(rows.standard.labels(0.0)))
        print_expected(out, found, expected, right)
    effort = {"iterations": iterations, "damping": damping, "sweeps": sweeps}
    with Progress("training"):
        trained = train(
            found.X, found.y, book, heat, alpha=alpha, ridge=asked.get("ridge", 0.0), rotate=rotate, seed=seed, **effort
        )
    if file is not None:
        trained.save(file, found.columns, found.target, found.classes or ())
    if as_json:
        print_json(trained_report(found, trained, file))
    else:
        print_trained(out, trained, file)
    if not (trained.amp.converged and trained.solution.converged):
        raise typer.Exit(1)


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(help="What amp --out wrote (.npz).")],
    table: Annotated[Path, typer.Argument(help="CSV file with the columns it was trained on, in any order.")],
    file: Annotated[Path | None, typer.Option("--out", help="Write the predictions here (.csv).")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the label of every row of a table with quantized weights; their error too, if the label is there."""
    from replicajax.cli import _predict

    readable("model", model, (".npz",))
    writable("--out", file, (".csv",), str(table), model)
    saved = _predict.read_model(model)
    predicted, error = _predict.predict(saved, table)
    if file is not None:
        _predict.write_csv(file, saved, predicted)
    if as_json:
        print(_predict.as_json(saved, predicted, error))
    else:
        _predict.show(out, saved, predicted, error, file)


@app.command("phase-diagram")
def phase_diagram_command(
    alpha: Annotated[str, typer.Option(help="Rows per weight: a number, 1,2,4, or 0.3:4:64[:log].")],
    width: Annotated[str, typer.Option(help="Largest level, in the same way.")],
    bits: Annotated[str, typer.Option(help="Bits, as in 3, 1,2,4 or 1-4.")] = "2",
    exponent: Annotated[str, typer.Option(help="Power-law codebook; 1 is uniform.")] = "1",
    beta: Annotated[str | None, typer.Option(help="Inverse temperature, inf allowed (default 1/noise).")] = None,
    signal: Annotated[str, typer.Option(help="Variance of a teacher weight.")] = "1",
    noise: Annotated[str, typer.Option(help="Variance of the label noise.")] = f"{NOISE:g}",
    ridge: Annotated[str, typer.Option(help="Coefficient of |w|²/2.")] = "0",
    loss: Loss = None,
    optimum: Annotated[str | None, typer.Option(help="Axis whose best value is refined on every slice.")] = None,
    gradient: Annotated[list[str] | None, typer.Option(help="Parameter to differentiate eg in (repeatable).")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder for the result (zarr); resumes what is there.")] = None,
    variable: Annotated[str, typer.Option(help="What --figure shows.")] = "generalization_error",
    figure: Annotated[Path | None, typer.Option(help="Write a picture here (png, pdf, svg).")] = None,
    json_only: AsJson = False,
) -> None:
    """Solve the theory on a grid of any parameters; resumable, with progress on standard error."""
    names = {"alpha": alpha, "width": width, "bits": bits, "exponent": exponent, "beta": beta}
    names |= {"signal": signal, "noise": noise, "ridge": ridge}
    values = {name: axis(name, text) for name, text in names.items() if text is not None}
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    given: dict[str, Any] = {name: value for name, value in values.items() if name not in lists}
    if loss is not None:
        given["loss"] = read_loss(loss)
    check_temperature(given | ({"beta": max(lists["beta"])} if "beta" in lists else {}))
    if not lists:
        raise ProblemError("phase-diagram needs at least one axis, such as --alpha 0.3:4:64; for one point use solve")
    if optimum is not None and (optimum == "bits" or len(lists.get(optimum, [])) < 3):
        raise ProblemError(f"--optimum must be an axis of at least three values, other than bits, got {optimum!r}")
    for name in gradient or ():
        choice("--gradient", name, [name for name in names if name != "bits"])
    writable("--figure", figure, PICTURES)
    if store is not None:
        if store.is_file():
            raise ProblemError(f"--store {store} is a file; a folder is wanted, new or of the same sweep")
        if figure is not None and store.resolve() == figure.resolve():
            raise ProblemError(f"--store and --figure must differ, got {store} twice")
        if not store.absolute().parent.is_dir():
            raise ProblemError(f"--store must be in a folder that exists, got {store}")
        try_writing("--store", store / "inside" if store.is_dir() else store)

    start(many_points=True)
    import numpy as np

    from replicajax import phase_diagram
    from replicajax.cli._sweep import as_json, check_picture, draw_sweep, print_summary

    axes = {name: np.array(value) for name, value in lists.items()}
    if figure is not None:
        check_picture(variable, axes, gradient or (), optimum)
    task = task_of({name: 1.0 for name in ("alpha", "signal", "noise", "ridge")} | given)
    if beta is None:
        given["beta"] = default_beta(float(task.noise))
    begun, points = perf_counter(), math.prod(map(len, lists.values()))
    bar = sys.stderr.isatty() and not json_only  # the sweep's own
    try:
        with nullcontext() if bar else Progress(f"{points:,} points"):
            dataset = phase_diagram(
                task,
                bits=given.get("bits"),
                width=given.get("width"),
                exponent=given.get("exponent"),
                beta=given.get("beta"),
                axes=axes,
                optimum=optimum,
                gradients=gradient or (),
                store=store,
                progress=bar,
            )
    except OSError as error:  # of zarr, in the middle of it: what is written is resumed by the next call
        if store is None:
            raise
        raise ProblemError(f"--store {store} cannot be written: {error.strerror or error}") from None
    rate = dataset.generalization_error.size / (perf_counter() - begun)
    if not json_only:
        print_summary(out, dataset, rate, store)
    if figure is not None:
        draw_sweep(dataset, variable, figure)
        if not json_only:
            written("written", figure)
    if json_only:
        print(as_json(dataset, [path for path in (store, figure) if path is not None]))
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
    writable("--figure", figure, PICTURES)
    if not sweep.is_dir():
        raise ProblemError(f"{sweep} {'is no folder' if sweep.exists() else 'does not exist'}; a saved sweep is wanted")

    start()
    from replicajax import open_sweep
    from replicajax.cli._sweep import draw_sweep, fixed, print_summary

    dataset = fixed(open_sweep(sweep), at or [])
    draw_sweep(dataset, variable, figure)
    print_summary(out, dataset, None, figure)


@app.command("formats")
def formats_command(
    distribution: Annotated[str, typer.Option(help="Law of the weights: normal, laplace or student-t.")] = "normal",
    df: Annotated[float | None, typer.Option(help="Degrees of freedom of student-t (default 5).")] = None,
    bits: Annotated[str, typer.Option(help="Element bits, as in 2-5 or 3,4.")] = "3-5",
    block_size: Annotated[int, typer.Option(help="Weights that share a scale.", min=1)] = 64,
    format: Annotated[
        str | None,
        typer.Option(help="Instead: deployable ones, as in mxfp4,nvfp4,q4_0, or gguf, mx, int, all, sparse."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Actual weights for --format, instead of a distribution: a file, index or folder."),
    ] = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Compare weight formats for a distribution: exact error, bits, and how far from the limits."""
    choice("--distribution", distribution, LAWS)
    if weights is not None:
        if format is None:
            raise ProblemError("--weights needs --format, as in --format gguf")
        checkpoint("--weights", weights)
    if df is not None and distribution != "student-t":
        raise ProblemError(f"--df needs --distribution student-t, got {distribution}")
    check("df", df)
    widths = whole_numbers("--bits", bits, 8, least=2)  # INT1 has no level above 0
    writable("--figure", figure, PICTURES)

    start(optimize=False)
    from replicajax import formats
    from replicajax.cli import _formats

    law = _formats.law_of(distribution, df)
    with Progress(f"formats for {law} weights") as progress:
        if format is None:
            rows = _formats.compare_formats(law, widths, block_size)
        elif weights is None:
            rows = _formats.compare_standard(law, formats.menu(format))
        else:
            progress.stage("weights read")
            measured = formats.measure_formats(weights, formats.menu(format), None, progress.advance)
            rows = _formats.compare_measured(measured)
        lines = {} if weights is not None else _formats.limits(law)
    what = f"{law} weights" if weights is None else str(weights)
    if as_json:
        from replicajax.cli._show import print_json

        entries = [row._asdict() | {"figure_of_merit": row.figure_of_merit} for row in rows]
        print_json({"distribution": what, "formats": entries, "limits": lines})
    else:
        _formats.print_formats(what, rows, lines, out)
        if weights is not None and format is not None and len(rows) < len(formats.menu(format)):
            missing = ", ".join(x.name for x in formats.menu(format) if x.name not in {row.name for row in rows})
            out.print(
                f"left out, as some rows are no multiple of their blocks: {missing}", markup=False, highlight=False
            )
    if figure is not None:
        drawn = [row for row in rows if row.bits < 16]
        _formats.draw_formats(what, drawn, lines, figure, joined=format is None)
        if not as_json:
            written("figure", figure)


Checkpoint = Annotated[
    Path, typer.Argument(help="Weights: .safetensors, .npz, or the index or folder of a sharded checkpoint.")
]
Fisher = Annotated[Path | None, typer.Option(help="Diagonal Fisher information: a file of the same tensors.")]
Moments = Annotated[Path | None, typer.Option(help="Second moments of layers' inputs, by the names of their weights.")]
Menu = Annotated[
    str | None,
    typer.Option(help="Formats to choose from: gguf, mx, int, all, sparse, or names with commas (default all)."),
]


@app.command("allocate")
def allocate_command(
    weights: Checkpoint,
    fisher: Fisher = None,
    moments: Moments = None,
    bits: Annotated[float | None, typer.Option(help="Bits per weight on average (default 4.25).")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Instead of --bits: 4.5bits, 850MB or 3.2GB of everything.")
    ] = None,
    menu: Menu = None,
    pin: Annotated[
        list[str] | None, typer.Option(help="Format of tensors, as in '*.embed*=Q8_0' (repeatable).")
    ] = None,
    tie: Annotated[
        list[str] | None, typer.Option(help="Tensors that must agree, as in '*.{q,k,v}_proj.*' (repeatable).")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Instead: what you measured, a CSV of tensor, format, score.")
    ] = None,
    gptq: Annotated[bool, typer.Option("--gptq", help="Codes by GPTQ (needs --moments), not to nearest.")] = False,
    quantize: Annotated[Path | None, typer.Option(help="Write the weights here (.safetensors or .gguf).")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Write tensor and format here (.json or .txt).")] = None,
    runtime: Annotated[
        str | None,
        typer.Option("--recipe-for", help="replicajax, llama, qwix or compressed-tensors (default: .txt is llama)."),
    ] = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Choose a format for every tensor of a weight file so that the least is lost within a budget."""
    from replicajax.cli._budget import Budget, read_budget, read_pins

    files = informed("weights", weights, fisher, moments, scores, gptq)
    if bits is not None and budget is not None:
        raise ProblemError(f"either --bits or --budget, got {bits:g} and {budget!r}")
    if bits is not None and not 1 <= bits <= 32:
        raise ProblemError(f"--bits must be from 1 to 32, got {bits:g}")
    limit = Budget(4.25 if bits is None else bits, None) if budget is None else read_budget(budget)
    pins, ties = read_pins(pin or []), tie or []
    writable("--quantize", quantize, (".safetensors", ".gguf"), *files)
    writable("--recipe", recipe, (".json", ".txt"), *files)
    writable("--figure", figure, PICTURES, *files)
    of_ggml = quantize is not None and quantize.suffix == ".gguf"
    if of_ggml and find_spec("gguf") is None:
        raise ProblemError(f"--quantize {quantize} needs the package gguf: pip install 'replicajax[gguf]'")
    if recipe is None and runtime is not None:
        raise ProblemError(f"--recipe-for {runtime} needs --recipe FILE")
    if runtime is None:
        runtime = "llama" if recipe is not None and recipe.suffix == ".txt" else "replicajax"

    start()
    from replicajax import formats
    from replicajax.cli import _allocate

    options = formats.menu(menu or ("gguf" if of_ggml else "all"))
    options = _allocate.of_runtime(options, runtime, menu)
    if of_ggml and not all(each.ggml for each in options):
        raise ProblemError(f"--quantize {quantize} needs --menu gguf, got {menu}")
    with Progress("weights read") as progress, _allocate.rounding(moments if gptq else None) as codes:
        of_outputs = None if scores is not None else moments
        measured = formats.measure_formats(weights, options, fisher, progress.advance, of_outputs, codes)
    if scores is not None:
        measured = formats.read_scores(scores, measured)
    asked = _allocate.request(measured, limit, pins, ties)
    plan = asked.plan()
    if not as_json:
        _allocate.show(asked, plan, out)
    if figure is not None:
        _allocate.draw(measured, [plan], figure)
    if recipe is not None:
        _allocate.write_recipe(plan, recipe, runtime)
    record, errors = _allocate.as_record(measured, plan, asked) if as_json else {}, {}
    if quantize is not None:
        with Progress("weights quantized") as progress, _allocate.rounding(moments if gptq else None) as codes:
            progress.stage("weights quantized", sum(t.count for t in plan.tensors))
            made = _allocate.made_by(moments if gptq else None)
            size = formats.quantize_file(weights, quantize, plan, progress.advance, errors, codes, made)
        record |= {"bytes": size, "actual_error": errors}
        if not as_json:
            before = sum(t.count * t.dtype.itemsize for t in (*plan.tensors, *plan.kept))
            written("written", f"{quantize} ({before / 1e6:,.2f} MB of weights to {size / 1e6:,.2f} MB)")
            _allocate.show_actual(plan, errors, out)
    if as_json:
        from replicajax.cli._show import print_json

        print_json(record)
    else:
        for path in (figure, recipe):
            if path is not None:
                written("written", path)


@app.command("recommend")
def recommend_command(
    weights: Checkpoint,
    fisher: Fisher = None,
    moments: Moments = None,
    menu: Menu = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Three lines of advice about a weight file, for who has no budget in mind, and the table they come from."""
    files = informed("weights", weights, fisher, moments)
    writable("--figure", figure, PICTURES, *files)

    start()
    from replicajax import formats
    from replicajax.cli import _allocate

    with Progress("weights read") as progress:
        measured = formats.measure_formats(weights, formats.menu(menu or "all"), fisher, progress.advance, moments)
    advice = _allocate.advise(measured)
    if figure is not None:
        _allocate.draw(measured, advice.plans, figure)
    if as_json:
        from replicajax.cli._show import print_json

        print_json({"advice": advice.lines, "plans": [_allocate.as_record(measured, plan) for plan in advice.plans]})
        return
    _allocate.show_advice(measured, advice, out)
    if figure is not None:
        written("written", figure)


@app.command("codebook")
def codebook_command(
    data: Data = None,
    target: Target = None,
    problem: ProblemFile = None,
    alpha: Alpha = None,
    signal: Signal = None,
    noise: Noise = None,
    ridge: Ridge = None,
    loss: Loss = None,
    beta: Beta = None,
    count: Annotated[int, typer.Option("--count", help="How many levels.", min=2, max=64)] = 4,
    rate_weight: Annotated[
        float, typer.Option(help="What a bit of the coded weights costs, in units of the error.")
    ] = 0.0,
    symmetric: Annotated[bool, typer.Option(help="A level -a for every a, or any levels.")] = True,
    breaking: Annotated[int, typer.Option(help="Steps of replica symmetry breaking.", min=0, max=1)] = 0,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Find the levels that minimise generalisation error, every one of them by its gradient."""
    if not 0 <= rate_weight < math.inf:
        raise ProblemError(f"--rate-weight must be finite and not negative, got {rate_weight}")
    if breaking and rate_weight:
        raise ProblemError(f"--rate-weight must be 0 with --breaking 1, got {rate_weight:g}")
    writable("--figure", figure, PICTURES, data, problem)
    named = None if loss is None else read_loss(loss)
    asked = ask(data, target, problem, named, alpha=alpha, signal=signal, noise=noise, ridge=ridge, beta=beta)

    start()
    from replicajax import optimal_codebook, optimal_width
    from replicajax.cli import _learned
    from replicajax.cli._show import print_json, print_name

    found = pose(asked)
    heat = asked.get("beta", default_beta(float(found.task.noise)))
    with Progress("levels"):
        best = optimal_codebook(
            found.task, count, heat, symmetric=symmetric, rate_weight=rate_weight, breaking=breaking
        )
        even = count in (2, 4, 8, 16)
        uniform = optimal_width(found.task, count.bit_length() - 1, heat, breaking=breaking) if even else None
    if figure is not None:
        _learned.draw_codebook(best, uniform, figure)
    if as_json:
        print_json({"problem": found.name, "beta": heat} | _learned.codebook_record(best, uniform))
    else:
        print_name(out, found)
        _learned.show_codebook(best, uniform, rate_weight, out)
        if figure is not None:
            written("written", figure)
    if not best.converged:
        raise typer.Exit(1)


@app.command("train")
def train_command(
    bits: Annotated[str, typer.Option(help="Bits of the weights; with --optimal several, as in 1-3.")] = "2",
    width: Annotated[float | None, typer.Option(help="Largest level (default 2).")] = None,
    input_bits: Annotated[
        int | None, typer.Option(help="Bits of the inputs (default: not quantized).", min=1, max=8)
    ] = None,
    input_width: Annotated[float, typer.Option(help="Largest level of the inputs.")] = 2.0,
    step: Annotated[float | None, typer.Option(help="Of stochastic gradient descent (default 0.2).")] = None,
    noise: Annotated[float, typer.Option(help="Variance of the label noise.")] = 0.0,
    teacher: Annotated[str, typer.Option(help="Values of the teacher's weights, or normal or laplace.")] = "1",
    ridge: Annotated[float, typer.Option(help="Weight decay.")] = 0.0,
    begin: Annotated[float, typer.Option("--start", help="Standard deviation of the weights at first.")] = 1.0,
    times: Annotated[str, typer.Option(help="Iterations over dimension, increasing.")] = "1,2,5,10,20,50,100",
    optimal: Annotated[
        bool, typer.Option("--optimal", help="The width and step of least error at the last time.")
    ] = False,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Follow training with a straight-through estimator: the error and the law of the weights at every time."""
    tried = whole_numbers("--bits", bits, 8)
    for flag, value in (("--width", width), ("--input-width", input_width), ("--step", step), ("--start", begin)):
        if value is not None and not 0 < value < math.inf:
            raise ProblemError(f"{flag} must be positive and finite, got {value}")
    for flag, value in (("--noise", noise), ("--ridge", ridge)):
        if not 0 <= value < math.inf:
            raise ProblemError(f"{flag} must be finite and not negative, got {value}")
    if optimal and (width is not None or step is not None):
        raise ProblemError("--optimal finds --width and --step: give either it or them")
    if not optimal and len(tried) > 1:
        raise ProblemError(f"--bits must be one number without --optimal, got {bits}")
    at = numbers("--times", times, "increasing numbers above 0", lambda t: 0 < t < math.inf)
    if any(b <= a for a, b in pairwise(at)):
        raise ProblemError(f"--times must be increasing, got {times}")
    values = None if teacher in ("normal", "laplace") else numbers("--teacher", teacher)
    writable("--figure", figure, PICTURES)

    start()
    from replicajax import distributions, uniform
    from replicajax.cli import _learned
    from replicajax.dynamics import optimal_training, straight_through

    law = (
        values if values is not None else {"normal": distributions.Normal, "laplace": distributions.Laplace}[teacher]()
    )
    inputs = None if input_bits is None else uniform(input_bits, input_width)
    best, book, pace = None, uniform(tried[0], 2.0 if width is None else width), 0.2 if step is None else step
    with Progress("training"):
        if optimal:
            best = optimal_training(at[-1], tried, inputs, noise, law, ridge=ridge, start=begin)
            book, pace = uniform(best.bits, best.width), best.step
        course = straight_through(book, inputs, pace, noise, law, at, ridge=ridge, start=begin)
    if figure is not None:
        import numpy as np

        _learned.draw_training(course, np.asarray(book.levels), figure)
    if as_json:
        from replicajax.cli._show import print_json

        print_json({"levels": book.levels, "step": pace} | _learned.training_record(course, best))
        return
    out.print(f"{book}, step {pace:.6g}", style="bold", markup=False, highlight=False)
    _learned.show_training(course, best, out)
    if figure is not None:
        written("written", figure)


@app.command("dequantize")
def dequantize_command(
    source: Annotated[Path, typer.Argument(help="What allocate --quantize wrote (.safetensors).")],
    target: Annotated[Path, typer.Argument(help="Write the weights here (.safetensors).")],
) -> None:
    """Turn codes back into weights."""
    readable("source", source, (".safetensors",))
    writable("target", target, (".safetensors",), source)

    start()
    from replicajax import formats

    with Progress("weights") as progress:
        size = formats.dequantize_to(source, target, progress.advance)
    written("written", f"{target} ({size / 1e6:,.2f} MB)")


@app.command("layer")
def layer_command(
    weights: Annotated[Path, typer.Option(help="Weights (outputs, inputs): a .safetensors or .npz file.")],
    moments: Annotated[Path, typer.Option(help="Second moments of their inputs, by the same names.")],
    bits: Annotated[str, typer.Option(help="Bits of uniform levels, as in 3, 2,4 or 2-4.")] = "2-4",
    only: Annotated[str | None, typer.Option(help="Layers whose name is like this, as in '*.mlp.*'.")] = None,
    damping: Annotated[float, typer.Option(help="Added to the diagonal, in units of its mean.")] = 0.01,
    order: Annotated[str, typer.Option(help="Of GPTQ's columns: natural or descending (by loudness).")] = "natural",
    scale: Annotated[
        str, typer.Option(help="Levels best for: rounding normal weights, or gptq on each layer.")
    ] = "rounding",
    measure: Annotated[bool, typer.Option("--measure", help="Also run the three algorithms.")] = False,
    seed: Annotated[int, typer.Option(help="Of the rotation that --measure runs.", min=0, max=2**32 - 1)] = 0,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Predict what rounding, GPTQ, rotated GPTQ and the best code would leave of each layer's outputs."""
    readable("--weights", weights, WEIGHTS)
    readable("--moments", moments, WEIGHTS)
    many = whole_numbers("--bits", bits, 8)
    if not 0 <= damping < math.inf:
        raise ProblemError(f"--damping must be finite and not negative, got {damping}")
    choice("--order", order, ("natural", "descending"))
    choice("--scale", scale, ("rounding", "gptq"))
    writable("--figure", figure, PICTURES, weights, moments)

    start()
    from replicajax.cli._layer import Screen, as_records, chosen, draw_layers, reports

    names = chosen(weights, moments, only)
    screen, found = Screen(out, names), []
    if not as_json:
        screen.begin()
    with Progress("layers") as progress:
        progress.stage("layers", len(names) * len(many))
        options = {"damping": damping, "order": order, "measure": measure, "seed": seed}
        for name, each in reports(weights, moments, names, many, scale, progress, **options):
            found.append((name, each))
            if not as_json:
                screen.show(name, each)
    if figure is not None:
        draw_layers(found, figure)
    if as_json:
        from replicajax.cli._show import print_json

        print_json({"layers": as_records(found)})
    elif figure is not None:
        written("written", figure)


@app.command("explore")
def explore_command(
    port: Annotated[
        int | None, typer.Option(help="Port to listen on (default 5006, or a free one).", min=0, max=65535)
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Explore the theory on a page with sliders, on this machine alone."""
    if find_spec("bokeh") is None:
        raise ProblemError("explore needs the package bokeh: pip install 'replicajax[explore]'")
    from replicajax.explore import serve

    serve(port, browser, lambda text: print(text, flush=True))


def _levels(text: str | None, asked) -> list[float] | None:
    """The levels given as such; a codebook of the best width has at most 8 bits."""
    values = level_list(text)
    if values is None and asked.get("width") is None and asked.get("bits", 2) > 8:
        raise ProblemError(f"--bits must be at most 8 where no --width is given, got {asked.get('bits')}")
    return values


def _book(task, beta: float, asked, levels: list[float] | None, breaking: int | str = 0):
    """The levels given, else those of the bits (2 unless told); of the best width if none is given."""
    from replicajax import codebook, power

    if levels is not None:
        return codebook(levels)
    size, reach = int(asked.get("bits", 2)), asked.get("width")
    if reach is None:
        reach = float(_best_widths(task, [size], beta, False, breaking)[size].width)
    return power(size, reach, asked.get("exponent", 1.0))


def _best_widths(task, bits: list[int], beta: float, require_stable: bool, breaking: int | str = 0) -> dict[int, Any]:
    from replicajax.search import optimal_width

    return {b: optimal_width(task, b, beta, require_stable=require_stable, breaking=breaking) for b in bits}


def _scheme(breaking: str) -> int | str:
    if breaking not in ("0", "1", "auto"):
        raise ProblemError(f"--breaking must be 0, 1 or auto, got {breaking}")
    return breaking if breaking == "auto" else int(breaking)
