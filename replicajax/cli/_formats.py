"""`replicajax formats`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from replicajax import formats
from replicajax.cli._show import save, unbeaten
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric


def law_of(name: str, df: float | None) -> Symmetric:
    if name == "student-t":
        return formats.StudentT(5.0 if df is None else df)
    return formats.Laplace() if name == "laplace" else formats.Normal()


class Row(NamedTuple):
    family: str
    name: str
    bits: float
    error: float

    @property
    def figure_of_merit(self) -> float:
        return self.error * 2**self.bits


def compare_formats(law: Symmetric, bits: Sequence[int], block_size: int) -> list[Row]:
    """Every format at every number of bits, scales included."""
    rows = []

    def add(family: str, name: str, fmt: Codebook | formats.BlockFormat) -> None:
        rows.append(Row(family, name, fmt.bits, float(formats.relative_rms_error(law, fmt))))

    def blocks(book: Codebook) -> formats.BlockFormat:
        return formats.BlockFormat(book, block_size, "absmax", "bf16")

    of_blocks = f"blocks of {block_size}, bf16"
    side = formats.entropy_coded(law, max(bits)).codebook.levels.size // 2  # for all of them: one program
    for b in bits:
        add("Lloyd-Max", f"Lloyd-Max, {b} bits", formats.lloyd_max(law, b))
        add("cube-root", f"cube-root, {b} bits", formats.cube_root(law, b))
        grid = formats.entropy_coded(law, b, side=side)
        entropy = "uniform grid, entropy code"
        rows.append(Row(entropy, f"{entropy}, {b} bits", float(grid.bits), float(grid.error)))
        add(f"INT, {of_blocks}", f"INT{b}, {of_blocks}", blocks(formats.integer(b)))
        for_blocks = formats.cube_root(law, b, block_size=block_size)
        add(f"cube-root, {of_blocks}", f"cube-root, {b} bits, {of_blocks}", blocks(for_blocks))
        if b == 4:
            e2m1 = formats.floating_point(2, 1)
            add("NF4", f"NF4, {of_blocks}", blocks(formats.nf4()))
            add("MXFP4", "MXFP4: E2M1, blocks of 32, e8m0", formats.BlockFormat(e2m1, 32, "absmax", "e8m0"))
            add("NVFP4", "NVFP4: E2M1, blocks of 16, e4m3", formats.BlockFormat(e2m1, 16, "absmax", "e4m3"))
    return rows


_APART = 0.9
"""Bits between names in the picture."""
_TENSOR, _ROW = 2**24, 4096
"""Weights of a tensor or row, where all of them share a scale."""


def compare_standard(law: Symmetric, menu: Sequence[formats.StandardFormat]) -> list[Row]:
    """Of iid weights."""
    rows = []
    for fmt in menu:
        rounding, name = fmt.rounding, fmt.name
        if isinstance(rounding, formats.BlockFormat) and (
            rounding.block_size is None or rounding.block_size == "channel"
        ):
            size = _TENSOR if rounding.block_size is None else _ROW
            rounding, name = formats.BlockFormat(rounding.codebook, size, rounding.scaling), f"{name}, {size} weights"
        error = formats.relative_rms_error(law, rounding, fmt.outliers or None)
        rows.append(Row(_family(fmt), name, fmt.bits, float(error)))
    return sorted(rows, key=lambda row: row.bits)


def compare_measured(measured: formats.Measured) -> list[Row]:
    """Of the weights of a file, all tensors together; formats that some of them cannot have are left out."""
    counts, rms = measured.counts, np.array([tensor.rms for tensor in measured.tensors])
    square = counts @ rms**2
    rows = []
    for j, fmt in enumerate(measured.formats):
        error = measured.error[:, j]
        if np.isfinite(error).all():
            bits = measured.single(j)[0]
            rows.append(Row(_family(fmt), fmt.name, bits, float(np.sqrt(counts @ (rms * error) ** 2 / square))))
    return sorted(rows, key=lambda row: row.bits)


def _family(fmt: formats.StandardFormat) -> str:
    name = fmt.name
    return "ggml" if fmt.ggml else "microscaling" if name.startswith("MX") else name.split("_")[0].rstrip("2348")


def limits(law: Symmetric) -> dict[str, float]:
    return {
        "Panter-Dite (best codebook, many levels)": float(formats.panter_dite(law)),
        "uniform grid and entropy code, fine": float(formats.entropy_coded_limit(law)),
        "Shannon lower bound": float(formats.shannon_lower_bound(law)),
    }


def print_formats(what: str, rows: list[Row], lines: dict[str, float], console: Console) -> None:
    table = Table(title=f"formats for {what}", title_justify="left", caption_justify="left")
    table.caption = "Rel: RMS error over RMS.  Bits include scales."
    table.add_column("format")
    for heading in ("bits", "Rel", "Rel 2^bits"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.bits:.4g}", f"{row.error:.6f}", f"{row.figure_of_merit:.4f}")
    table.add_section()
    for name, value in lines.items():
        table.add_row(name, "", "", f"{value:.4f}")
    console.print(table)


def draw_formats(what: str, rows: list[Row], lines: dict[str, float], path: Path, joined: bool) -> None:
    """Formats of a family at many bits are `joined`; else each has its name, where there is room."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    panel = figure.subplots()
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    for name, family in families.items():
        of_bits = [r.bits for r in family], [r.figure_of_merit for r in family]
        panel.plot(*of_bits, "o-" if joined else "o", ms=4, lw=1, label=name)
    if not joined:
        panel.set_yscale("log")
        for bits, error, name in unbeaten([(row.bits, row.error, row.name.split(",")[0]) for row in rows], _APART):
            at = bits, error * 2**bits
            panel.annotate(name, at, (0, -11), textcoords="offset points", fontsize=7, ha="center")
    for (name, value), style in zip(lines.items(), (":", "--", "-"), strict=False):
        panel.axhline(value, color="0.5", ls=style, lw=1, label=name)
    panel.set(xlabel="bits per weight, scales included", ylabel=r"relative RMS error $\times\ 2^{\mathrm{bits}}$")
    panel.set_title(what, loc="left", fontsize=10)
    panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    save(figure, path, 160)
