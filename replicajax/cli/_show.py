"""What the command line shows: a table, JSON, a figure."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from replicajax import Classification, LinearRegression
from replicajax._writing import whole
from replicajax.cli._console import written
from replicajax.models import Square, Task, Taught

_GRID = np.geomspace(0.1, 8.0, 81)
"""Widths drawn, in units of the teacher's standard deviation."""


def observables(solution) -> dict[str, Any]:
    names = (
        "overlap self_overlap replica_overlap susceptibility generalization_error gibbs_error rounded_error test_error "
        "training_error free_energy entropy rate replicon stable interpolates converged steps breaking"
    )
    if solution.breaking:
        names += " parisi inner_overlap outer_overlap complexity state_error outer_replicon"
    return {name: getattr(solution, name) for name in names.split()}


def expected_accuracy(found, solution) -> dict[str, Any]:
    """By theory, of labels of two classes."""
    if found.classes is None:
        return {}
    expected = found.accuracy(solution)
    return {"accuracy": expected.mean, "rounded_accuracy": expected.rounded}


def print_accuracy(out: Console, found, solution) -> None:
    if found.classes is not None and solution.converged:
        expected, where = (
            found.accuracy(solution),
            "held-out rows" if solution.task.held_out else "rows left out one by one",
        )
        for name, value, note in (
            ("accuracy", expected.mean, f"share of {where} expected right; {found.usual}"),
            ("rounded accuracy", expected.rounded, "of the most probable levels"),
        ):
            if value == value:
                out.print(f"  {name:<21}{value:>15.9g}   {note}", markup=False, highlight=False)


def report(found, beta, baseline, best, measured, factor, cheapest, figure) -> dict[str, Any]:
    task = found.task
    rows = []
    for bits, b in best.items():
        row = {"bits": bits, "width": b.width, "minima": b.minima, "at_edge": b.at_edge}
        row |= {
            "at_stability_limit": b.at_stability_limit,
            "ratio": None if baseline is None else float(b.generalization_error) / float(baseline.generalization_error),
        }
        row |= observables(b.solution) | {"converged": b.converged} | expected_accuracy(found, b.solution)
        if bits in measured:
            m = measured[bits]
            row["measured"] = {"width": m.widths, "error": m.error, "standard_error": m.standard_error}
            row["measured"] |= {"best_width": m.best_width, "ridge_error": m.ridge_errors.mean()}
            row["measured"] |= {"theory": m.theory.mean(0), "mixed": m.mixed.all(0)}
            if m.accuracies is not None:
                row["measured"] |= {"accuracy": m.accuracy, "accuracy_standard_error": m.accuracy_standard_error}
                row["measured"] |= {"theory_accuracy": m.theory_accuracies.mean(0)}
                row["measured"] |= {"ridge_accuracy": m.ridge_accuracies.mean()}
        rows.append(row)
    return {
        "problem": found.name,
        "task": {"alpha": task.alpha, "signal": task.signal, "noise": task.noise, "ridge": task.ridge}
        | {"loss": str(task.loss), "error_is": task.error_is, "classes": found.classes},
        "beta": beta,
        "unquantized": None
        if baseline is None
        else {"ridge": baseline.ridge, "generalization_error": baseline.generalization_error},
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
        "classes": found.classes,
        "accuracy": None if trained.accuracies is None else _accuracies(trained.accuracies),
        "method": trained.method,
        "codes": trained.codes,
        "out": None if path is None else str(path),
    }


def _accuracies(right) -> dict[str, Any]:
    kinds = ("amp", "amp_rounded", "gibbs", "gibbs_rounded", "constant")
    return {
        "theory": right.theory._asdict(),
        "theory_left_out": right.left_out._asdict(),
        "held_out": {kind: getattr(right.held_out, kind) for kind in kinds},
        "standard_error": {kind: getattr(right.standard_errors, kind) for kind in kinds},
    }


def print_expected(out: Console, found, solution, right) -> None:
    """What theory says before anything is trained; `right` is the expected accuracy of two classes."""
    print_name(out, found)
    out.print(f"{solution.codebook}, beta {solution.beta:.4g}", markup=False, highlight=False)
    out.print(
        f"expected test error {solution.test_error:.4f}, of the most probable levels {solution.rounded_error:.4f} "
        f"(training rows left out one by one)",
        highlight=False,
    )
    if right is not None:
        out.print(
            f"expected accuracy {right.mean:.4f}, of the most probable levels {right.rounded:.4f}; {found.usual}",
            highlight=False,
        )


