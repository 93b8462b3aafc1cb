"""Controls, figures and the button that copies code: what all tabs are made of."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
from bokeh.models import (
    Button,
    Column,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    Div,
    FixedTicker,
    Range1d,
    Row,
    Select,
    Slider,
    TextAreaInput,
)
from bokeh.plotting import figure

from replicajax.explore._state import CONTROLS, Choice, Span, State

Change = Callable[..., None]
"""Called with the new values of controls, by name."""
BLUE, ORANGE, GREEN, GREY, RED = "#1f5fa8", "#d9730d", "#2a8c4a", "#8a8f98", "#b3261e"
_POWER = "return Number((10 ** tick).toPrecision(3)).toString()"


def control(name: str, state: State, change: Change) -> Any:
    """A slider or a list for what is called `name` in a state."""
    what = CONTROLS[name]
    value = getattr(state, name)
    if isinstance(what, Choice):
        widget: Any = Select(title=what.title, options=list(what.options), value=value, name=name)
        widget.on_change("value", lambda attr, old, new: change(**{name: new}))
    else:
        assert isinstance(what, Span)
        title = f"{what.title}, {what.unit}" if what.unit else what.title
        low, high = (math.log10(end) if what.log else end for end in (what.low, what.high))
        step = 1 if what.whole else 0.01 if what.log or high - low < 5 else 0.1
        shown: Any = CustomJSTickFormatter(code=_POWER) if what.log else "0" if what.whole else "0[.]00"
        at = slider_value(name, value)
        widget = Slider(title=title, start=low, end=high, step=step, value=at, format=shown, name=name)
        widget.on_change("value", lambda attr, old, new: change(**{name: 10**new if what.log else new}))
    widget.update(sizing_mode="stretch_width", min_width=150, max_width=420, margin=(4, 12, 4, 8))
    return widget


def slider_value(name: str, value: float) -> float:
    """Where the slider stands; that of inf at its end."""
    what = CONTROLS[name]
    assert isinstance(what, Span)
    inside = min(value, what.high)
    return math.log10(inside) if what.log else inside


def picture(title: str, x: str, y: str, **options: Any) -> Any:
    """A figure of the page's style."""
    made: Any = figure(
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        height=400,
        min_width=300,
        sizing_mode="stretch_width",
        y_range=between(0.01, 1.0),
        tools="pan,wheel_zoom,reset,save",
        toolbar_location="above",
        **options,
    )
    made.toolbar.logo = None
    made.toolbar.autohide = True
    made.title.text_font_size = "14px"
    for axis in made.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.major_label_text_font_size = "12px"
    made.grid.grid_line_alpha = 0.4
    made.outline_line_color = "#d0d4da"
    return made


def legend(made: Any, columns: int = 2) -> None:
    """Below the picture, where it hides nothing."""
    made.legend.update(label_text_font_size="11px", spacing=0, padding=2, border_line_color=None, click_policy="hide")
    made.legend.ncols = columns
    made.add_layout(made.legend[0], "below")


def logarithmic(axis: Any, mantissas: Sequence[float], decades: range = range(-6, 9)) -> None:
    """Marks at these mantissas, also where less than a decade is seen."""
    axis.ticker = FixedTicker(ticks=[m * 10.0**d for d in decades for m in mantissas])
    axis.formatter = CustomJSTickFormatter(code="return Number(tick.toPrecision(3)).toString()")


_ENDS = np.array([m * 10.0**d for d in range(-9, 9) for m in (1, 1.2, 1.5, 2, 3, 5, 7)])


def fit(made: Any, values: Sequence[Any]) -> None:
    """The y axis to the finite ones, all positive, with round ends, which seldom change; as it is if there are none."""
    shown = np.concatenate([np.asarray(each, float).ravel() for each in values])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if shown.size:
        low, high = np.searchsorted(_ENDS, 0.97 * shown.min()) - 1, np.searchsorted(_ENDS, 1.03 * shown.max())
        made.y_range.update(start=float(_ENDS[low]), end=float(_ENDS[high]))


def wrapped(*children: Any) -> Row:
    """Beside each other, below where there is no room."""
    return Row(children=list(children), sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


def stacked(*children: Any) -> Column:
    """Below each other."""
    return Column(children=list(children), sizing_mode="stretch_width", min_width=300)


def source(name: str, *columns: str) -> Any:
    """Columns without rows yet."""
    return ColumnDataSource(data={column: [] for column in columns}, name=name)


def between(low: float, high: float) -> Range1d:
    return Range1d(start=low, end=high)


def text_area() -> TextAreaInput:
    return TextAreaInput(
        visible=False, rows=14, cols=90, sizing_mode="stretch_width", name="code", title="copied", max_length=None
    )


def copy_button(name: str, area: TextAreaInput, code: Callable[[], str]) -> Button:
    """Shows a program in `area` and copies it."""
    button = Button(label="Copy as code", name=f"copy_{name}", width=120, tags=[0, ""])

    def clicked() -> None:
        # With a number, so that the same program is copied again.
        button.tags = [button.tags[0] + 1, code()]

    copy = """
        area.value = button.tags[1]
        area.visible = true
        if (navigator.clipboard) navigator.clipboard.writeText(area.value).catch(() => {})
    """
    button.on_click(clicked)
    button.js_on_change("tags", CustomJS(args={"button": button, "area": area}, code=copy))
    return button


def note(name: str, text: str = "") -> Div:
    return Div(text=text, name=name, sizing_mode="stretch_width", margin=(2, 8, 2, 8))


def said(text: str, colour: str = GREY) -> str:
    """As HTML; the text may come from a file."""
    return f'<span style="color:{colour}">{escape(text)}</span>' if text else ""


def numbers_line(values: list[tuple[str, str]]) -> str:
    """Names and values beside each other."""
    cell = '<span style="display:inline-block;margin:0 18px 2px 0"><span style="color:#667">{}</span> <b>{}</b></span>'
    return "".join(cell.format(escape(name), escape(value)) for name, value in values)
