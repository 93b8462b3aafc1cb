"""`{names} replicajax.formats`: every public name of a module with its docstring, in the order of its source.

No list to keep: a name that is re-exported is on the page.
"""

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import replicajax


class Names(SphinxDirective):
    """With a body: only these names of the module."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        module = import_module(self.arguments[0])
        asked = [name for line in self.content for name in line.split()]
        lines = ["```{eval-rst}"]
        for name in asked or _public(module):
            lines += ["", *_directive(module.__name__, name, getattr(module, name)), ""]
        lines.append("```")
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, module.__name__), self.content_offset, parent)
        return parent.children


ROOMS = (
    *("losses", "distributions", "models", "replica", "amp", "formats", "layers", "scaling", "dynamics", "search"),
    *("sweep", "trials", "plot"),
)


def _names(module: ModuleType) -> dict[str, Any]:
    listed = getattr(module, "__all__", None) or dir(module)
    found = {name: getattr(module, name) for name in listed if not name.startswith("_")}
    ours = {name: value for name, value in found.items() if getattr(value, "__module__", "").startswith("replicajax")}
    return {name: value for name, value in ours.items() if callable(value)}


def _public(module: ModuleType) -> list[str]:
    """What is on no page before this one: a name may be had from several rooms."""
    room = module.__name__.rpartition(".")[2]
    before = [] if room == "replicajax" else [replicajax]
    before += [import_module(f"replicajax.{name}") for name in ROOMS[: ROOMS.index(room) if room in ROOMS else 0]]
    seen = {id(value) for each in before for value in _names(each).values()}
    return [name for name, value in _names(module).items() if id(value) not in seen]


def _directive(module: str, name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {module}.{name}", "   :members:"]
    return [f".. autofunction:: {module}.{name}"]


def setup(app: Sphinx) -> dict:
    app.add_directive("names", Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
