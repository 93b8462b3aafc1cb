"""The tab "Learning": error against width, the phase diagram and the codebook, of a task or of a file of rows."""

import math
import time
from base64 import b64decode
from functools import partial
from typing import Any

import numpy as np
from bokeh.models import (
    Button,
    Checkbox,
    ColorBar,
    FileInput,
    FixedTicker,
    HoverTool,
    LogColorMapper,
    Select,
    Span,
)

from replicajax.cli._request import ProblemError
from replicajax.explore import _code
from replicajax.explore._lane import Lane
from replicajax.explore._state import OF_CLASSES, State
from replicajax.explore._tab import Tab, ends
from replicajax.explore._table import Table, problem_of, table_of
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
    slider_value,
    source,
    stacked,
    text_area,
    wrapped,
)

_SOON = 0.06
"""Seconds after which part of a curve is drawn rather than nothing."""
_PAUSE = 0.05
"""Seconds that a browser has to draw the curve before the rest comes."""
_TASK = ("alpha", "noise", "loss")
_OF_CURVE = (*_TASK, "bits", "beta", "breaking")
_OF_MAP = ("noise", "loss", "bits", "beta")
_ENDS = 0.1, 6.0
_MARKS = [m * 10.0**d for d in range(-5, 4) for m in (1, 1.5, 2, 3, 5, 7)]