def print_trained(out: Console, trained, path) -> None:
    out.print(f"{trained.training_rows} rows to train on, {trained.held_out_rows} held out")
    s, amp, held, error = trained.solution, trained.amp, trained.held_out, trained.standard_errors
    table, right, left = Table(), trained.accuracies, trained.left_out
    table.add_column("")
    for what in ("test error",) if right is None else ("squared error", "accuracy"):
        for head in ("mean weights", "most probable levels"):
            table.add_column(f"{what},\n{head}", justify="right")
    table.add_column("status")

    def add(name: str, errors, shares, status: str = "") -> None:
        table.add_row(name, *errors, *([] if right is None else shares), status)

    def expected(x) -> list[str]:
        return [] if x is None else [_or_dash(share) for share in x]

    def measured(held, error, *names: str) -> list[str]:
        each = [f"{getattr(held, name):.4f} ± {getattr(error, name):.4f}" for name in names]
        return [*each, *[""] * (2 - len(each))]

    state = "stable" if s.stable else "unstable: AMP need not converge"
    add(
        "theory, left out",
        [f"{left.test_error:.4f}", f"{left.rounded_error:.4f}"],
        expected(right and right.left_out),
        state,
    )
    add("theory, held out", [f"{s.test_error:.4f}", _or_dash(s.rounded_error)], expected(right and right.theory))
    state = f"{'converged' if amp.converged else 'NOT CONVERGED'} in {int(amp.steps)} iterations"
    own = [f"{x:.4f}" if amp.converged else "–" for x in (amp.test_error, amp.rounded_test_error)]
    add("AMP, its own estimate", own, ["", ""], state)
    for name, fields, status in (
        ("AMP, held out", ("amp", "amp_rounded"), ""),
        ("Gibbs, held out", ("gibbs", "gibbs_rounded"), f"R-hat {float(trained.gibbs.energy_spread):.3f}"),
        (f"{'mean' if right is None else 'most frequent'} label, held out", ("constant",), ""),
    ):
        shares = [] if right is None else measured(right.held_out, right.standard_errors, *fields)
        add(name, measured(held, error, *fields), shares, status)
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


def plain(console: Console) -> Callable[[str], None]:
    """Lines as they are."""
    return lambda text: console.print(text, markup=False, highlight=False)


def print_theory(out: Console, found, beta, baseline, best, unit, factor, cheapest, enough, further: bool) -> None:
    task = found.task
    print_name(out, found)
    out.print(_numbers(task, beta), markup=False, highlight=False)
    noise = float(task.noise) if isinstance(task, Taught) and task.adds_noise else 0.0
    heads = ["bits", "width", "width/σ", "error"] + ["increase", "ratio"] * (baseline is not None) + ["rounded"]
    heads += ["accuracy", "acc. rounded"] * (found.classes is not None)
    table = _plain_table(*heads, "replicon", "phase")
    for bits, b in best.items():
        s = b.solution
        if not b.converged:
            reason = "no stable width" if jnp.isnan(b.width) else "not converged"
            table.add_row(str(bits), *["–"] * len(heads), reason)
            continue
        phase = ("one step, " if s.breaking else "") + ("stable" if s.stable else "unstable")
        phase += ", limit" if b.at_stability_limit else ", at range end" if b.at_edge else ""
        row = [str(bits), f"{b.width:.4f}", f"{float(b.width) / unit:.2f}", f"{s.test_error:.4f}"]
        if baseline is not None:
            row.append(f"{100 * (float(s.test_error) / float(baseline.test_error) - 1):+.1f} %")
            row.append(f"{float(b.generalization_error) / float(baseline.generalization_error):.3f}")
        row += map(_or_dash, [s.rounded_error + noise, *([] if found.classes is None else found.accuracy(s))])
        table.add_row(*row, f"{s.replicon:.3f}", phase, style="bold green" if bits == cheapest else None)
    if baseline is not None:
        row = ["real", "–", "–", f"{baseline.test_error:.4f}", "", "1.000", ""]
        row += [] if found.classes is None else [f"{found.ridge_accuracy(baseline.ridge):.4f}", ""]
        table.add_row(*row, "", "ridge")
    out.print(table)
    known = isinstance(task, LinearRegression)
    notes = [
        f"error: {'mean squared test error' if known else task.error_is}; σ = √signal; rounded: of the most probable levels"
    ]
    if baseline is not None:
        what = "error less noise over ridge's" if known else "error over ridge's"
        notes.append(f"increase: over the best unquantized (ridge) fit; ratio: {what}")
    if found.classes is not None:
        notes.append(f"accuracy: share of those rows expected right; {found.usual}")
    out.print(";\n".join(notes) + ".", style="dim", markup=False, highlight=False)
    if baseline is None:
        why = f"the {task.loss}" if not isinstance(task.loss, Square) else "rows of unequal length"
        out.print(
            f"No comparison with unquantized weights: that of ridge regression is not for {why}.", highlight=False
        )
        sound = {bits: b for bits, b in best.items() if b.converged}
        if sound:
            bits = min(sound, key=lambda bits: float(sound[bits].generalization_error))
            out.print(f"Least error: {_choice(bits, sound[bits])}.", highlight=False)
    elif cheapest is None:
        more = f": {enough} would" if enough else ", nor would 8" if further else ""
        out.print(f"No bit width tried comes within {factor:g} × the unquantized error{more}.", highlight=False)
    else:
        out.print(f"Cheapest within {factor:g} ×: {_choice(cheapest, best[cheapest])}.", highlight=False)


