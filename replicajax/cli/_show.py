"""What the command line shows: a table, JSON, a figure."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from replicajax import LinearRegression
from replicajax._writing import whole
from replicajax.cli._console import written

_GRID = np.geomspace(0.1, 8.0, 81)
"""Widths drawn, in units of the teacher's standard deviation."""


def observables(solution) -> dict[str, Any]:
    names = (
        "overlap self_overlap replica_overlap susceptibility generalization_error gibbs_error rounded_error test_error "
        "training_error free_energy entropy rate replicon stable interpolates converged steps"
    )
    return {name: getattr(solution, name) for name in names.split()}


def report(found, beta, baseline, best, measured, factor, cheapest, figure) -> dict[str, Any]:
    task = found.task
    rows = []
    for bits, b in best.items():
        row = {"bits": bits, "width": b.width, "minima": b.minima, "at_edge": b.at_edge}
        row |= {
            "at_stability_limit": b.at_stability_limit,
            "ratio": float(b.generalization_error) / float(baseline.generalization_error),
        }
        row |= observables(b.solution) | {"converged": b.converged}
        if bits in measured:
            m = measured[bits]
            row["measured"] = {"width": m.widths, "error": m.error, "standard_error": m.standard_error}
            row["measured"] |= {"best_width": m.best_width, "ridge_error": m.ridge_errors.mean()}
            row["measured"] |= {"theory": m.theory.mean(0), "mixed": m.mixed.all(0)}
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


def trained_report(found, trained, path) -> dict[str, Any]:
    s, amp, held, error = trained.solution, trained.amp, trained.held_out, trained.standard_errors
    return {
        "problem": found.name,
        "task": {"alpha": s.task.alpha, "signal": s.task.signal, "noise": s.task.noise, "ridge": s.task.ridge},
        "beta": s.beta,
        "levels": s.codebook.levels,
        "training_rows": trained.training_rows,
        "held_out_rows": trained.held_out_rows,
        "theory": {"test_error": s.test_error, "rounded_test_error": s.rounded_error}
        | {"replicon": s.replicon, "stable": s.stable, "converged": s.converged}
        | {"left_out_error": trained.left_out.test_error, "left_out_rounded_error": trained.left_out.rounded_error},
        "amp": {"converged": amp.converged, "steps": amp.steps, "last_change": amp.trajectory.residual[-1]}
        | {"replicon": amp.replicon}
        | {"estimated_test_error": amp.test_error, "estimated_rounded_test_error": amp.rounded_test_error}
        | {"held_out_error": held.amp, "held_out_rounded_error": held.amp_rounded}
        | {"standard_error": error.amp, "rounded_standard_error": error.amp_rounded},
        "gibbs": {"energy": trained.gibbs.energy, "energy_spread": trained.gibbs.energy_spread}
        | {"held_out_error": held.gibbs, "held_out_rounded_error": held.gibbs_rounded}
        | {"standard_error": error.gibbs, "rounded_standard_error": error.gibbs_rounded},
        "constant": {"held_out_error": held.constant, "standard_error": error.constant},
        "method": trained.method,
        "codes": trained.codes,
        "out": None if path is None else str(path),
    }


def print_expected(out: Console, found, solution) -> None:
    """What theory says before anything is trained."""
    print_name(out, found)
    out.print(f"{solution.codebook}, beta {solution.beta:.4g}", markup=False, highlight=False)
    out.print(
        f"expected test error {solution.test_error:.4f}, of the most probable levels {solution.rounded_error:.4f} "
        f"(training rows left out one by one)",
        highlight=False,
    )


def print_trained(out: Console, trained, path) -> None:
    out.print(f"{trained.training_rows} rows to train on, {trained.held_out_rows} held out")
    s, amp, held, error = trained.solution, trained.amp, trained.held_out, trained.standard_errors
    table = Table()
    table.add_column("")
    for head in ("mean weights", "most probable levels"):
        table.add_column(f"test error,\n{head}", justify="right")
    table.add_column("status")
    state = "stable" if s.stable else "unstable: AMP need not converge"
    left = trained.left_out
    table.add_row("theory, left out", f"{left.test_error:.4f}", f"{left.rounded_error:.4f}", state)
    table.add_row("theory, held out", f"{s.test_error:.4f}", f"{s.rounded_error:.4f}", "")
    state = (
        f"converged in {int(amp.steps)} iterations"
        if amp.converged
        else f"NOT CONVERGED in {int(amp.steps)} iterations"
    )
    own = (f"{x:.4f}" if amp.converged else "–" for x in (amp.test_error, amp.rounded_test_error))
    table.add_row("AMP, its own estimate", *own, state)
    measured = [
        ("AMP, held out", (held.amp, error.amp), (held.amp_rounded, error.amp_rounded), ""),
        (
            "Gibbs, held out",
            (held.gibbs, error.gibbs),
            (held.gibbs_rounded, error.gibbs_rounded),
            f"R-hat {float(trained.gibbs.energy_spread):.3f}",
        ),
        ("mean label, held out", (held.constant, error.constant), None, ""),
    ]
    for name, mean, rounded, status in measured:
        each = ("" if x is None else f"{x[0]:.4f} ± {x[1]:.4f}" for x in (mean, rounded))
        table.add_row(name, *each, status)
    out.print(table)
    if amp.converged and amp.replicon <= 0:
        out.print("AMP's fixed point is unstable (replicon below 0): its estimates are not to be trusted.")
    if not amp.converged:
        out.print("AMP did not converge: try --damping 0.7; its numbers mean nothing, the codes are the sampler's.")
    if path is not None:
        written(f"Codes of {'AMP' if trained.method == 'amp' else 'the sampler'}", path)
        features, bits = len(trained.codes), s.codebook.bits
        out.print(
            f"{features} codes of {bits:.3g} bits each, {features * bits / 8:.0f} bytes in all, and a map of "
            f"{trained.map.nbytes:,} bytes to their axes: for a single label quantization saves no memory.",
            highlight=False,
        )


