"""The page of one visitor: three tabs, the state they share, and its link."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from bokeh.document import Document
from bokeh.models import CustomJS, Div, TabPanel, Tabs

from replicajax.explore._budget_tab import BudgetTab
from replicajax.explore._formats_tab import FormatsTab
from replicajax.explore._learning_tab import LearningTab
from replicajax.explore._state import TABS, State, from_query, to_query
from replicajax.explore._widgets import RED, note, said, stacked

_TEMPLATE = """{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
  body { margin: 0 auto; max-width: 1500px; padding: 4px 10px 24px; font-family: system-ui, sans-serif; }
</style>
{% endblock %}"""

_HEAD = """<div style="font-size:20px;font-weight:600">replicajax explore</div>
<div style="color:#667;font-size:13px">Theory of learning with quantized weights. The address of this page is a link to what it
shows; files stay on this machine.</div>"""

# A browser allows 200 changes of the address in 10 seconds.
_ADDRESS = """
clearTimeout(window.replicajaxAddress)
const query = cb_obj.tags[0]
window.replicajaxAddress = setTimeout(() =>
  history.replaceState(null, "", query ? "?" + query : location.pathname), 150)
"""

# A file dropped anywhere is as one picked.
_DROP = """
const view = Bokeh.index.find_one(file)
document.addEventListener("dragover", (event) => event.preventDefault())
document.addEventListener("drop", (event) => {
  const dropped = event.dataTransfer && event.dataTransfer.files
  if (!view || !dropped || dropped.length == 0) return
  event.preventDefault()
  const input = view.shadow_el.querySelector("input")
  input.files = dropped
  input.dispatchEvent(new Event("change"))
})
"""


class Page:
    """What all tabs share."""

    def __init__(self, document: Document, given: dict[str, str]):
        self.document = document
        self.state, messages = from_query(given)
        self.warning = note("warning", "<br>".join(said(each, RED) for each in messages))
        learning = LearningTab(self)
        self.tabs: dict[str, Any] = {"learning": learning, "formats": FormatsTab(self), "budget": BudgetTab(self)}
        panels = [TabPanel(title=name.capitalize(), child=tab.layout) for name, tab in self.tabs.items()]
        self.panels = Tabs(tabs=panels, active=TABS.index(self.state.tab), sizing_mode="stretch_width", name="tabs")
        self.panels.tags = [to_query(self.state)]
        self.panels.js_on_change("tags", CustomJS(code=_ADDRESS))
        self.panels.on_change("active", lambda attr, old, new: self.change(tab=TABS[new]))
        parts = (Div(text=_HEAD, sizing_mode="stretch_width"), self.warning, self.panels)
        document.add_root(stacked(*parts))
        document.title = "replicajax explore"
        document.template = _TEMPLATE  # type: ignore[assignment]  (it takes text too)
        document.js_on_event("document_ready", CustomJS(args={"file": learning.file}, code=_DROP))
        document.on_session_destroyed(lambda context: self.close())
        for tab in self.tabs.values():
            tab.refresh(set())
        self.tabs[self.state.tab].open()

    def later(self, function: Callable[[], None]) -> Any:
        """Runs in the page's own thread; any thread may ask."""

        def at_once() -> None:
            with self.together():
                function()

        return self.document.add_next_tick_callback(at_once)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What changes is sent, and drawn, once."""
        if self.document.callbacks.hold_value:
            yield
            return
        self.document.hold("combine")
        try:
            yield
        finally:
            self.document.unhold()

    def change(self, **values: Any) -> None:
        """Controls have moved to these values."""
        with self.together():
            self._change(values)

    def _change(self, values: dict[str, Any]) -> None:
        old, self.state = self.state, self.state.moved(**values)
        if self.state == old:
            return
        self.panels.tags = [to_query(self.state)]
        changed = {each.name for each in fields(State) if getattr(old, each.name) != getattr(self.state, each.name)}
        self.tabs[self.state.tab].open()
        for tab in self.tabs.values():
            tab.refresh(changed)

    @property
    def busy(self) -> bool:
        return any(lane.busy for tab in self.tabs.values() for lane in tab.lanes)

    def close(self) -> None:
        """Ends its threads."""
        for tab in self.tabs.values():
            for lane in tab.lanes:
                lane.close()
