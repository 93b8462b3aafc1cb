"""Weight formats by what a weight costs and how far it is off: exact errors, and the limits no format passes. [F]"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replicajax import formats
from replicajax.distributions import Symmetric
from replicajax.formats import BlockFormat

BITS = range(2, 8)
Point = tuple[float, float]
"""Bits per weight, scales included, and Rel · 2^bits."""


class Family(NamedTuple):
    label: str
    color: str
    style: str
    points: Callable[[Symmetric], list[Point]]


def laws() -> dict[str, Symmetric]:
    """A function, because their numbers are to be made in float64."""
    return {"Normal": formats.Normal(), "Laplace": formats.Laplace(), "Student-t, df 5": formats.StudentT(5.0)}


def draw() -> Path:
    jax.config.update("jax_enable_x64", True)
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, (name, law) in zip(panels, laws().items(), strict=True):
        _panel(axes, law)
        axes.set_title(name, fontsize=11)
    panels[0].set_ylabel(r"relative RMS error $\times\ 2^{\mathrm{bits}}$")
    figure.legend(handles=_legend(), loc="outside right center", frameon=False, fontsize=9, labelspacing=0.7)
    figure.suptitle(
        "Scales of blocks can pay where tails are heavy; entropy coding pays everywhere (bits include scales)",
        fontsize=12,
    )
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=150)
    return path


def _of_books(book: Callable) -> Callable[[Symmetric], list[Point]]:
    """Codebooks in the units of the weights: one scale for the whole tensor, which costs nothing."""

    def points(law) -> list[Point]:
        return [(float(b), float(formats.relative_rms_error(law, book(law, b))) * 2.0**b) for b in BITS]

    return points


def _of_blocks(*each: BlockFormat) -> Callable[[Symmetric], list[Point]]:
    def points(law):
        return [(fmt.bits, float(formats.relative_rms_error(law, fmt)) * 2.0**fmt.bits) for fmt in each]

    return points


def _entropy_coded(law: Symmetric) -> list[Point]:
    found = [formats.entropy_coded(law, b) for b in np.arange(1.5, 7.1, 0.5)]
    return [(float(one.bits), float(one.error) * 2.0 ** float(one.bits)) for one in found]


def _floats(exponent: int) -> list[BlockFormat]:
    """One sign bit, `exponent` bits and the rest: blocks as the MX formats have them."""
    books = [formats.floating_point(exponent, b - 1 - exponent) for b in BITS if b > exponent]
    return [BlockFormat(book, 32, "absmax", "e8m0") for book in books]


def _families() -> list[Family]:
    integers = [BlockFormat(formats.integer(b), 64, "absmax", "bf16") for b in BITS]
    return [
        Family("cube-root levels", "#2a6fa8", "o-", _of_books(formats.cube_root)),
        Family("Lloyd–Max levels", "#14213d", ".-", _of_books(formats.lloyd_max)),
        Family("uniform grid,\nentropy-coded", "#2e8b57", "-", _entropy_coded),
        Family("INT, blocks of 64,\nbf16 scales", "#c2410c", "s-", _of_blocks(*integers)),
        Family("E2My, blocks of 32,\ne8m0 scales", "#8e44ad", "^-", _of_blocks(*_floats(2))),
        Family("E3My, blocks of 32,\ne8m0 scales", "#d07ab8", "v-", _of_blocks(*_floats(3))),
        Family(
            "NF4, blocks of 64,\nbf16 scales",
            "#e0a100",
            "*",
            _of_blocks(BlockFormat(formats.nf4(), 64, "absmax", "bf16")),
        ),
    ]


LIMITS = {
    "Panter–Dite": (formats.panter_dite, "--"),
    "entropy-coded limit": (formats.entropy_coded_limit, "-."),
    "Shannon lower bound": (formats.shannon_lower_bound, ":"),
}


def _panel(axes: Axes, law: Symmetric) -> None:
    for limit, style in LIMITS.values():
        axes.axhline(float(limit(law)), color="0.35", ls=style, lw=1.3, zorder=1)
    for family in _families():
        x, y = np.array(family.points(law)).T
        assert np.isfinite(y).all(), family.label
        size = 12 if family.style == "*" else 5
        axes.plot(x, y, family.style, color=family.color, ms=size, mec=family.color, lw=1.7, zorder=3)
    axes.set(yscale="log", xlim=(1.4, 7.6), ylim=(0.85, 5), xlabel="bits per weight")
    axes.set_yticks([1, 1.5, 2, 3, 4, 5], ["1", "1.5", "2", "3", "4", "5"])
    axes.set_yticks([], minor=True)
    axes.grid(alpha=0.25)


def _legend() -> list[Line2D]:
    return [
        *(
            Line2D(
                [],
                [],
                color=f.color,
                marker=f.style.strip("-") or None,
                ls="-" if "-" in f.style else "",
                ms=10 if f.style == "*" else 5,
                label=f.label,
            )
            for f in _families()
        ),
        *(Line2D([], [], color="0.35", ls=style, lw=1.3, label=name) for name, (_, style) in LIMITS.items()),
    ]


if __name__ == "__main__":
    print(draw())