def print_json(value: Any) -> None:
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


def print_name(out: Console, found) -> None:
    out.print(found.name, style="bold", markup=False, highlight=False)


def print_theory(out: Console, found, beta, baseline, best, unit, factor, cheapest, enough) -> None:
    task = found.task
    print_name(out, found)
    known = isinstance(task, LinearRegression)
    numbers = f"noise {task.noise:.4g}, beta {beta:.4g}"
    if known:
        numbers = (
            f"alpha {task.alpha:.4g} rows per feature, signal {task.signal:.4g}, ridge {task.ridge:.4g}, {numbers}"
        )
    else:
        numbers = f"{task}, {numbers}"
    out.print(numbers, highlight=False)
    table = _plain_table("bits", "width", "width/σ", "error", "increase", "ratio", "rounded", "replicon", "phase")
    ratio_of = float(baseline.generalization_error)
    noise = float(task.noise) if known else 0.0
    for bits, b in best.items():
        s = b.solution
        if not b.converged:
            reason = "no stable width" if jnp.isnan(b.width) else "not converged"
            table.add_row(str(bits), *["–"] * 7, reason)
            continue
        phase = "stable" if s.stable else "unstable"
        phase += ", limit" if b.at_stability_limit else ", at range end" if b.at_edge else ""
        increase = 100 * (float(s.test_error) / float(baseline.test_error) - 1)
        row = [str(bits), f"{b.width:.4f}", f"{float(b.width) / unit:.2f}", f"{s.test_error:.4f}", f"{increase:+.1f} %"]
        row += [f"{float(b.generalization_error) / ratio_of:.3f}", f"{float(s.rounded_error) + noise:.4f}"]
        table.add_row(*row, f"{s.replicon:.3f}", phase, style="bold green" if bits == cheapest else None)
    table.add_row("real", "–", "–", f"{baseline.test_error:.4f}", "", "1.000", "", "", "ridge")
    out.print(table)
    what = "error less noise over ridge's" if known else "error over ridge's"
    out.print(
        f"error: {'mean squared test error' if known else task.error_is}; σ = √signal;\n"
        f"increase: over the best unquantized (ridge) fit; ratio: {what}; rounded: of the most probable levels.",
        style="dim",
        highlight=False,
    )
    if cheapest is None:
        more = f": {enough} would" if enough else ", nor would 8" if max(best) < 8 else ""
        out.print(f"No bit width tried comes within {factor:g} × the unquantized error{more}.", highlight=False)
    else:
        b = best[cheapest]
        out.print(
            f"Cheapest within {factor:g} ×: [bold]{cheapest} bit{'s' * (cheapest > 1)}[/], width [bold]{b.width:.4f}[/].",
            highlight=False,
        )


def print_measured(out: Console, measured, unit) -> None:
    """Held-out rows beside the theory of the same splits."""
    table = _plain_table("bits", "best/σ", "measured", "theory", "")
    for bits, m in measured.items():
        i = int(np.argmin(m.error))
        row = (
            f"{m.best_width / unit:.2f}",
            f"{m.error[i]:.3f} ± {m.standard_error[i]:.3f}",
            f"{m.theory.mean(0)[i]:.3f}",
        )
        table.add_row(str(bits), *row, "" if m.mixed[:, i].all() else "chains trapped")
    m = next(iter(measured.values()))
    errors = m.ridge_errors
    table.add_row("real", "", f"{errors.mean():.3f} ± {errors.std(ddof=1) / math.sqrt(len(errors)):.3f}", "")
    out.print(table)
    out.print(
        f"Measured on {m.errors.shape[0]} random splits, {m.training_rows} rows to train, {m.held_out_rows} held out; "
        f"widths stepped by a factor {m.widths[1] / m.widths[0]:.2f}.",
        highlight=False,
    )


def _plain_table(*heads: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == "phase" else "right", no_wrap=True)
    return table


def draw(path: Path, found, beta, tried: Sequence[int], best, measured, unit: float, baseline: float) -> None:
    """Theory over widths; of measured splits their mean, optimum included."""
    from matplotlib.figure import Figure

    from replicajax.plot import WidthCurve, plot_widths
    from replicajax.trials import predict_widths

    widths, curves = _GRID * unit, []
    for bits in tried:
        tasks = measured[bits].tasks if measured else [found.task]
        each = [predict_widths(task, bits, widths, beta) for task in tasks]
        error = np.mean([np.where(s.converged, s.test_error, np.nan) for s in each], 0)
        stable = np.mean([s.stable for s in each], 0) > 0.5
        width = float(best[bits].width)
        lowest = float(best[bits].solution.test_error)
        if measured:
            k = int(np.nanargmin(error))
            width, lowest = float(widths[k]), float(error[k])
        curves.append(WidthCurve(bits, widths.tolist(), error.tolist(), stable.tolist(), width, lowest))
    if measured:
        baseline = float(np.mean(measured[tried[0]].ridge_errors))
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    plot_widths(axes, curves, unit=unit, baseline=baseline, measured=measured)
    name = found.name.split(" (")[0].split(", ")[0].replace("$", r"\$")  # matplotlib would take it for mathematics
    numbers = (
        f"alpha {found.task.alpha:.3g}, signal {found.task.signal:.3g}, noise {found.task.noise:.3g}, beta {beta:.3g}"
    )
    axes.set_title(f"{name}\n{numbers}", fontsize=9)
    save(figure, path, 160)


def save(figure, path: Path, dpi: int) -> None:
    with whole(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix[1:])