def _or_dash(value) -> str:
    """Where the theory does not say."""
    return f"{value:.4f}" if value == value else "–"


def _choice(bits: int, best) -> str:
    return f"[bold]{bits} bit{'s' * (bits > 1)}[/], width [bold]{best.width:.4f}[/]"


def _numbers(task: Task, beta) -> str:
    numbers = f"noise {task.noise:.4g}, beta {beta:.4g}"
    if not isinstance(task, Taught):
        return f"{task}, {numbers}"
    loss = "" if isinstance(task.loss, Square) else f", {task.loss}"
    return (
        f"alpha {task.alpha:.4g} rows per feature, signal {task.signal:.4g}, ridge {task.ridge:.4g}, {numbers}"
        f"{loss}{task.given}"
    )


def print_measured(out: Console, measured, unit) -> None:
    """Held-out rows beside the theory of the same splits."""
    first = next(iter(measured.values()))
    classes = first.accuracies is not None
    table = _plain_table("bits", "best/σ", "measured error", "theory", *["measured accuracy", "theory"] * classes, "")
    for bits, m in measured.items():
        i = int(np.argmin(m.error))
        row = [
            f"{m.best_width / unit:.2f}",
            f"{m.error[i]:.3f} ± {m.standard_error[i]:.3f}",
            f"{m.theory.mean(0)[i]:.3f}",
        ]
        if classes:
            row.append(f"{m.accuracy[i]:.4f} ± {m.accuracy_standard_error[i]:.4f}")
            row.append(f"{m.theory_accuracies.mean(0)[i]:.4f}")
        table.add_row(str(bits), *row, "" if m.mixed[:, i].all() else "chains trapped")
    row = ["real", "", _with_error(first.ridge_errors, 3), ""]
    row += [_with_error(first.ridge_accuracies, 4), ""] if classes else []
    table.add_row(*row, "ridge")
    out.print(table)
    out.print(
        f"Measured on {first.errors.shape[0]} random splits, {first.training_rows} rows to train, {first.held_out_rows} held "
        f"out; widths stepped by a factor {first.widths[1] / first.widths[0]:.2f}; ± standard error over splits.",
        highlight=False,
    )


def _with_error(values, digits: int) -> str:
    """Mean and its standard error."""
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / math.sqrt(len(values)):.{digits}f}"


def _plain_table(*heads: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == "phase" else "right", no_wrap=True)
    return table


def draw(
    path: Path, found, beta, tried: Sequence[int], best, measured, unit: float, baseline, breaking: int | str
) -> None:
    """Theory over widths; of measured splits their mean, optimum included."""
    from matplotlib.figure import Figure

    from replicajax.plot import WidthCurve, plot_widths
    from replicajax.trials import predict_widths

    widths, curves = _GRID * unit, []
    for bits in tried:
        tasks = measured[bits].tasks if measured else [found.task]
        each = [predict_widths(task, bits, widths, beta, breaking) for task in tasks]
        error = np.mean([np.where(s.converged, s.test_error, np.nan) for s in each], 0)
        stable = np.mean([s.stable for s in each], 0) > 0.5
        width = float(best[bits].width)
        lowest = float(best[bits].solution.test_error)
        if measured:
            k = int(np.nanargmin(error))
            width, lowest = float(widths[k]), float(error[k])
        curves.append(WidthCurve(bits, widths.tolist(), error.tolist(), stable.tolist(), width, lowest))
    unquantized = None if baseline is None else float(baseline.test_error)
    if measured:
        unquantized = float(np.mean(measured[tried[0]].ridge_errors))
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    error = {"error": "share of fresh labels missed"} if isinstance(found.task, Classification) else {}
    plot_widths(axes, curves, unit=unit, baseline=unquantized, measured=measured, **error)
    name = found.name.split(" (")[0].split(", ")[0].replace("$", r"\$")  # matplotlib would take it for mathematics
    numbers = (
        f"alpha {found.task.alpha:.3g}, signal {found.task.signal:.3g}, noise {found.task.noise:.3g}, beta {beta:.3g}"
    )
    if not isinstance(found.task.loss, Square):
        name += f", {found.task.loss}"
    if breaking:
        name += ", one step of breaking" + (" where needed" if breaking == "auto" else "")
    axes.set_title(f"{name}\n{numbers}", fontsize=9)
    save(figure, path, 160)


def unbeaten(points: Sequence[tuple[float, float, str]], apart: float) -> list[tuple[float, float, str]]:
    """Of (bits, loss, name), those that lose less than all of fewer bits, as far apart as names in a picture need."""
    found, least, last = [], math.inf, -math.inf
    for bits, loss, name in sorted(points):
        if loss < least and bits > last + apart:
            found.append((bits, loss, name))
            last = bits
        least = min(least, loss)
    return found


def save(figure, path: Path, dpi: int) -> None:
    with whole(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix[1:])
