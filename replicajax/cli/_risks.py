"""The work of `replicajax scaling`: problems, risks, tables and figures."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from replicajax import scaling
from replicajax.cli._show import save
from replicajax.search import Split


def problem_of(size: float, exponent: float, source: float | None, noise: float, rows) -> scaling.Regression:
    if rows is not None:
        return scaling.from_data(*rows)
    return scaling.power_law(int(size) if size <= 4096 else size, exponent, source=source, noise=noise)


def precision_of(kind: str, bits: float, sites, reach: float, rounding: str) -> scaling.Precision:
    if np.isinf(bits):
        return scaling.Precision(kind)
    return scaling.of_bits(kind, bits, reach=reach, rounding=rounding, sites=sites)


def risk_rows(problem, precisions, times, step, schedule, batch, average) -> list[dict[str, Any]]:
    rows = []
    for width, precision in precisions.items():
        first = step * scaling.step_limit(problem, precision, batch)
        for count in times:
            risk = scaling.sgd_risk(problem, precision, int(count), first, schedule, batch=batch, average=average)
            rows.append({"bits": width, "steps": int(count), "step_size": float(first)} | _parts(risk))
    return rows


def _parts(risk: scaling.SGDRisk) -> dict[str, Any]:
    names = ("total", "excess", "approximation", "quantization", "bias", "variance", "floor", "step_limit")
    return {name: float(getattr(risk, name)) for name in names} | {"stable": bool(risk.stable)}


def risk_table(problem, kind: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title=f"risk of one-pass SGD, {float(problem.size):,.0f} features, {kind} errors", title_justify="left"
    )
    for heading in ("bits", "steps", "risk", "approx.", "quant.", "bias", "variance", "step limit"):
        table.add_column(heading, justify="right")
    for row in rows:
        parts = (row["approximation"], row["quantization"], row["bias"], row["variance"], row["step_limit"])
        cells = (f"{row['total']:.6g}", *(f"{x:.4g}" for x in parts))
        table.add_row("exact" if np.isinf(row["bits"]) else f"{row['bits']:g}", f"{row['steps']:.3g}", *cells)
    noise_is = f"risk = noise ({float(problem.noise):g}) + approximation + quantization + bias + variance"
    table.caption, table.caption_justify = noise_is, "left"
    return table


def exact_excess(precision, exponent, source, noise) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, steps and risk − noise of a grid of runs."""
    size, steps = (x.ravel() for x in np.meshgrid(np.geomspace(200, 2e5, 7), np.geomspace(1e4, 1e8, 7)))

    @jax.jit
    def excess(M, N):
        problem = scaling.power_law(M, exponent, source=source, noise=noise)
        return scaling.sgd_risk(problem, precision, N, 0.5 * scaling.step_limit(problem, precision)).excess

    return size, steps, np.array([excess(M, N) for M, N in zip(size, steps, strict=True)])


def fit_table(where: str, found: dict[str, Any], floor: bool, theory: dict[str, str] | None) -> Table:
    table = Table(title=where, title_justify="left")
    for heading in ("", "fitted", *(["theory"] if theory is not None else [])):
        table.add_column(heading, justify="right" if heading else "left")
    for name, value in found.items():
        if name == "converged" or (name == "floor" and not floor):
            continue
        shown = f"{value:.2%}" if name == "error" else f"{value:.5g}"
        table.add_row(name.replace("_", " "), shown, *([theory.get(name, "")] if theory is not None else []))
    caption = "risk - noise = A M^-p + B (N/floor(log2 N))^-q; error: rms of its log"
    table.caption, table.caption_justify = caption, "left"
    return table


def split_row(budget: float, split: Split) -> dict[str, Any]:
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


def split_table(kind: str, rows: list[dict[str, Any]]) -> Table:
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
    return table


def draw_risk(rows: list[dict[str, Any]], path: Path, noise: float, kind: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    for bits in dict.fromkeys(row["bits"] for row in rows):
        each = [row for row in rows if row["bits"] == bits]
        label = "exact" if np.isinf(bits) else f"{bits:g} bits"
        panel.loglog([r["steps"] for r in each], [r["excess"] for r in each], "o-", ms=4, label=label)
    panel.set(xlabel="steps N", ylabel=f"risk − noise (noise {noise:g})", title=f"{kind} errors")
    panel.grid(alpha=0.25)
    panel.legend(frameon=False)
    save(figure, path, 160)


def draw_frontier(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

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
    save(figure, path, 160)
