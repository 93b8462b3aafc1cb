"""The tab "Budget": the best division of a training budget among model size, steps and bits."""

from typing import Any

import numpy as np
from bokeh.models import Span

from replicajax.explore import _code
from replicajax.explore._lane import Lane
from replicajax.explore._tab import Tab, ends
from replicajax.explore._widgets import (
    BLUE,
    ORANGE,
    RED,
    between,
    control,
    copy_button,
    fit,
    logarithmic,
    note,
    numbers_line,
    picture,
    said,
    source,
    stacked,
    text_area,
    wrapped,
)

_NAMES = ("exponent", "label_noise", "error", "budget")


class BudgetTab(Tab):
    """Its widgets, what they show and the thread that computes it."""

    watched = frozenset(_NAMES)

    def __init__(self, page: Any):
        super().__init__(page)
        self.lane = Lane(page.later)
        self.lanes = [self.lane]
        self.controls = [control(name, page.state, page.change) for name in _NAMES]
        self.numbers, self.status = note("budget_numbers"), note("budget_status")
        self.of_bits, self.of_size = (source(name, "x", "y") for name in ("of_bits", "of_size"))
        self.marks = [Span(dimension="height", line_color=RED, line_dash="dashed") for _ in range(2)]
        y = "risk − label noise"
        left = picture("Over bits, at the best model size", "bits of data, weights and gradients", y, y_axis_type="log")
        right = picture("Over model size, at the best bits", "features M", y, x_axis_type="log", y_axis_type="log")
        for made, columns, mark in zip((left, right), (self.of_bits, self.of_size), self.marks, strict=True):
            made.line("x", "y", source=columns, color=BLUE, line_width=2)
            made.scatter("x", "y", source=columns, color=BLUE, size=5)
            made.add_layout(mark)
            logarithmic(made.yaxis, [1, 2, 5])
        self.plots = left, right
        left.x_range, right.x_range = between(1.5, 20.5), between(100.0, 1.2e7)
        self.code = text_area()
        self.copy = copy_button("budget", self.code, lambda: _code.budget(page.state))
        what = (
            "A budget counts multiplications of 16 bits. Steps are what it leaves; the step size keeps its share of the "
            "limit of stability. Dashed: the best."
        )
        self.layout = stacked(
            wrapped(*self.controls),
            self.numbers,
            self.status,
            wrapped(left, right),
            note("budget_what", said(what)),
            self.copy,
            self.code,
        )

    def refresh(self, changed: set[str]) -> None:
        """After the state has changed in these."""
        state = self.page.state
        if not self.opened or not changed & self.watched:
            return
        self.status.text = said("computing … (some seconds; longer the first time)", ORANGE)

        def steps():
            from replicajax.explore import _budget

            yield from _budget.budget(state)

        self.lane.ask(steps, self._show, ends(self.status), delay=0.4)

    def _show(self, found: Any) -> None:
        from replicajax.explore import _budget

        if isinstance(found, _budget.Neighbours):
            self.of_bits.data = dict(x=_budget.BITS, y=found.at_bits)
            self.of_size.data = dict(x=_budget.SIZES, y=found.at_size)
            for plot, values in zip(self.plots, found, strict=True):
                fit(plot, [values])
            return
        names = ("features M", f"{found.size:,}"), ("steps N", f"{found.steps:,}"), ("bits", f"{found.bits[0]:g}")
        risk = ("risk", f"{float(found.risk.total):.6g}"), ("less label noise", f"{float(found.risk.excess):.6g}")
        step = ("step size", f"{found.step_size:.4g}"), ("", "converged" if found.converged else "NOT CONVERGED")
        self.numbers.text = numbers_line([*names, *risk, *step])
        for mark, at in zip(self.marks, (found.bits[0], found.size), strict=True):
            mark.location = float(np.asarray(at))
