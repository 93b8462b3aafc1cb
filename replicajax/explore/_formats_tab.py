"""The tab "Formats": the error of a weight format beside others and the limits."""

from typing import Any

from bokeh.models import HoverTool

from replicajax.explore import _code
from replicajax.explore._lane import Lane
from replicajax.explore._state import State
from replicajax.explore._tab import Tab, ends
from replicajax.explore._widgets import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    between,
    control,
    copy_button,
    fit,
    legend,
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

_LAW = ("law", "df", "shape")
_FORMAT = ("element", "element_bits", "block", "scaling", "scale")
_SIDE = 1.5, 9.0
_LIMITS = (
    ("Panter", "best fine codebook", "dotted"),
    ("uniform", "entropy code of a fine grid", "dashed"),
    ("Shannon", "Shannon lower bound", "solid"),
)
_COLUMNS = "bits", "merit", "name", "rel"


class FormatsTab(Tab):
    """Its widgets, what they show and the threads that compute it."""

    watched = frozenset((*_LAW, *_FORMAT))

    def __init__(self, page: Any):
        super().__init__(page)
        self.chosen_lane, self.standard_lane = Lane(page.later), Lane(page.later)
        self.lanes = [self.chosen_lane, self.standard_lane]
        self.controls = {name: control(name, page.state, page.change) for name in (*_LAW, *_FORMAT)}
        self.numbers, self.status, self.other = note("format_numbers"), note("format_status"), note("standard_status")
        self.chosen, self.family, self.standard = (source(name, *_COLUMNS) for name in ("chosen", "family", "standard"))
        self.limits = [source(name, "x", "y") for name, *_ in _LIMITS]
        self.plot = p = picture(
            "Error of formats", "bits per weight, scales included", "relative RMS error × 2^bits", y_axis_type="log"
        )
        p.height, p.x_range = 460, between(*_SIDE)
        logarithmic(p.yaxis, [1, 1.5, 2, 3, 5, 7])
        for limit, (_, label, dash) in zip(self.limits, _LIMITS, strict=True):
            p.line("x", "y", source=limit, color=GREY, line_dash=dash, legend_label=label)
        p.scatter(
            "bits", "merit", source=self.standard, size=7, color=GREEN, alpha=0.7, legend_label="standard formats"
        )
        p.line("bits", "merit", source=self.family, color=BLUE, line_width=2, legend_label="of this kind")
        p.scatter("bits", "merit", source=self.family, size=6, color=BLUE, legend_label="of this kind")
        p.scatter("bits", "merit", source=self.chosen, size=16, marker="star", color=RED, legend_label="this format")
        tips = [
            ("", "@name"),
            ("bits", "@bits{0.0000}"),
            ("relative error", "@rel{0.000000}"),
            ("× 2^bits", "@merit{0.0000}"),
        ]
        p.add_tools(HoverTool(tooltips=tips, renderers=[p.renderers[3], p.renderers[5], p.renderers[6]]))
        legend(p)
        self.code = text_area()
        self.copy = copy_button("formats", self.code, lambda: _code.weight_format(page.state))
        first, second = (wrapped(*(self.controls[name] for name in names)) for names in (_LAW, _FORMAT))
        parts = (first, second, self.numbers, self.status, p, self.other, self.copy, self.code)
        self.layout = stacked(*parts)
        self._set(page.state)

    def refresh(self, changed: set[str]) -> None:
        """After the state has changed in these."""
        self._set(self.page.state)
        if not self.opened or not changed & self.watched:
            return
        self._ask_chosen()
        if changed & {*_LAW}:
            self._ask_standard()

    def _set(self, state: State) -> None:
        self.controls["df"].visible = state.law == "student-t"
        self.controls["shape"].visible = state.law == "generalized-normal"
        self.controls["element_bits"].disabled = state.element not in ("int", "lloyd-max", "cube-root")
        self.controls["scale"].disabled = state.block == "none"

    def _ask_chosen(self) -> None:
        state = self.page.state
        self.status.text = said("computing … (compiles some seconds the first time)")

        def steps():
            from replicajax.explore import _formats

            yield from _formats.chosen_and_family(state)

        def done(error: str | None) -> None:
            ends(self.status)(error)
            if error:
                self.numbers.text = ""
                self.chosen.data = self.family.data = columns([])

        self.chosen_lane.ask(steps, self._show, done, delay=0.05)

    def _ask_standard(self) -> None:
        state = self.page.state
        self.other.text = said("standard formats: computing … (a minute the first time, less later)", ORANGE)

        def steps():
            from replicajax.explore import _formats

            yield from _formats.standards(state)

        self.standard_lane.ask(steps, self._show, ends(self.other), delay=0.3)

    def _show(self, found: Any) -> None:
        if found.chosen is not None:
            row = found.chosen
            values = [("relative RMS error", f"{row.error:.6g}"), ("× 2^bits", f"{row.figure_of_merit:.5g}")]
            self.numbers.text = numbers_line([*values, ("bits per weight, scales included", f"{row.bits:.5g}")])
            self.chosen.data = columns([row])
        if found.family:
            self.family.data = columns(found.family)
        if found.standard:
            self.standard.data = columns(found.standard)
        for limit, (start, _, _) in zip(self.limits, _LIMITS, strict=True):
            for name, value in found.limits.items():
                if name.startswith(start):
                    limit.data = dict(x=list(_SIDE), y=[value, value])
        drawn = [self.chosen, self.family, self.standard]
        fit(self.plot, [*(each.data["merit"] for each in drawn), *(each.data["y"] for each in self.limits)])


def columns(rows: list[Any]) -> dict[str, list]:
    """Of rows, to draw."""
    return dict(
        bits=[row.bits for row in rows],
        merit=[row.figure_of_merit for row in rows],
        name=[row.name for row in rows],
        rel=[row.error for row in rows],
    )