class LearningTab(Tab):
    """Its widgets, what they show and the threads that compute it."""

    watched = frozenset((*_OF_CURVE, *_OF_MAP))

    def __init__(self, page: Any):
        super().__init__(page)
        self.table: Table | None = None
        self.problem: Any = None
        self.curve_due = True
        self.compiled: set[tuple] = set()
        later = page.later
        self.curves, self.maps, self.bests = Lane(later), Lane(later), Lane(later)
        self.lanes = [self.curves, self.maps, self.bests]
        self._controls(page.state)
        self._pictures()
        self.layout = self._layout()

    # What is on it

    def _controls(self, state: State) -> None:
        change = self.page.change
        self.sliders = {name: control(name, state, change) for name in ("alpha", "noise", "bits", "width", "beta")}
        self.loss = control("loss", state, change)
        self.cold = Checkbox(label="β = ∞, least training error", active=math.isinf(state.beta), name="cold")
        self.cold.on_change("active", lambda attr, old, new: change(beta=self._beta(new)))
        self.sliders["beta"].on_change("value", lambda attr, old, new: self._warmed())
        self.breaking = Checkbox(label="one step of symmetry breaking", active=state.breaking, name="breaking")
        self.breaking.on_change("active", lambda attr, old, new: change(breaking=new))
        self.file = FileInput(accept=".csv", name="file", title="Your data: drop a CSV file anywhere, or pick one")
        self.arrived = {"filename": "", "value": ""}
        for each in self.arrived:
            self.file.on_change(each, self._arrives)
        self.arriving = False
        self.target = Select(title="label column", visible=False, name="target", options=[])
        self.target.on_change("value", lambda attr, old, new: self._pose())
        self.back = Button(label="Back to the Gaussian task", visible=False, name="back", width=190)
        self.back.on_click(self._go_back)
        self.status, self.message = note("status"), note("message")
        self.numbers = note("numbers")

    def _beta(self, cold: bool) -> float:
        return math.inf if cold else 10 ** self.sliders["beta"].value

    def _warmed(self) -> None:
        self.cold.active = False

    def _pictures(self) -> None:
        self.line = source("curve", "width", "error", "stable", "unstable")
        self.ridge, self.best = source("ridge", "x", "y"), source("best", "x", "y")
        self.here = source("here", "width", "error", "alpha")
        log = {"x_axis_type": "log", "y_axis_type": "log"}
        self.plot = p = picture("", "width: largest level, in weights", "generalization error", **log)
        p.name, p.x_range = "error_plot", between(*_ENDS)
        p.line("x", "y", source=self.ridge, color=GREY, line_width=1.5, legend_label="ridge regression, not quantized")
        unstable = "unstable: replica symmetry breaks"
        p.line(
            "width", "unstable", source=self.line, color=ORANGE, line_width=2, line_dash=[5, 4], legend_label=unstable
        )
        p.line("width", "stable", source=self.line, color=BLUE, line_width=2.5, legend_label="stable")
        p.scatter("x", "y", source=self.best, marker="star", size=15, color=GREEN, legend_label="best width")
        at = p.scatter("width", "error", source=self.here, size=9, color=RED, legend_label="here")
        self.marker = Span(dimension="height", line_color=RED, line_width=1, line_alpha=0.6)
        p.add_layout(self.marker)
        p.add_tools(HoverTool(tooltips=[("width", "@width{0.000}"), ("error", "@error{0.000000}")], renderers=[at]))
        p.add_tools(
            HoverTool(
                tooltips=[("width", "@width{0.000}"), ("error", "@error{0.000000}")],
                renderers=p.renderers[1:3],
                mode="vline",
            )
        )
        logarithmic(p.xaxis, [1, 2, 5])
        logarithmic(p.yaxis, [1, 1.5, 2, 3, 5, 7])
        legend(p)

        self.image = source("map", "image", "x", "y", "dw", "dh")
        self.contour = source("contour", "xs", "ys")
        self.map = m = picture("Phase diagram", "width", "α: rows per weight", **log)
        m.x_range, m.y_range = between(*_ENDS), between(0.2, 8.0)
        self.colours = LogColorMapper(palette="Viridis256", low=0.01, high=1.0, nan_color="#00000000")
        m.image(source=self.image, color_mapper=self.colours)
        m.multi_line("xs", "ys", source=self.contour, color="white", line_width=2, line_dash=[5, 4])
        m.scatter("width", "alpha", source=self.here, size=11, color=RED, line_color="white")
        m.add_layout(
            ColorBar(color_mapper=self.colours, ticker=FixedTicker(ticks=_MARKS), width=10, padding=4, title="error"),
            "right",
        )
        m.on_event("tap", self._tapped)
        logarithmic(m.xaxis, [1, 2, 5])
        logarithmic(m.yaxis, [1, 2, 5])

        self.bars = source("bars", "level", "usage", "width")
        self.book = b = picture("Codebook", "level, in weights", "probability of use")
        b.vbar("level", "width", "usage", source=self.bars, color=BLUE, line_color="white")
        b.y_range = between(0, 1)
        b.add_tools(HoverTool(tooltips=[("level", "@level{0.0000}"), ("probability", "@usage{0.0000}")]))

    def _layout(self) -> Any:
        self.code = text_area()
        self.copies = {
            name: copy_button(name, self.code, partial(self._code_of, name)) for name in ("curve", "map", "codebook")
        }
        sliders = wrapped(*self.sliders.values(), self.loss)
        switches = wrapped(self.cold, self.breaking, self.file, self.target, self.back)

        def under(made: Any, name: str) -> Any:
            return stacked(made, self.copies[name])

        self.map_column = under(self.map, "map")
        self.pictures = wrapped(under(self.plot, "curve"), self.map_column, under(self.book, "codebook"))
        parts = (sliders, switches, self.message, self.numbers, self.status, self.pictures, self.code)
        return stacked(*parts)

    # What changes

    def refresh(self, changed: set[str]) -> None:
        """After the state has changed in these."""
        state = self.page.state
        self._set(state)
        if not self.opened or not changed & {*_OF_CURVE, "width"}:
            return
        if changed & set(_OF_CURVE):
            self.curve_due = True
            self.best.data = dict(x=[], y=[])
        if not self.curve_due:
            self._mark()
        self._ask_curve()
        if self.curve_due:
            self._ask_best()
        if self.problem is None and changed & set(_OF_MAP):
            self._ask_map()

    def _set(self, state: State) -> None:
        """Puts controls where the state is, as after a tap on the map."""
        for name, slider in self.sliders.items():
            value = getattr(state, name)
            if math.isfinite(value) and abs(slider.value - slider_value(name, value)) > 1e-4:
                slider.value = slider_value(name, value)
        self.cold.active = math.isinf(state.beta)
        own = self.problem is not None
        for widget in (self.sliders["alpha"], self.sliders["noise"], self.loss):
            widget.disabled = own
        self.breaking.disabled = not math.isinf(state.beta)
        self.map_column.visible = not own
        of_classes = not own and state.loss in OF_CLASSES
        self.plot.yaxis.axis_label = (
            "leave-one-out error, variance of label = 1"
            if own
            else "classification error, share of labels"
            if of_classes
            else "generalization error, label²"
        )

    def _mark(self, error: float = math.nan) -> None:
        """The current point, on both pictures."""
        state = self.page.state
        self.marker.location = state.width
        self.here.data = dict(width=[state.width], error=[error], alpha=[state.alpha])

    def _code_of(self, name: str) -> str:
        state = self.page.state
        if name == "map":
            return _code.phase_map(state)
        data = None if self.table is None or self.problem is None else (str(self.table.file), self.target.value)
        return (_code.curve if name == "curve" else _code.codebook)(self._of(state), data)

    def _of(self, state: State) -> State:
        """Rows of a file have the square loss."""
        return state if self.problem is None else state.moved(loss="square")

    def _ask_curve(self) -> None:
        state, problem, whole = self._of(self.page.state), self.problem, self.curve_due
        # What decides which program runs.
        kind = state.loss, state.bits > 4, math.isinf(state.beta), state.breaks
        if kind not in self.compiled and (state.loss != "square" or state.breaks):
            what = ("one step of symmetry breaking of " if state.breaks else "") + f"the {state.loss} loss"
            self.status.text = said(f"compiling {what}: some seconds the first time …", ORANGE)
        else:
            self.status.text = said("computing …") if whole and not len(self.line.data["width"]) else ""

        def steps():
            from replicajax.explore import _curves

            task = _curves.task_at(state) if problem is None else problem.task
            if whole:
                begun, ridge = time.monotonic(), _curves.ridge_error(task)
                for found in _curves.curve(task, state):
                    if found.whole or time.monotonic() - begun > _SOON:
                        yield found, ridge, None
                time.sleep(_PAUSE)
            yield None, None, _curves.point(task, state)

        def done(error: str | None) -> None:
            self.compiled.add(kind)
            ends(self.status)(error)

        self.curves.ask(steps, lambda found: self._show(*found), done)

    def _show(self, found: Any, ridge: float | None, at: Any) -> None:
        if found is not None:
            from replicajax.explore._curves import split

            self.line.data = split(found)
            self.curve_due = not found.whole
            self.ridge.data = dict(x=[], y=[]) if ridge is None else dict(x=list(_ENDS), y=[ridge, ridge])
            fit(self.plot, [found.error, self.ridge.data["y"]])
            self._title()
            if not found.whole:
                self.status.text = said("computing the rest of the curve …")
        if at is not None:
            self._show_point(at)

    def _show_point(self, found: Any) -> None:
        levels, usage = np.asarray(found.codebook.levels), np.asarray(found.usage)
        sound = bool(found.converged)
        self.bars.data = dict(
            level=levels, usage=usage if sound else 0 * usage, width=np.full(levels.size, 0.8 * np.diff(levels).min())
        )
        self.book.y_range.end = 1.12 * float(usage.max()) if sound else 1.0
        self.book.title.text = f"Codebook: rate {float(found.rate):.3f} of {float(found.codebook.bits):g} bits"
        error = float(found.generalization_error) if sound else math.nan
        self._mark(error)
        shown = [("error", found.generalization_error), ("test error", found.test_error)]
        shown += [("entropy, nats per weight", found.entropy), ("rate, bits", found.rate), ("replicon", found.replicon)]
        values = [(name, f"{float(value):.6g}") for name, value in shown]
        scheme = "one step of breaking" if int(found.breaking) else "replica symmetry"
        values.append((scheme, "stable" if bool(found.stable) else "unstable"))
        values.append(("", "converged" if sound else "NOT CONVERGED, not drawn"))
        self.numbers.text = numbers_line(values)

    def _title(self) -> None:
        state = self.page.state
        beta = "∞" if math.isinf(state.beta) else f"{state.beta:.3g}"
        what = (
            f"{state.loss} loss, α = {state.alpha:.3g}" if self.problem is None else str(self.table and self.table.file)
        )
        step = ", one step of breaking" if state.breaks else ""
        self.plot.title.text = f"{what}, {state.bits} bit{'s' * (state.bits > 1)}, β = {beta}{step}"

    def _ask_best(self) -> None:
        state, problem = self._of(self.page.state), self.problem

        def steps():
            from replicajax.explore import _curves

            task = _curves.task_at(state) if problem is None else problem.task
            yield _curves.best_width(task, state)

        def show(found: tuple[float, float] | None) -> None:
            self.best.data = dict(x=[], y=[]) if found is None else dict(x=[found[0]], y=[found[1]])

        self.bests.ask(steps, show, lambda error: None, delay=0.8)

    def _ask_map(self) -> None:
        state = self.page.state

        def steps():
            from replicajax.explore import _curves

            task = _curves.task_at(state)
            for found in _curves.phase_map(task, state):
                yield found, _curves.stability_contour(found)

        def done(error: str | None) -> None:
            self.map.title.text = f"Phase diagram: {error}" if error else "Error in replica symmetry; dashed, its limit"

        self.map.title.text = "Phase diagram: computing …"
        self.maps.ask(steps, lambda found: self._show_map(*found), done, delay=0.4)

    def _show_map(self, found: Any, lines: list[np.ndarray]) -> None:
        known = found.error[np.isfinite(found.error)]
        if known.size:
            self.colours.update(low=float(known.min()), high=float(min(known.max(), 30 * known.min())))
        half_x, half_y = (math.sqrt(axis[1] / axis[0]) for axis in (found.width, found.alpha))
        x, y = found.width[0] / half_x, found.alpha[0] / half_y
        dw, dh = found.width[-1] * half_x - x, found.alpha[-1] * half_y - y
        self.image.data = dict(image=[found.error], x=[x], y=[y], dw=[dw], dh=[dh])
        self.contour.data = dict(xs=[line[:, 0] for line in lines], ys=[line[:, 1] for line in lines])

    def _tapped(self, event: Any) -> None:
        if event.x and event.y and event.x > 0 and event.y > 0:
            self.page.change(alpha=event.y, width=event.x)

    # A file of rows

    def _arrives(self, part: str, old: str, new: str) -> None:
        """Name and content come one by one, in one message."""
        self.arrived[part] = new
        if not self.arriving:
            self.arriving = True
            self.page.later(self._dropped)

    def _dropped(self) -> None:
        self.arriving = False
        if not self.arrived["filename"]:
            return
        try:
            self.table = table_of(self.arrived["filename"], b64decode(self.arrived["value"]))
        except ProblemError as error:
            self.message.text = said(str(error), RED)
            return
        last, same = self.table.last, self.target.value == self.table.last
        self.target.update(options=self.table.columns, value=last)
        if same:
            self._pose()

    def _pose(self) -> None:
        """Reads the file for the label column chosen."""
        table, target = self.table, self.target.value
        if table is None:
            return
        self.message.text = said(f"reading {table.file} …")

        def steps():
            try:
                yield problem_of(table, target), None
            except ProblemError as error:
                yield None, str(error)

        def show(found: tuple[Any, str | None]) -> None:
            problem, error = found
            self.target.visible = True
            if problem is None:
                self.message.text = said(error or "", RED)
                return
            self.message.text = said(problem.name, GREEN)
            self._switch(problem)

        def done(error: str | None) -> None:
            if error:
                self.message.text = said(f"{table.file}: {error}", RED)

        self.bests.ask(steps, show, done)

    def _go_back(self) -> None:
        self.table = None
        self.file.clear()  # or the same file could not be picked again
        self.target.visible = False
        self.message.text = ""
        self._switch(None)

    def _switch(self, problem: Any) -> None:
        self.problem = problem
        self.back.visible = problem is not None
        self.refresh(set(self.watched))
